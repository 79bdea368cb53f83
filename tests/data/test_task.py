from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from plankwise.core.errors import DataError
from plankwise.data.splitting import cut
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN, LabelledText, build_task
from tiny import rows

METRICS = ("macro_f1",)


def labelled(*labels: Any, start: int = 0) -> Any:
    return [
        {"id": start + number, "text": f"text {start + number}", "label": each} for number, each in enumerate(labels)
    ]


def ids(rows: list[LabelledText]) -> Any:
    return [row["id"] for row in rows]


class TestCut:
    SKEWED = labelled(*["common"] * 160, *["seldom"] * 30, *["rare"] * 10)

    @pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
    def test_covers_every_row_once_and_keeps_the_classes_shares(self, share: float) -> None:
        kept, taken = cut(self.SKEWED, share, 3, "x")
        assert sorted(ids(kept) + ids(taken)) == ids(self.SKEWED)
        assert len(taken) == round(share * 200)
        for label, count in Counter(row["label"] for row in self.SKEWED).items():
            assert abs(sum(row["label"] == label for row in taken) - share * count) < 1

    def test_is_a_function_of_the_seed(self) -> None:
        first, again, other = (ids(cut(self.SKEWED, 0.2, seed, "x")[1]) for seed in (1, 1, 2))
        assert first == again
        assert set(first) != set(other)

    def test_several_labels_are_stratified_by_their_combination(self) -> None:
        _, taken = cut(labelled(*[["a"]] * 60, *[["a", "b"]] * 30, *[[]] * 10), 0.1, 0, "x")
        assert Counter("|".join(row["label"]) for row in taken) == {"a": 6, "a|b": 3, "": 1}

    def test_a_label_that_occurs_once_does_not_stop_it(self) -> None:
        kept, taken = cut(labelled(*"aaaaaaaaab"), 0.2, 0, "x")
        assert (len(kept), len(taken)) == (8, 2)

    @pytest.mark.parametrize("count", [0, 1])
    def test_too_few_rows_are_refused_in_words(self, count: int) -> None:
        with pytest.raises(DataError, match=f"here: cannot cut 20% off {count} rows; give this split as a file"):
            cut(labelled(*["a"] * count), 0.2, 0, "here")


class TestSplits:
    def test_given_ones_stay_as_they_are(self) -> None:
        given = {TRAIN: rows(30, 1), DEVELOPMENT: rows(10, 2), TEST: rows(20, 3)}
        task = build_task("t", given, METRICS)
        assert task.labels == ("bad", "good")
        for part, expected in given.items():
            assert list(task.splits[part]["text"]) == [row["text"] for row in expected]
            assert list(task.splits[part]["id"]) == ids(expected)
            assert [task.labels[each] for each in task.splits[part]["label"]] == [row["label"] for row in expected]

    @pytest.mark.parametrize("given", [(TRAIN,), (TRAIN, TEST), (TRAIN, DEVELOPMENT)])
    def test_missing_ones_are_cut_from_train_alone(self, given: Any) -> None:
        parts = {part: rows(100, number) for number, part in enumerate(given)}
        task = build_task("t", parts, METRICS, development_share=0.1, test_share=0.2)
        before, after = (100, 80) if TEST not in given else (0, 100)
        expected = {
            TRAIN: 100 - (20 if TEST not in given else 0) - (0 if DEVELOPMENT in given else round(0.1 * after)),
            DEVELOPMENT: 100 if DEVELOPMENT in given else round(0.1 * after),
            TEST: 100 if TEST in given else round(0.2 * before),
        }
        assert dict(task.splits.num_rows) == expected
        cut_from_train = [
            each for part in task.splits if part == TRAIN or part not in given for each in task.splits[part]["id"]
        ]
        assert sorted(cut_from_train) == sorted(ids(parts[TRAIN]))

    def test_cuts_follow_the_seed_and_nothing_else(self) -> None:
        first, again, other = (build_task("t", {TRAIN: rows(80)}, METRICS, split_seed=seed) for seed in (4, 4, 5))
        assert first.hashes == again.hashes
        assert all(first.hashes[part] != other.hashes[part] for part in first.splits)

    def test_hashes_tell_any_change_of_content(self) -> Any:
        def hash_of(**change: Any) -> Any:
            train = [{**row, "text_pair": "p"} for row in rows(20)]
            train[7] = {**train[7], **change}
            return build_task("t", {TRAIN: train, DEVELOPMENT: rows(9, 2), TEST: rows(9, 3)}, METRICS).hashes

        label = "good" if rows(20)[7]["label"] == "bad" else "bad"
        changes = [{}, {"text": "other"}, {"text_pair": "other"}, {"label": label}, {"id": "other"}]
        hashes = [hash_of(**change) for change in changes]
        assert len({each[TRAIN] for each in hashes}) == len(changes)
        assert len({each[TEST] for each in hashes}) == 1

    def test_without_test_holds_everything_else(self) -> None:
        task = build_task("t", {TRAIN: rows(80)}, METRICS, access="credentialed")
        seen = task.without_test()
        assert set(seen.splits) == {TRAIN, DEVELOPMENT}
        assert (seen.labels, seen.access, seen.metrics) == (task.labels, "credentialed", METRICS)
        assert TEST in task.splits


class TestLabels:
    def test_are_those_of_train_sorted(self) -> None:
        train = labelled(*"cabcab")
        task = build_task("t", {TRAIN: train, DEVELOPMENT: labelled(*"ab"), TEST: labelled(*"ba")}, METRICS)
        assert task.labels == ("a", "b", "c")
        assert list(task.splits[TRAIN]["label"]) == [2, 0, 1, 2, 0, 1]
        assert list(task.splits[TEST]["label"]) == [1, 0]

    def test_several_become_flags(self) -> None:
        train = labelled(["b"], [], ["a", "b"])
        task = build_task("t", {TRAIN: train, DEVELOPMENT: train, TEST: train}, METRICS, kind="multi_label")
        assert task.labels == ("a", "b")
        assert list(task.splits[TRAIN]["label"]) == [[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]]

    @pytest.mark.parametrize("part", [DEVELOPMENT, TEST])
    @pytest.mark.parametrize("kind", ["single_label", "multi_label"])
    def test_one_unseen_in_train_is_refused_with_its_row_and_the_nearest(self, part: str, kind: str) -> None:
        wrap = (lambda label: [label]) if kind == "multi_label" else str
        parts = {each: labelled(wrap("good"), wrap("bad")) for each in (TRAIN, DEVELOPMENT, TEST)}
        parts[part] += labelled(wrap("goood"), start=7)
        with pytest.raises(DataError) as caught:
            build_task("t", parts, METRICS, kind=kind)
        message = f"t: the {part} split, row 7: the label 'goood' is unseen in train; did you mean 'good'?"
        assert str(caught.value) == f"{message} Allowed: bad, good"


class TestVariety:
    @pytest.mark.parametrize("part", [TRAIN, DEVELOPMENT, TEST])
    @pytest.mark.parametrize(
        ("labels", "message"), [("", "is empty"), ("aaa", "holds only the label 'a' in its 3 rows")]
    )
    def test_an_empty_or_one_class_split_is_refused_by_name(self, part: str, labels: Any, message: str) -> None:
        parts = {each: labelled(*"ab") for each in (TRAIN, DEVELOPMENT, TEST)} | {part: labelled(*labels)}
        with pytest.raises(DataError, match=f"t: the {part} split {message}"):
            build_task("t", parts, METRICS)

    def test_one_combination_of_labels_is_refused(self) -> None:
        parts = {each: labelled(["a"], ["b"]) for each in (TRAIN, DEVELOPMENT, TEST)} | {
            TEST: labelled(["a", "b"], ["a", "b"])
        }
        with pytest.raises(DataError, match="the test split holds only one label or combination of labels"):
            build_task("t", parts, METRICS, kind="multi_label")


def test_pairs_are_kept_and_single_texts_have_no_pair_column() -> None:
    parts = {
        each: [{**row, "text_pair": f"pair of {row['id']}"} for row in labelled(*"ab")]
        for each in (TRAIN, TEST, DEVELOPMENT)
    }
    task = build_task("t", parts, METRICS)
    assert list(task.splits[TEST]["text_pair"]) == ["pair of 0", "pair of 1"]
    single = build_task("t", {each: labelled(*"ab") for each in parts}, METRICS)
    assert single.splits[TEST].column_names == ["id", "text", "label"]
