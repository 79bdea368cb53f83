"""Effects, contrasts and spreads on tables whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from crossed_trials import KEYS, A, B, crossed
from plankwise.evaluation.effects import (
    TrialTable,
    contrast,
    levels_of,
    main_effects,
    spreads,
    table_of,
)


def test_without_noise_effects_are_exact_and_their_intervals_points() -> None:
    table = table_of(crossed(lambda a, b, seed: 0.5 + 0.1 * a + 0.02 * b + 0.03 * seed), KEYS)
    levels = main_effects(table, "a")
    assert [level.value for level in levels] == ["0.1", "0.3", "0.5"]
    assert [level.effect.value for level in levels] == pytest.approx([-0.02, 0, 0.02])
    for end in ("low", "high"):
        assert [getattr(level.effect, end) for level in levels] == pytest.approx([-0.02, 0, 0.02])
    assert levels[0].effect.trials == 12
    assert levels[0].effect.paired
    assert levels[1].mean == pytest.approx(0.5 + 0.03 + 0.05 + 0.03)


def test_missing_trials_do_not_bias_what_is_compared_within_blocks() -> None:
    """The best seed lacks its best level; plain means would be wrong by half the seed's advantage."""
    rows = crossed(lambda a, b, seed: 0.5 + 0.1 * a + 0.5 * seed)
    kept = [row for row in rows if not (row["seed"] == 2 and row["a"] == 0.5 and row["b"] > 1)]
    effects = [level.effect.value for level in main_effects(table_of(kept, KEYS), "a")]
    assert effects == pytest.approx([-0.02, 0, 0.02])


def test_a_contrast_is_the_mean_difference_within_blocks() -> None:
    rows = crossed(lambda a, b, seed: 0.5 + (0.04 if a < 0.4 else 0) + 0.2 * b + 0.3 * seed, noise=0.01)
    table = table_of(rows, KEYS)
    low = table.rows["a"].to_numpy() < 0.4
    found = contrast(table, low, ~low, {"a"})
    assert found is not None
    scores = table.rows["score"].to_numpy()
    blocks = [((table.rows["b"] == b) & (table.rows["seed"] == s)).to_numpy() for b in B for s in range(3)]
    by_hand = np.mean([scores[block & low].mean() - scores[block & ~low].mean() for block in blocks])
    assert found.value == pytest.approx(by_hand)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < found.value < found.high < 0.08
    assert (found.trials, found.seeds, found.paired) == (36, 3, True)
    assert contrast(table, low, np.zeros_like(low), {"a"}) is None


def test_intervals_hold_the_truth_about_as_often_as_they_say_and_err_on_the_wide_side() -> None:
    inside = 0
    for draw in range(40):
        shift = np.random.default_rng(1000 + draw).normal(0, 0.02, (4, 5))  # contexts and seeds that differ as wholes
        rows = crossed(lambda a, b, seed, s=shift: 0.02 * (a < 0.4) + s[b - 1, seed], 5, 0.01, draw)  # type: ignore[misc]
        table = table_of(rows, KEYS)
        low = table.rows["a"].to_numpy() < 0.4
        found = contrast(table, low, ~low, {"a"}, resamples=400)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.02 <= found.high
    assert inside >= 36


def test_one_seed_gives_no_interval() -> None:
    table = table_of(crossed(lambda a, b, seed: a, seeds=1), KEYS)
    assert {(level.effect.low, level.effect.high) for level in main_effects(table, "a")} == {(None, None)}


def test_a_design_that_is_not_crossed_is_compared_by_means() -> None:
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(40):
        a, b = float(generator.uniform(0, 1)), float(generator.uniform(0, 1))
        rows += [{"a": a, "b": b, "seed": s, "score": a + 0.01 * generator.standard_normal()} for s in (1, 2)]
    table = table_of(rows, KEYS)
    names, levels = levels_of(table, "a")
    assert len(names) == 4
    assert np.bincount(levels).tolist() == [20, 20, 20, 20]
    found = main_effects(table, "a")
    assert [level.effect.value for level in found] == sorted(level.effect.value for level in found)
    assert not found[0].effect.paired
    assert found[0].effect.high < 0 < found[3].effect.low  # type: ignore[operator]


def test_spreads_take_the_noise_off() -> None:
    """With no effect at all the raw variance between levels is positive; the component is zero on average."""
    components = [
        spreads(table_of(crossed(lambda a, b, seed: 0.0, noise=1.0, draw=draw), KEYS), KEYS, resamples=2)[0]
        for draw in range(60)
    ]
    for key in KEYS:
        values = np.array([each[key] for each in components])
        assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
    real, _ = spreads(table_of(crossed(lambda a, b, seed: a + 0.01 * seed), KEYS), KEYS)
    assert real["a"] == pytest.approx(np.var(A, ddof=1))
    assert real["b"] == pytest.approx(0, abs=1e-12)


def test_the_table_takes_finished_trials_once_each() -> None:
    rows = crossed(lambda a, b, seed: 1.0)
    unfinished = [{"a": 0.1, "b": 1, "seed": 9, "score": None}]
    lists = [{"a": [1, 2], "b": 1, "seed": 9, "score": 0.5}]
    table: TrialTable = table_of([*rows, *rows[:5], *unfinished, *lists], KEYS)
    assert len(table.rows) == 37
    assert levels_of(table, "a")[0][-1] == "[1, 2]"
