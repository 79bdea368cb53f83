"""Contamination: what counts as nearly a text of the test split, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from plankwise.core.errors import DataError
from plankwise.data.corpus.contamination import ContaminationFilter
from plankwise.data.corpus.corpus import Corpus

POST = "Das ist doch alles nicht wahr was diese Leute uns seit Jahren erzählen wollen"
LONG = " ".join(f"word{number}" for number in range(400))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (POST, True),
        (f"  {POST.upper()}!!! ", True),
        ("„Das ist doch alles, nicht wahr, was diese Leute uns seit Jahren erzählen wollen.“", True),
        (f"Ein Redner las vor: {POST} Danach war lange Pause und niemand klatschte noch einmal.", True),
        (POST.replace("wollen", "werden"), True),  # the last word differs: 9 of 10 n-grams are equal
        (POST.replace("diese", "jene"), False),  # one word in the middle breaks five of the ten
        ("Das ist doch alles nicht wahr", False),  # a common phrase: two n-grams
        ("Danke!", True),
        ("danke", True),
        ("Danke schön", False),
        ("", False),
        (" ".join(f"word{number}" for number in range(100, 120)), True),  # a line from inside a long text
        (" ".join(f"word{number}" for number in range(100, 106)), False),
        (" ".join(f"word{number}" for number in range(0, 400, 2)), False),
    ],
)
def test_a_line_is_found_if_it_is_nearly_a_text(line: str, found: bool) -> None:
    assert ContaminationFilter([POST, "Danke.", "…", LONG]).matches(line) is found


def test_no_text_finds_nothing_and_equal_texts_have_one_identity() -> None:
    assert not ContaminationFilter([]).matches(POST)
    one, other = ContaminationFilter([POST, LONG]), ContaminationFilter([f"{POST}.", LONG])
    assert one.identity == other.identity
    assert one.identity != ContaminationFilter([LONG, POST]).identity
    assert one.identity != ContaminationFilter([POST]).identity


def test_a_corpus_leaves_out_the_lines_and_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANKWISE_CACHE", str(tmp_path / "cache"))
    documents = [f"a line {number} of nothing\nand one more {number}" for number in range(100)]
    documents[7] = f"a line 7 of nothing\n{POST}!"
    documents[30] = POST  # all that the document has
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    corpus, found = Corpus(files=(str(path),), held_out=0.1), ContaminationFilter([POST])
    with_all, without = corpus.load(), corpus.load(found)
    assert corpus.count_contaminated(found) == 2
    assert corpus.count_contaminated(ContaminationFilter(["nowhere"])) == 0
    texts = [row["text"] for split in without.splits.values() for row in split]
    assert len(texts) == 99
    assert "a line 7 of nothing" in texts
    assert not any(POST in text for text in texts)
    assert sum(with_all.splits.num_rows.values()) == 100
    assert with_all.hashes["train"] != without.hashes["train"]


def test_a_corpus_of_nothing_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANKWISE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "corpus.txt").write_text(POST, encoding="utf-8")
    with pytest.raises(DataError, match="the corpus has 0 documents"):
        Corpus(files=(str(tmp_path / "corpus.txt"),)).load(ContaminationFilter([POST]))
