"""The texts and batches that models are timed on."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

import tiny
from fake_runtime import MANIFEST, Clock, TimedRuntime, opened
from plankwise.core.errors import DataError
from plankwise.data.batching.inputs import Text, bare_tokenizer
from plankwise.data.text_files import TextFormat
from plankwise.data.truncation import Truncation, Windows
from plankwise.evaluation.benchmark.workload import affordable, texts_of_file, texts_of_split, workload

TEXTS: list[Text] = [str(row["text"]) for row in tiny.rows(11)]


def test_batches_keep_to_the_budget_and_to_every_token() -> None:
    tokenizer = bare_tokenizer(tiny.tokenizer())
    work = workload(MANIFEST, tokenizer, TEXTS, 40)
    assert all(texts * tokens <= 40 for texts, tokens in work.shapes)
    expected = sum(len(tokenizer.encode(text).ids) for text in TEXTS)
    assert sum(int(batch["attention_mask"].sum()) for batch in work.batches) == expected == sum(work.lengths)
    assert len(work.batches) >= expected / 40


def test_without_a_budget_texts_stay_in_order() -> None:
    tokenizer = bare_tokenizer(tiny.tokenizer())
    work = workload(MANIFEST, tokenizer, TEXTS, None)
    lengths = [len(tokenizer.encode(text).ids) for text in TEXTS]
    assert work.shapes == [(8, max(lengths[:8])), (3, max(lengths[8:]))]
    assert work.batches[0]["attention_mask"].sum(axis=1).tolist() == lengths[:8]


def test_a_text_in_windows_is_one_text() -> None:
    windows = MANIFEST.model_copy(update={"truncation": Truncation(max_length=6, windows=Windows())})
    work = workload(windows, bare_tokenizer(tiny.tokenizer()), ["tree " * 9], 400)
    assert work.texts == 1
    assert work.shapes == [(3, 6)]


@pytest.mark.parametrize(("seconds", "number"), [(1000.0, 100), (30.0, 30), (0.0, 8)])
def test_texts_are_as_many_as_there_is_time_for(monkeypatch: pytest.MonkeyPatch, seconds: float, number: int) -> None:
    # The four texts of the probe are one batch: 8 s to prepare the shape, then 2 s, which is half a second a text.
    model = opened(TimedRuntime(Clock(monkeypatch), 8.0, 2.0))
    assert affordable({"one": model}, ["a fine day"] * 100, 2, seconds) == number


def test_texts_are_chosen_evenly(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*"abcdef", "", " "]))
    assert texts_of_file(path, "text", 3) == ["a", "c", "f"]
    split = tiny.task(8, 8).splits["test"]
    assert texts_of_split(split, 100) == split["text"][:]


def test_texts_are_read_as_tables_are(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress("n;text\n1;größer\n2;kühn\n".encode("cp1252")))
    assert texts_of_file(tmp_path / "t.csv.gz", "text", 3, TextFormat("cp1252", ";")) == ["größer", "kühn"]
    (tmp_path / "t.txt").write_text("größer\nkühn\n", encoding="utf-16")
    assert texts_of_file(tmp_path / "t.txt", "text", 3, TextFormat("utf-16")) == ["größer", "kühn"]
    with pytest.raises(DataError, match=r"t\.txt: it is not UTF-8, most likely utf-16; give encoding: utf-16"):
        texts_of_file(tmp_path / "t.txt", "text", 3)
    with pytest.raises(DataError, match="no encoding 'utf-99'; allowed: utf-8, cp1252"):
        TextFormat("utf-99")


def test_files_without_texts_are_refused(tmp_path: Path) -> None:
    empty, table = tmp_path / "empty.txt", tmp_path / "table.csv"
    empty.write_text("\n \n")
    table.write_text("comment\nfine\n")
    with pytest.raises(DataError, match=r"empty\.txt holds no text"):
        texts_of_file(empty, "text", 3)
    with pytest.raises(DataError, match="no column 'text'; Allowed: comment"):
        texts_of_file(table, "text", 3)
    with pytest.raises(DataError, match="cannot read"):
        texts_of_file(tmp_path / "none.txt", "text", 3)
