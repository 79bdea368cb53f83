"""The comparison of an artefact with its model, with runtimes that are wrong by a known amount."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedModel

import tiny
from plankwise.core.errors import ModelError
from plankwise.data.batching.inputs import Inputs
from plankwise.data.truncation import Truncation
from plankwise.deploy.export.parity import (
    QUANTIZED_MEAN,
    Limits,
    limits_of,
    measure,
    neighbour_caveats,
    neighbour_change,
    reference,
)
from plankwise.deploy.manifest import Manifest, describe
from plankwise.encoder.checkpoint import load_trained

BATCHES: list[Inputs] = [
    {name: tiny.batch(4, 12, seed)[name].numpy() for name in ("input_ids", "attention_mask")} for seed in range(6)
]


class Wrong:
    """The torch model itself, its first logit changed in all rows or in the first of each first batch."""

    name, streams, threads = "wrong", 1, 1

    def __init__(self, model: PreTrainedModel, change: float, everywhere: bool = True) -> None:
        self._model, self._change, self._everywhere = model, change, everywhere

    def __call__(self, inputs: Inputs) -> Any:
        logits = reference(self._model, inputs).copy()
        if self._everywhere:
            logits[:, 0] += self._change
        elif inputs is BATCHES[0]:
            logits[0, 0] += self._change
        return logits


@pytest.fixture(scope="module")
def model(source: Path) -> PreTrainedModel:
    return load_trained(str(source))


@pytest.fixture(scope="module")
def manifest(model: PreTrainedModel) -> Manifest:
    return describe(model.config, tiny.tokenizer(), ("input_ids", "attention_mask"), Truncation(max_length=32))


def test_figures_by_hand(model: PreTrainedModel, manifest: Manifest) -> None:
    int8 = manifest.model_copy(update={"precision": "int8"})
    parity = measure(
        model, Wrong(model, 3.0, everywhere=False), BATCHES, int8, source="a test", limits=Limits(1.0, 0.1)
    )
    [row] = reference(model, BATCHES[0])[:1].astype(float)
    before, after = (1 / (1 + np.exp(row[1] - first)) for first in (row[0], row[0] + 3.0))
    assert (parity.texts, parity.source, parity.tolerance) == (24, "a test", 1.0)
    assert parity.logit_error == pytest.approx(3.0, rel=1e-6)
    assert parity.probability_change == pytest.approx(after - before, rel=1e-6)
    assert parity.mean_change == pytest.approx((after - before) / 24, rel=1e-6)  # both labels of one text of 24
    assert parity.agreement == (1.0 if before > 0.5 else 23 / 24)


@pytest.mark.parametrize(
    ("limits", "change", "message"),
    [
        (Limits(0.001), 0.02, r"changes a probability by 0\.00\d\d on 24 texts \(a test\); allowed: 0\.001\."),
        (Limits(0.25, 0.02), 0.2, r"changes probabilities on average by 0\.0\d\d\d on 24 texts .*; allowed: 0\.02\."),
        (Limits(1.0), float("nan"), "changes a probability by nan"),
    ],
)
def test_what_changes_too_much_is_refused(
    model: PreTrainedModel, manifest: Manifest, limits: Limits, change: float, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        measure(model, Wrong(model, change), BATCHES, manifest, source="a test", limits=limits)


def test_limits_follow_precision_and_what_the_user_gave() -> None:
    assert limits_of("fp32", None, quantized=False) == Limits(0.001, 1.0)
    assert limits_of("int8", None, quantized=True) == Limits(0.25, QUANTIZED_MEAN)
    assert limits_of("int8", 0.4, quantized=True) == Limits(0.4, 1.0)


def test_an_answer_that_depends_on_its_batch_is_measured(manifest: Manifest) -> None:
    class Crowded:
        name, streams, threads = "crowded", 1, 1

        def __call__(self, inputs: Inputs) -> Any:
            texts = len(inputs["input_ids"])
            return np.tile([0.0, 1.0 if texts > 1 else 0.0], (texts, 1))

    assert neighbour_change(Crowded(), BATCHES, manifest, spread=1.0) == pytest.approx(1 / (1 + np.exp(-1.0)) - 0.5)


class Leaning:
    """The torch model, whose first logit leans on the length of the batch."""

    name, streams, threads = "leaning", 1, 1

    def __init__(self, model: PreTrainedModel, change: float) -> None:
        self._model, self._change = model, change

    def __call__(self, inputs: Inputs) -> Any:
        logits = reference(self._model, inputs).copy()
        logits[:, 0] += self._change * inputs["input_ids"].shape[1]
        return logits


def test_fp32_that_depends_on_its_batch_is_refused(model: PreTrainedModel, manifest: Manifest) -> None:
    assert measure(model, Leaning(model, 0.0), BATCHES, manifest, source="a test", limits=Limits(1.0)).texts == 24
    with pytest.raises(ModelError, match=r"by [1-9]\.\de-0\d with the other texts of the batch; allowed: 0\.0001"):
        measure(model, Leaning(model, 0.01), BATCHES, manifest, source="a test", limits=Limits(1.0))


def test_int8_that_depends_on_its_batch_has_a_caveat(model: PreTrainedModel, manifest: Manifest) -> None:
    int8 = manifest.model_copy(update={"precision": "int8"})
    for change, said in ((0.001, 0), (0.1, 1)):
        parity = measure(model, Leaning(model, change), BATCHES, int8, source="a test", limits=Limits(1.0))
        caveats = neighbour_caveats(parity, "int8")
        assert len(caveats) == said
        assert all("with the other texts of its batch" in each for each in caveats)
        assert int8.model_copy(update={"parity": parity}).independent == (not said)
