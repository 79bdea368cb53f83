"""Reconstruction: exact where an exact answer exists, the textbook's least squares elsewhere, on every architecture."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

import tiny
from plankwise.encoder.anatomy import head_inputs_of, layers_of, neuron_inputs_of, residual_outputs_of
from plankwise.encoder.shapes import prune, shapes_of
from plankwise.methods.reconstruction import reconstruct

each_architecture = pytest.mark.parametrize("kind", tiny.STRUCTURES)
BATCHES = [tiny.batch(8, 12, seed=seed) for seed in range(12)]
UNSEEN = [tiny.batch(8, 12, seed=100 + seed) for seed in range(4)]


def model(kind: str = "bert") -> PreTrainedModel:
    return tiny.model(kind, layers=3, **tiny.FOUR_HEADS[kind])


def counts(given: PreTrainedModel) -> tuple[int, int]:
    shape = shapes_of(given.config)[0]
    return len(shape.heads), shape.neurons


def error(one: PreTrainedModel, other: PreTrainedModel) -> float:
    """Mean squared difference of last hidden states on texts that the fit did not see, padding left out."""
    total = 0.0
    with torch.inference_mode():
        for batch in UNSEEN:
            difference = one.base_model(**batch)[0] - other.base_model(**batch)[0]
            total += float(difference[batch["attention_mask"].bool()].square().mean())
    return total


@each_architecture
def test_a_model_that_lost_nothing_stays_as_it_is(kind: str) -> None:
    given = model(kind)
    heads, neurons = counts(given)
    same = prune(given, [range(heads)] * 3, [range(neurons)] * 3)
    reconstruct(same, given, BATCHES, ridge=1e-4)
    for one, other in zip(same.parameters(), given.parameters(), strict=True):
        assert torch.equal(one, other)


def double(linears: list[tuple[nn.Linear, int]], units: int) -> None:
    """Make the last unit of each projection a copy of the first."""
    for linear, blocks in linears:
        for value in (linear.weight, linear.bias):
            if value is not None:
                rows = value.data.view(blocks, units, -1)
                rows[:, -1] = rows[:, 0]


@each_architecture
def test_units_that_others_can_replace_cost_nothing(kind: str) -> None:
    """The last neuron and head are made copies of the first; the fit must hand their outgoing weights to these."""
    given = model(kind)
    heads, neurons = counts(given)
    for layer in layers_of(given):
        double(neuron_inputs_of(given, layer), neurons)
        if kind != "mpnet":  # its heads differ by the position table that all layers share
            double(head_inputs_of(given, layer), heads)
    kept = range(heads) if kind == "mpnet" else range(heads - 1)
    smaller = prune(given, [kept] * 3, [range(neurons - 1)] * 3)
    before = error(smaller, given)
    reconstruct(smaller, given, BATCHES, ridge=1e-9)
    assert error(smaller, given) < 1e-4 * before


@each_architecture
def test_what_is_left_comes_nearer_on_unseen_texts(kind: str) -> None:
    given = model(kind)
    heads, neurons = counts(given)
    smaller = prune(given, [range(1, heads), [], range(heads)], [range(0, neurons, 2), range(3), []])
    cut = copy.deepcopy(smaller)
    gains = reconstruct(smaller, given, BATCHES, ridge=1e-4)
    assert len(gains) == 6
    assert error(smaller, given) < 0.6 * error(cut, given)


def test_the_fit_is_ridge_least_squares() -> None:
    """The first attention output, by the normal equations in NumPy on inputs taken by a hook of the test's own."""
    given, ridge = model(), 0.05
    neurons = counts(given)[1]
    smaller = prune(given, [[0, 2]] * 3, [range(neurons)] * 3)
    cut = copy.deepcopy(smaller)
    taken: dict[str, list[NDArray[np.float64]]] = {"x": [], "y": []}

    def watch(network: PreTrainedModel, name: str, column: int) -> None:
        projection, found = residual_outputs_of(network, layers_of(network)[0])[0], list[torch.Tensor]()
        handle = projection.register_forward_hook(lambda _, inputs, output: found.append((inputs[0], output)[column]))
        with torch.inference_mode():
            for batch in BATCHES:
                network(**batch)
                taken[name].append(found.pop()[batch["attention_mask"].bool()].double().numpy())
        handle.remove()

    watch(cut, "x", 0)
    watch(given, "y", 1)
    inputs = np.concatenate(taken["x"])
    inputs = np.hstack([inputs, np.ones((len(inputs), 1))])
    output = residual_outputs_of(cut, layers_of(cut)[0])[0]
    start = np.vstack([output.weight.detach().double().numpy().T, output.bias.detach().double().numpy()])
    gram = inputs.T @ inputs
    penalty = ridge * np.diag(gram).mean() * np.eye(len(gram))
    expected = start + np.linalg.solve(gram + penalty, inputs.T @ (np.concatenate(taken["y"]) - inputs @ start))
    reconstruct(smaller, given, BATCHES, ridge=ridge)
    fitted = residual_outputs_of(smaller, layers_of(smaller)[0])[0]
    np.testing.assert_allclose(fitted.weight.detach().numpy().T, expected[:-1], atol=1e-5)
    np.testing.assert_allclose(fitted.bias.detach().numpy(), expected[-1], atol=1e-5)


def test_padding_is_left_out_and_the_original_unchanged() -> None:
    given = model()
    before = copy.deepcopy(given.state_dict())
    padded = []
    for batch in BATCHES:
        longer = {name: torch.nn.functional.pad(value, (0, 5)) for name, value in batch.items()}
        longer["input_ids"][:, -5:] = 7
        padded.append(longer)
    fitted_models = [prune(given, [[1]] * 3, [range(9)] * 3) for _ in range(2)]
    for smaller, batches in zip(fitted_models, (BATCHES, padded), strict=True):
        reconstruct(smaller, given, batches, ridge=1e-3)
    for one, other in zip(fitted_models[0].parameters(), fitted_models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())
