"""A study's plots: which are drawn, and that each is a PNG."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from plankwise.evaluation.effects import Level, main_effects, table_of
from plankwise.report.plots import draw_all, main_effects_plot, pairs_plot

KEYS = ("a", "b")
ROWS = [
    {"a": a, "b": b, "seed": seed, "score": 0.5 + 0.1 * a + 0.01 * seed, "train_seconds": 9.0 + b}
    for a, b, seed in itertools.product((1, 2, 3), (4, 5), (1, 2))
]


@pytest.mark.parametrize(
    ("keys", "rows", "expected"),
    [
        (KEYS, ROWS, ["main_effects", "pairs", "importance", "cost"]),
        (("a",), [row for row in ROWS if row["b"] == 4], ["main_effects", "importance", "cost"]),
        (("a",), [row for row in ROWS if row["b"] == 4 and row["a"] == 1], ["cost"]),
    ],
    ids=["two parameters", "one", "none varied"],
)
def test_the_plots_that_the_trials_support(
    tmp_path: Path, keys: tuple[str, ...], rows: list[dict[str, float]], expected: list[str]
) -> None:
    table = table_of(rows, keys)
    effects: dict[str, list[Level]] = {key: main_effects(table, key) for key in keys}
    importances = {**dict.fromkeys(keys, 0.5), "seed": 0.2}
    made = draw_all(table, effects, importances, metric="macro_f1", folder=tmp_path / "plots")
    assert [path.stem for path in made] == expected
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made)
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(path.name for path in made)


def test_values_and_means_are_written_on_the_plots() -> None:
    table = table_of(ROWS, KEYS)
    (axis, _) = main_effects_plot({key: main_effects(table, key) for key in KEYS}, "macro_f1").axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1", "2", "3"]
    assert axis.get_ylabel() == "effect on macro_f1"
    (cells,) = pairs_plot(table, list(KEYS), "macro_f1").axes
    assert [text.get_text() for text in cells.texts] == ["0.615", "0.615", "0.715", "0.715", "0.815", "0.815"]


def test_trials_of_equal_score_have_no_importances_yet(tmp_path: Path) -> None:
    table = table_of([{**row, "score": 0.5} for row in ROWS[:4]], KEYS)
    effects = {key: main_effects(table, key) for key in KEYS}
    made = draw_all(table, effects, {}, metric="macro_f1", folder=tmp_path)
    assert "importance" not in [path.stem for path in made]
