"""The cost of each number of heads and neurons in each layer, counted on the model; `latency.py` measures time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from plankwise.encoder.anatomy import head_inputs_of, layers_of, neuron_inputs_of, residual_outputs_of
from plankwise.encoder.cost import count_parameters, linear_flops_per_token
from plankwise.encoder.shapes import shapes_of

Floats = NDArray[np.float64]
CostOfLinear = Callable[[nn.Linear, bool], int]  # the flag says that rows belong to units, not columns


@dataclass(frozen=True)
class CostTable:
    """The cost of a model as a sum over its layers, for every number of heads and neurons.

    Attributes:
        attention: for each layer, the cost of its attention with 0, 1, … heads, [heads + 1].
        feed_forward: for each layer, the cost of its feed-forward part with 0, 1, … neurons, [neurons + 1].
        fixed: the cost of everything that selection cannot change.
        unit: of the costs, for messages.
    """

    attention: Sequence[Floats]
    feed_forward: Sequence[Floats]
    fixed: float
    unit: str

    def of(self, heads: Sequence[int], neurons: Sequence[int]) -> float:
        """Add up the cost of a model with these numbers of heads and neurons in its layers."""
        attention = (table[count] for table, count in zip(self.attention, heads, strict=True))
        feed_forward = (table[count] for table, count in zip(self.feed_forward, neurons, strict=True))
        return float(sum(attention) + sum(feed_forward) + self.fixed)

    def full(self) -> float:
        """Return the cost of the model as it is."""
        return self.of([len(table) - 1 for table in self.attention], [len(table) - 1 for table in self.feed_forward])


def flops_costs(model: PreTrainedModel) -> CostTable:
    """Count floating-point operations of one token in the linear layers, as `cost.linear_flops_per_token` does."""

    def flops(linear: nn.Linear, is_input: bool) -> int:
        return 2 * linear.weight.numel()  # a multiplication and an addition for each weight

    return _counted(model, flops, linear_flops_per_token(model), "FLOPs per token")


def parameter_costs(model: PreTrainedModel) -> CostTable:
    """Count parameters, as `cost.count_parameters` does."""

    def parameters(linear: nn.Linear, is_input: bool) -> int:
        # The bias of an output projection has the width of the hidden states, so no cut makes it smaller.
        return linear.weight.numel() + (linear.bias.numel() if is_input and linear.bias is not None else 0)

    return _counted(model, parameters, count_parameters(model), "parameters")


def _counted(model: PreTrainedModel, count: CostOfLinear, total: int, unit: str) -> CostTable:
    """Divide the cost of a layer's projections evenly among its heads, or its neurons; all else is fixed."""
    attention, feed_forward = [], []
    for layer, shape in zip(layers_of(model), shapes_of(model.config), strict=True):
        outputs = residual_outputs_of(model, layer)
        inputs = (head_inputs_of(model, layer), neuron_inputs_of(model, layer))
        of_heads, of_neurons = (
            sum(count(linear, True) for linear, _ in into) + count(out, False)
            for into, out in zip(inputs, outputs, strict=True)
        )
        attention.append(_even(of_heads, len(shape.heads)))
        feed_forward.append(_even(of_neurons, shape.neurons))
    fixed = total - sum(table[-1] for table in (*attention, *feed_forward))
    return CostTable(attention, feed_forward, float(fixed), unit)


def _even(total: int, units: int) -> Floats:
    """Return the cost of 0 … `units` units of equal cost, exact in floating point, [units + 1]."""
    each, rest = divmod(total, max(1, units))
    assert rest == 0, "heads and neurons of one layer are of one size"
    return np.arange(units + 1, dtype=np.float64) * each
