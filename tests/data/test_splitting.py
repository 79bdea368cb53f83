"""Cuts: every label stays learnable, what is too rare is said, several labels are stratified one by one."""

from __future__ import annotations

import logging
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from plankwise.core.errors import DataError
from plankwise.data.splitting import cut, iteratively_stratified, labels_of
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN, LabelledText, build_task


def rows_of(labels: Any) -> Any:
    return [{"id": number, "text": f"text {number}", "label": each} for number, each in enumerate(labels)]


def counts(rows: list[LabelledText]) -> Any:
    return Counter(label for row in rows for label in labels_of(row))


def draw_sets(count: int, seed: int, names: str = "abcdefgh") -> list[list[str]]:
    draw = np.random.default_rng(seed)
    chances = 0.5 / (1 + np.arange(len(names))) ** 1.5
    return [[name for name, chance in zip(names, chances, strict=True) if draw.random() < chance] for _ in range(count)]


class TestRareLabels:
    LONG_TAIL = ["common"] * 90 + ["other"] * 60 + ["three"] * 3 + ["two"] * 2 + [f"one{n}" for n in range(7)]

    @pytest.mark.parametrize("seed", range(5))
    def test_every_label_of_development_and_test_is_in_train(self, seed: int) -> None:
        task = build_task("t", {TRAIN: rows_of(self.LONG_TAIL)}, ("macro_f1",), split_seed=seed)
        seen = {part: set(split["label"]) for part, split in task.splits.items()}
        assert len(task.labels) == len(seen[TRAIN]) == 11
        assert seen[DEVELOPMENT] | seen[TEST] <= seen[TRAIN]
        assert sorted(each for split in task.splits.values() for each in split["id"]) == sorted(map(str, range(162)))

    @pytest.mark.parametrize("secret", [False, True])
    def test_labels_of_one_row_stay_and_are_said(self, caplog: pytest.LogCaptureFixture, secret: bool) -> None:
        kept, taken = cut(rows_of(["a"] * 20 + ["b"] * 10 + ["x", "y"]), 0.2, 0, "t: test", secret)
        assert counts(taken) == {"a": 4, "b": 2}
        assert counts(kept) == {"a": 16, "b": 8, "x": 1, "y": 1}
        said = "t: test: 2 rows stay in train, being the only ones of their labels"
        assert caplog.messages == [said if secret else f"{said}: 'x' (1), 'y' (1)"]

    def test_a_row_of_several_labels_stays_for_the_rarest_of_them(self, caplog: pytest.LogCaptureFixture) -> None:
        kept, taken = cut(rows_of([["a"], ["b"], ["a", "b"], []] * 5 + [["a", "rare"], ["b", "rarer"]]), 0.3, 0, "t")
        assert {"rare", "rarer"} <= set(counts(kept))
        assert not {"rare", "rarer"} & set(counts(taken))
        assert "2 rows stay in train, being the only ones of their labels: 'rare' (1), 'rarer' (1)" in caplog.text

    def test_many_labels_in_a_small_cut_leave_none_out(self, caplog: pytest.LogCaptureFixture) -> None:
        labels = [f"label {n % 30}" for n in range(60)]
        kept, taken = cut(rows_of(labels), 0.4, 1, "t")  # 24 rows cannot hold 30 labels evenly
        assert set(counts(kept)) == set(labels)
        assert re.fullmatch(
            r"t: [1-9] rows go back to train, which has no other of their labels: .*", caplog.messages[0]
        )
        assert len(kept) + len(taken) == 60

    def test_labels_of_one_row_alone_cannot_be_cut(self) -> None:
        with pytest.raises(
            DataError, match="cannot cut 20% off 5 rows, 5 of which have a label of their own; give this"
        ):
            cut(rows_of("abcde"), 0.2, 0, "t")


class TestWithoutRareLabels:
    @pytest.mark.parametrize(("labels", "stratified"), [("aaaabbbbcccc" * 9, True), ("abcdefgh" * 3, False)])
    @pytest.mark.parametrize("seed", [0, 3])
    def test_the_cut_is_scikit_learns(
        self, caplog: pytest.LogCaptureFixture, labels: Any, stratified: bool, seed: int
    ) -> None:
        rows = rows_of(labels)
        kept, taken = cut(rows, 0.2, seed, "t")
        expected = train_test_split(
            rows, test_size=0.2, random_state=seed, shuffle=True, stratify=list(labels) if stratified else None
        )
        assert [kept, taken] == expected
        assert not caplog.records


class TestSeveralLabels:
    @pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_equals_the_papers_algorithm_written_slowly(self, share: float, seed: int) -> None:
        labels = draw_sets(120, seed)
        assert iteratively_stratified(labels, share, seed).tolist() == slowly(labels, share, seed)

    @pytest.mark.parametrize("share", [0.1, 0.2])
    def test_each_label_gives_its_share(self, share: float) -> None:
        labels = draw_sets(400, 3)
        rows = rows_of(labels)
        kept, taken = cut(rows, share, 0, "t")
        assert len(taken) == round(share * 400)
        assert sorted(row["id"] for row in [*kept, *taken]) == list(range(400))
        found, every = counts(taken), counts(rows)
        assert max(abs(found[name] - share * every[name]) for name in every) <= 1.5
        at_random = counts(train_test_split(rows, test_size=share, random_state=0)[1])
        assert sum(abs(found[n] - share * every[n]) for n in every) < sum(
            abs(at_random[n] - share * every[n]) for n in every
        )

    def test_is_a_function_of_the_seed(self) -> None:
        first, again, other = (
            [row["id"] for row in cut(rows_of(draw_sets(90, 0)), 0.2, seed, "t")[1]] for seed in (1, 1, 2)
        )
        assert first == again
        assert first != other

    @pytest.mark.parametrize("seed", range(6))
    def test_no_label_of_any_split_is_unseen_in_train(self, seed: int, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.ERROR)
        labels = draw_sets(60, seed, "abcdefghijklmnopqrstuvwxyz")
        task = build_task("t", {TRAIN: rows_of(labels)}, ("macro_f1",), kind="multi_label", split_seed=seed)
        flags = {part: np.array(split["label"][:]).any(axis=0) for part, split in task.splits.items()}
        assert flags[TRAIN].all()
        assert 10 <= task.splits.num_rows[TEST] <= 12  # a fifth of the rows whose labels are not rare


def slowly(labels: list[list[str]], share: float, seed: int) -> list[bool]:
    """Iterative stratification, Sechidis et al. 2011, Algorithm 1, with sides of fixed sizes: lists and loops."""
    draw, count = np.random.default_rng(seed), len(labels)
    order = draw.permutation(count).tolist()
    sizes = [count - round(share * count), round(share * count)]
    names = sorted({name for row in labels for name in row})
    wanted = [{name: sizes[j] / count * sum(name in row for row in labels) for name in names} for j in (0, 1)]
    chosen: dict[int, int] = {}
    while len(chosen) < count:
        left = [row for row in order if row not in chosen]
        tally = {name: sum(name in labels[row] for row in left) for name in names}
        rarest = min((name for name in names if tally[name]), key=lambda name: tally[name], default=None)
        for row in left:
            if rarest is not None and rarest not in labels[row]:
                continue
            sides = [j for j in (0, 1) if sizes[j] > 0]
            for need in ([each[rarest] for each in wanted] if rarest else sizes, sizes):
                most = max(need[j] for j in sides)
                sides = [j for j in sides if need[j] > most - 1e-9]
            chosen[row] = sides[0] if len(sides) == 1 else int(draw.choice(sides))
            sizes[chosen[row]] -= 1
            for name in labels[row]:
                wanted[chosen[row]][name] -= 1
    return [chosen[row] == 1 for row in range(count)]
