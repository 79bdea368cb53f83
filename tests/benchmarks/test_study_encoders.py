"""Seeds of a study that were run one by one say the same as if they had been run together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crossed_trials import KEYS, crossed
from plankwise.evaluation.effects import main_effects, table_of
from plankwise.evaluation.noise import noise_of
from study_encoders import merged


def document(trials: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    seeds = sorted({trial["seed"] for trial in trials})
    alike = {"name": "s", "task": "t", "metric": "macro_f1", "split": "development", "sampler": "grid", "settings": 12}
    rows = [{**trial, "number": number, "log_loss": 1 - trial["score"]} for number, trial in enumerate(trials)]
    counts = {"complete": len(trials), "failed": 0}
    found = {**alike, "parameters": list(KEYS), "seeds": seeds, "counts": counts, "train_seconds": 1.0, "trials": rows}
    return {**found, **changes}


def test_seeds_are_analysed_together(tmp_path: Path) -> None:
    whole = crossed(lambda a, b, seed: a + 0.01 * b + 0.1 * seed, seeds=2, noise=0.01)
    for seed in (0, 1):
        part = [trial for trial in whole if trial["seed"] == seed]
        (tmp_path / f"seed-{seed}.json").write_text(json.dumps(document(part)))
    found = merged(tmp_path)
    assert (found["seeds"], found["counts"]["complete"], found["train_seconds"]) == ([0, 1], 24, 2.0)
    assert [trial["number"] for trial in found["trials"]] == list(range(24))
    expected = main_effects(table_of(document(whole)["trials"], KEYS), "a")
    together = {level["value"]: level["effect"]["value"] for level in found["effects"]["a"]}
    assert together == pytest.approx({level.value: level.effect.value for level in expected})
    losses = [level["effect"]["value"] for level in found["loss_effects"]["a"]]
    assert losses == pytest.approx([-each for each in together.values()])
    assert found["noise"] == pytest.approx(noise_of(table_of(document(whole)["trials"], KEYS)))
    json.dumps(found, allow_nan=False)


def test_seeds_of_another_study_are_refused(tmp_path: Path) -> None:
    trials = crossed(lambda a, b, seed: a, seeds=1)
    for seed, settings in ((0, 12), (1, 20)):
        (tmp_path / f"seed-{seed}.json").write_text(json.dumps(document(trials, settings=settings)))
    with pytest.raises(ValueError, match="seeds are of studies that differ"):
        merged(tmp_path)
