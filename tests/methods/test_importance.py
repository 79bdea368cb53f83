"""Importance by gates: against one text at a time, against the curvature it stands for, and on planted units."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import PreTrainedModel

import tiny
from plankwise.data.batching.inputs import Batch
from plankwise.encoder.anatomy import head_inputs_of, layers_of, neuron_inputs_of, residual_outputs_of
from plankwise.encoder.gates import LayerGates, gated
from plankwise.encoder.shapes import shapes_of
from plankwise.encoder.surgery import frozen_twin
from plankwise.methods import importance
from plankwise.methods.importance import gate_importance, magnitude_importance
from plankwise.training.objectives.losses import Loss, task_loss
from plankwise.training.objectives.objective import Sample
from plankwise.training.objectives.registry import objective_of

Measure = Literal["fisher", "taylor"]
each_architecture = pytest.mark.parametrize("kind", tiny.STRUCTURES)


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "bf16_is_fast", lambda device: False)


def model(kind: str = "bert") -> PreTrainedModel:
    return tiny.model(kind, layers=2, **tiny.FOUR_HEADS[kind])


def labelled(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**batch, "labels": torch.arange(len(batch["input_ids"])) % 2}


BATCHES = [labelled(tiny.batch(5, 9, seed=seed)) for seed in range(3)]


def sample(loss: Loss, repeats: int = 1) -> Sample:
    def batches() -> Iterator[Batch]:
        for _ in range(repeats):
            yield from BATCHES

    return Sample(batches, loss, 15)


@pytest.mark.parametrize("measure", ["fisher", "taylor"])
@each_architecture
def test_it_is_the_mean_over_texts_run_one_by_one(kind: str, measure: Measure) -> None:
    network = frozen_twin(model(kind)).eval()
    found = gate_importance(network, sample(task_loss("single_label")), measure)
    shapes = shapes_of(network.config)
    sums = [[np.zeros(len(shape.heads)) for shape in shapes], [np.zeros(shape.neurons) for shape in shapes]]
    for batch in BATCHES:
        for row in range(5):
            one = {name: value[row : row + 1] for name, value in batch.items()}
            gates = [
                LayerGates(*(torch.ones(n, requires_grad=True) for n in (len(shape.heads), shape.neurons)))
                for shape in shapes
            ]
            with gated(network, gates):
                logits = network(**{name: one[name] for name in ("input_ids", "attention_mask")}).logits
                torch.autograd.backward(functional.cross_entropy(logits, one["labels"]))
            for layer, gate in enumerate(gates):
                for part, value in enumerate((gate.heads, gate.neurons)):
                    assert value.grad is not None
                    gradient = value.grad.double().numpy()
                    sums[part][layer] += (gradient**2 if measure == "fisher" else abs(gradient)) / 15
    for part in (0, 1):
        for layer in range(2):
            np.testing.assert_allclose(found[part][layer], sums[part][layer], rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("measure", ["fisher", "taylor"])
def test_a_unit_that_writes_nothing_matters_nothing(measure: Measure) -> None:
    given = model()
    attention, feed_forward = residual_outputs_of(given, layers_of(given)[1])
    with torch.no_grad():
        attention.weight[:, 4:8] = 0  # the second of four heads
        feed_forward.weight[:, 5] = 0
    heads, neurons = gate_importance(frozen_twin(given).eval(), sample(task_loss("single_label")), measure)
    assert heads[1][1] == neurons[1][5] == 0
    assert [int(np.count_nonzero(each)) for each in (heads[1], neurons[1])] == [3, 31]


def test_without_labels_fisher_is_the_curvature_of_the_divergence() -> None:
    """Twice KL(unpruned ‖ one gate moved by ε) / ε² is what labels drawn from the model must give on average."""
    network = frozen_twin(model()).eval()
    loss = objective_of("single_label").own_label_loss(torch.Generator().manual_seed(0))
    heads, _ = gate_importance(network, sample(loss, repeats=200), "fisher")
    network, step = network.double(), 1e-3
    expected = np.zeros(4)
    with torch.no_grad():
        for batch in BATCHES:
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            before = torch.log_softmax(network(**inputs).logits, dim=-1)
            for head in range(4):
                factors = [LayerGates(torch.ones(4).double(), torch.ones(32).double()) for _ in range(2)]
                factors[0].heads[head] += step
                with gated(network, factors):
                    after = torch.log_softmax(network(**inputs).logits, dim=-1)
                expected[head] += 2 * float((before.exp() * (before - after)).sum()) / step**2 / 15
    np.testing.assert_allclose(heads[0], expected, rtol=0.15)


def test_own_labels_leave_the_given_ones_alone() -> None:
    outputs = dataclasses.make_dataclass("Outputs", ["logits"])(torch.randn(6, 3))
    for kind, labels in (("single_label", torch.arange(6) % 3), ("multi_label", torch.ones(6, 3))):
        values = [
            objective_of(kind).own_label_loss(torch.Generator().manual_seed(1))(outputs, {"labels": given})
            for given in (labels, labels.flip(0))
        ]
        assert values[0] == values[1]


@each_architecture
def test_magnitude_adds_up_the_weights_of_a_unit(kind: str) -> None:
    given = model(kind)
    heads, neurons = magnitude_importance(given)
    layer = layers_of(given)[1]
    for found, inputs, output in zip(
        (heads[1], neurons[1]),
        (head_inputs_of(given, layer), neuron_inputs_of(given, layer)),
        residual_outputs_of(given, layer),
        strict=True,
    ):
        every = sum(
            float(linear.weight.detach().double().square().sum()) for linear in (*(each for each, _ in inputs), output)
        )
        assert found.sum() == pytest.approx(every)
    attention = residual_outputs_of(given, layer)[0]
    with torch.no_grad():
        attention.weight[:, : attention.in_features // len(heads[1])] *= 10
    assert int(np.argmax(magnitude_importance(given)[0][1])) == 0
