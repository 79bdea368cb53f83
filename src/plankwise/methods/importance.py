"""The importance of each head and each neuron, measured by gates on them.

Magnitude depends on weights alone. The other measures differentiate a loss with respect to a gate on each unit, with
one gate for each text:

- Taylor (Michel, Levy, Neubig 2019, arXiv 1905.10650, section 4.1): the mean of |∂L/∂gate|, which is to first order the
  change of the loss.
- Fisher (Kwon et al. 2022, arXiv 2204.09656, section 4.1): the mean of (∂L/∂gate)², which is to second order the cost
  of removing the unit.

Without labels the loss is computed at labels drawn from the model's own predictions. For Fisher this is the exact
choice: the mean of these squares is the curvature of the KL divergence from the unpruned model, whose gradient is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plankwise.core.hardware import bf16_is_fast
from plankwise.data.batching.inputs import model_inputs
from plankwise.encoder.anatomy import head_inputs_of, layers_of, neuron_inputs_of, residual_outputs_of
from plankwise.encoder.gates import LayerGates, gated
from plankwise.encoder.shapes import shapes_of
from plankwise.evaluation.metrics import Floats
from plankwise.training.objectives.objective import Sample

Importance = tuple[list[Floats], list[Floats]]  # of heads and of neurons, one array for each layer


def gate_importance(
    network: PreTrainedModel,
    sample: Sample,
    kind: Literal["fisher", "taylor"],
    shown: Callable[[int], None] = lambda done: None,
) -> Importance:
    """Measure importance by the gradients of one gate for each text and unit.

    Args:
        network: the model in evaluation mode; weights that require gradients only cost time.
        sample: the texts, sampled for this very network, and the loss.
        kind: whether squares or absolute values of the gradients are averaged.
        shown: called with the number of inputs that are done.

    Returns:
        For each layer the importance of its heads, [heads], and of its neurons, [neurons].
    """
    shapes, device = shapes_of(network.config), network.device
    totals = [torch.zeros(len(shape.heads) + shape.neurons, dtype=torch.float64, device=device) for shape in shapes]
    rows = 0
    for batch in sample.batches():
        size = len(batch["input_ids"])
        gates = [
            LayerGates(*(torch.ones((size, units), device=device, requires_grad=True) for units in (heads, neurons)))
            for heads, neurons in ((len(shape.heads), shape.neurons) for shape in shapes)
        ]
        inputs = model_inputs(network, batch)
        with gated(network, gates), torch.autocast(device.type, torch.bfloat16, bf16_is_fast(device)):
            value = sample.loss(network(**inputs), batch) * size  # a sum, so that gradients are those of single texts
        parts = [part for gate in gates for part in (gate.heads, gate.neurons)]
        torch.autograd.backward(value, inputs=[part for part in parts if part.numel()])
        # [texts, units] each; squares and absolute values are taken of single texts, before the mean.
        for total, gate in zip(totals, gates, strict=True):
            gradient = torch.cat([_gradient(gate.heads), _gradient(gate.neurons)], dim=1).double()
            total += (gradient.square() if kind == "fisher" else gradient.abs()).sum(dim=0)
        rows += size
        shown(rows)
    means, heads = [(total / rows).cpu().numpy() for total in totals], [len(shape.heads) for shape in shapes]
    return (
        [mean[:count] for mean, count in zip(means, heads, strict=True)],
        [mean[count:] for mean, count in zip(means, heads, strict=True)],
    )


def _gradient(gate: Tensor) -> Tensor:
    return torch.zeros_like(gate) if gate.grad is None else gate.grad  # none where a layer has no such units


@torch.no_grad()
def magnitude_importance(model: PreTrainedModel) -> Importance:
    """Measure importance by the sum of squares of a unit's weights, without biases."""
    heads, neurons = [], []
    for layer, shape in zip(layers_of(model), shapes_of(model.config), strict=True):
        attention, feed_forward = residual_outputs_of(model, layer)
        heads.append(_squares(head_inputs_of(model, layer), attention, len(shape.heads)))
        neurons.append(_squares(neuron_inputs_of(model, layer), feed_forward, shape.neurons))
    return heads, neurons


def _squares(inputs: Sequence[tuple[nn.Linear, int]], output: nn.Linear, units: int) -> Floats:
    if units == 0:
        return np.zeros(0)
    # Units own columns of the output projection, and rows of the inputs; fused inputs hold several blocks of rows.
    total = output.weight.double().square().sum(dim=0).view(units, -1).sum(dim=1)
    for linear, blocks in inputs:
        total = total + linear.weight.double().square().sum(dim=1).view(blocks, units, -1).sum(dim=(0, 2))
    values: Floats = total.cpu().numpy()
    return values
