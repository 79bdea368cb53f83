from __future__ import annotations

import random
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plankwise.core.errors import DataError
from plankwise.data.tasks.germeval import FILES_2018, FILES_2019, FINE, GermEval2018, GermEval2019, clean, read_tweets
from plankwise.evaluation.metrics import METRICS, majority_logits

REAL = Path("/work/shared/data/germeval2018")
OTHERS_2019_TEST = 2061
PUBLISHED = [(GermEval2018, FILES_2018), (GermEval2019, FILES_2019)]


def lines(count: int, others: int) -> list[str]:
    offensive = islice(cycle(FINE[:3]), count - others)
    labels = [("OTHER", "OTHER")] * others + [("OFFENSE", fine) for fine in offensive]
    random.Random(count).shuffle(labels)
    return [f"@user{n} Satz |LBR| Nummer {n}\t{coarse}\t{fine}" for n, (coarse, fine) in enumerate(labels)]


def write(folder: Path, files: Any = FILES_2018, end: str = "\n", **changes: list[str]) -> Path:
    """Write both files with exactly the published counts, or the changed lines of one split."""
    for split, (name, count, others) in files.items():
        text = changes.get(split) or lines(count, OTHERS_2019_TEST if others is None else others)
        (folder / name).write_bytes((end.join(text) + end).encode())
    return folder


def one(tmp_path: Path, content: str, granularity: Any = "binary", user_token: str | None = "@user") -> Any:
    path = tmp_path / "tweets.txt"
    path.write_bytes(content.encode())
    return read_tweets(path, granularity, user_token)


class TestPublishedCounts:
    @pytest.mark.parametrize(("source", "files"), PUBLISHED)
    def test_are_loaded(self, tmp_path: Path, source: Any, files: Any) -> None:
        task = source(path=write(tmp_path, files)).load()
        train, development, test = (task.splits[part] for part in ("train", "development", "test"))
        assert task.labels == ("OFFENSE", "OTHER")
        assert task.metrics == ("macro_f1", "germeval_f1", "accuracy")
        assert (len(train) + len(development), len(test)) == (files["train"][1], files["test"][1])
        others = Counter(train["label"][:] + development["label"][:])[1]
        assert others == files["train"][2]
        assert abs(development["label"][:].count(1) / len(development) - others / files["train"][1]) < 0.002
        assert not set(train["id"]) & set(development["id"])

    def test_four_classes(self, tmp_path: Path) -> None:
        task = GermEval2018(path=write(tmp_path), granularity="fine").load()
        assert task.labels == ("ABUSE", "INSULT", "OTHER", "PROFANITY")
        assert Counter(task.splits["test"]["label"])[task.labels.index("OTHER")] == 2330

    def test_the_file_names_are_the_organisers_own(self) -> None:
        assert [name for name, *_ in FILES_2018.values()] == ["germeval2018.training.txt", "germeval2018.test.txt"]
        assert [name for name, *_ in FILES_2019.values()] == [
            "germeval2019.training_subtask1_2_korrigiert.txt",
            "germeval2019GoldLabelsSubtask1_2.txt",
        ]

    @pytest.mark.parametrize(("source", "files"), PUBLISHED)
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_a_lost_row_is_refused(self, tmp_path: Path, source: Any, files: Any, split: Any) -> None:
        name, count, others = files[split]
        changes: dict[str, Any] = {split: lines(count, others or OTHERS_2019_TEST)[:-1]}
        write(tmp_path, files, **changes)
        with pytest.raises(DataError, match=rf"{name}: {count - 1} rows, \d+ of them OTHER; .* has {count} rows"):
            source(path=tmp_path).load()

    def test_a_changed_label_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, test=lines(3532, 2331))
        with pytest.raises(DataError, match=r"3532 rows, 2331 of them OTHER; .* 3532 rows, 2330 OTHER"):
            GermEval2018(path=tmp_path).load()

    def test_the_cut_is_seeded(self, tmp_path: Path) -> None:
        write(tmp_path)
        first, again, other = (GermEval2018(path=tmp_path, split_seed=seed).load().hashes for seed in (0, 0, 1))
        assert first == again
        assert first["test"] == other["test"]
        assert first["development"] != other["development"]

    def test_windows_line_ends_give_the_same_task(self, tmp_path: Path) -> None:
        unix = GermEval2018(path=write(tmp_path)).load()
        assert GermEval2018(path=write(tmp_path, end="\r\n")).load().hashes == unix.hashes


class TestTweets:
    def test_marks_handles_and_line_ends_are_cleaned(self, tmp_path: Path) -> None:
        rows = one(tmp_path, "@spdde @CDU|LBR||LBR|zu  spät \tOTHER\tOTHER\r\n\r\nDu!\tOFFENSE\tINSULT\r\n")
        assert [row["text"] for row in rows] == ["@user @user zu spät", "Du!"]
        assert [row["label"] for row in rows] == ["OTHER", "OFFENSE"]
        assert [row["id"] for row in rows] == ["tweets:1", "tweets:3"]

    def test_a_byte_order_mark_is_no_part_of_the_first_tweet(self, tmp_path: Path) -> None:
        rows = one(tmp_path, "\ufeff@a Du\tOTHER\tOTHER\n@b Sie\tOTHER\tOTHER\n")
        assert [row["text"] for row in rows] == ["@user Du", "@user Sie"]

    @pytest.mark.parametrize(
        ("tweet", "expected"),
        [
            ("schreib an max.muster@web.de, @max!", "schreib an max.muster@web.de, @user!"),
            ("https://medium.com/@max/post und www.a.de/@b", "https://medium.com/@max/post und www.a.de/@b"),
            ("t.me/@max a@b @@c", "t.me/@max a@b @@user"),
            (
                ".@max (@max) Schade.@max „@max“ @spd/@cdu @a@b",
                ".@user (@user) Schade.@user „@user“ @user/@user @user@user",
            ),
        ],
    )
    def test_handles_begin_words(self, tweet: str, expected: Any) -> None:
        assert clean(tweet, "@user") == expected
        assert clean(tweet, None) == tweet

    def test_deduplicate_drops_tweets_of_test_from_train_and_development(self, tmp_path: Path) -> None:
        plain, task = (GermEval2018(path=write(tmp_path), deduplicate=drop).load() for drop in (False, True))
        assert task.hashes["test"] == plain.hashes["test"]
        rest = [*task.splits["train"]["text"], *task.splits["development"]["text"]]
        assert len(rest) == 5009 - 3532  # tweets are numbered on
        assert not set(rest) & set(task.splits["test"]["text"])

    def test_nothing_but_tabs_and_newlines_separates(self, tmp_path: Path) -> None:
        text = '"Er sagte \'nein" \u2028 und # ging \x85 heim, "'
        (row, _) = one(tmp_path, f"{text}\tOTHER\tOTHER\nx\tOTHER\tOTHER\n")
        assert row["text"] == " ".join(text.split())

    @pytest.mark.parametrize(("token", "text"), [("@user", "@user ja"), (None, "@Ä_1 ja"), ("", "ja")])
    def test_handles_become_the_token(self, token: str | None, text: str) -> None:
        assert clean("@Ä_1 ja", token) == text

    @pytest.mark.parametrize(("granularity", "label"), [("binary", "OFFENSE"), ("fine", "ABUSE")])
    def test_granularity_chooses_the_column(self, tmp_path: Path, granularity: Any, label: Any) -> None:
        assert one(tmp_path, "x\tOFFENSE\tABUSE", granularity)[0]["label"] == label

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("x\tOFFENCE\tABUSE", "unknown labels 'OFFENCE', 'ABUSE'"),
            ("x\tOFFENSE\tabuse", "unknown labels 'OFFENSE', 'abuse'"),
            ("x\tOTHER", "2 tab-separated columns, expected 3"),
            ("x\ty\tOTHER\tOTHER", "4 tab-separated columns, expected 3"),
        ],
    )
    def test_a_bad_line_is_named(self, tmp_path: Path, line: str, reason: str) -> None:
        with pytest.raises(DataError, match=rf"tweets\.txt:3: {reason}"):
            one(tmp_path, f"a\tOTHER\tOTHER\r\n\r\n{line}\r\n")

    def test_a_missing_or_undecodable_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"cannot read .*germeval2018\.training\.txt: No such file"):
            GermEval2018(path=tmp_path).load()
        (tmp_path / "tweets.txt").write_bytes("für\tOTHER\tOTHER\n".encode("latin-1"))
        with pytest.raises(DataError, match=r"cannot read .*tweets\.txt: not UTF-8, as published"):
            read_tweets(tmp_path / "tweets.txt", "binary", None)


@pytest.mark.skipif(not REAL.is_dir(), reason="the GermEval 2018 files are not here")
class TestRealFiles:
    def test_load_with_the_published_majority_score(self) -> None:
        task = GermEval2018(path=REAL).load()
        assert dict(task.splits.num_rows) == {"train": 4508, "development": 501, "test": 3532}
        labels, train = (np.asarray(task.splits[part]["label"][:]) for part in ("test", "train"))
        assert METRICS["macro_f1"](labels, majority_logits(labels, train)) == pytest.approx(0.397, abs=5e-4)

    def test_tweets_are_clean(self) -> None:
        texts = [text for split in GermEval2018(path=REAL).load().splits.values() for text in split["text"][:]]
        assert not [text for text in texts if "|LBR|" in text or "\r" in text or "\t" in text or not text]
        assert {word for text in texts for word in text.split() if word.startswith("@") and word[1:].isalnum()} == {
            "@user"
        }
