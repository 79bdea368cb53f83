"""Importance is measured once for all targets of a model, exactly as without the cache, and never mistaken."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import tiny
from plankwise.methods import pruning
from plankwise.methods.importance import gate_importance
from plankwise.methods.method import Job
from plankwise.methods.pruning import Pruning


def model(seed: int = 0) -> PreTrainedModel:
    return tiny.model("bert", layers=3, seed=seed, **tiny.FOUR_HEADS["bert"])


def job(folder: Path, **changes: Any) -> Job:
    return tiny.job(folder, task=tiny.task().without_test(), cache=folder / "cache", **changes)


def settings(**changes: Any) -> Pruning:
    return Pruning(neuron_step=1, examples=24, **changes)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every measurement."""
    seen: list[str] = []

    def spy(network: PreTrainedModel, sample: Any, kind: Any, shown: Any) -> Any:
        seen.append(kind)
        return gate_importance(network, sample, kind, shown)

    monkeypatch.setattr(pruning, "gate_importance", spy)
    return seen


def same(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_targets_share_one_measurement_and_get_the_models_that_they_would_get_alone(
    tmp_path: Path, measured: list[str]
) -> None:
    shared = job(tmp_path / "shared")
    found = {target: settings(target=target).compress(model(), shared).model for target in (1.3, 2.0, 3.0)}
    assert measured == ["fisher"]
    for target, smaller in found.items():
        alone = settings(target=target).compress(model(), job(tmp_path / f"{target}")).model
        assert same(smaller, alone)
    assert len(measured) == 4


@pytest.mark.parametrize("change", ["weights", "seed", "kind", "examples", "labels", "texts"])
def test_what_importance_depends_on_is_measured_again(change: str, tmp_path: Path, measured: list[str]) -> None:
    work = job(tmp_path)
    settings().compress(model(), work)
    given, changed = model(seed=1) if change == "weights" else model(), settings()
    if change == "seed":
        work = dataclasses.replace(work, seed=work.seed + 1)
    elif change == "texts":
        work = dataclasses.replace(work, task=tiny.task(train=97).without_test())
    elif change != "weights":
        values: dict[str, dict[str, Any]] = {
            "kind": {"importance": "taylor"},
            "examples": {"examples": 20},
            "labels": {"labels": True},
        }
        changed = dataclasses.replace(changed, **values[change])
    changed.compress(given, work)
    assert len(measured) == 2


def test_a_damaged_entry_is_measured_again(tmp_path: Path, measured: list[str]) -> None:
    work = job(tmp_path)
    first = settings().compress(model(), work)
    stored = next((tmp_path / "cache").rglob("importance.npz"))
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 255
    stored.write_bytes(content)
    second = settings().compress(model(), work)
    assert len(measured) == 2
    assert same(first.model, second.model)
    with np.load(stored) as arrays:
        assert {name.split("-")[0] for name in arrays} == {"heads", "neurons"}


def test_the_log_says_what_the_measurement_took_whenever_that_was(tmp_path: Path) -> None:
    work = job(tmp_path)
    settings().compress(model(), work)
    about = next((tmp_path / "cache").rglob("about.json"))
    document = json.loads(about.read_text())
    about.write_text(json.dumps({**document, "seconds": 7.5}).ljust(len(about.read_text())))
    found = settings(target=3.0).compress(model(), work)
    assert (found.log.seconds or {})["importance"] == 7.5
