"""Learnable gates on heads, neurons and sublayers, and the penalty that drives their expected cost to a goal.

Each head and each neuron has a gate, and so has each layer's attention and feed-forward part. A unit is open when both
its own gate and that of its part are (Xia, Zhong, Chen 2022, CoFi, arXiv 2204.00408). There are two kinds of gates:

- *hard concrete* (Louizos, Welling, Kingma 2018, arXiv 1712.01312): random values in [0, 1], both ends included;
- *movement* (Sanh, Wolf, Rush 2020, arXiv 2005.07683; for structures Lagunas et al. 2021, arXiv 2109.04838): 0 or 1 by
  the sign of a score, with the gradient of the score's sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from plankwise.encoder.gates import LayerGates
from plankwise.methods.cost_table import CostTable, Floats
from plankwise.methods.selection import Selection, select

GAMMA, ZETA = -0.1, 1.1  # γ and ζ of Louizos et al.: a sample is stretched to (γ, ζ), then clipped to [0, 1]
BETA = 2 / 3  # β, the temperature of a sample before it is stretched
INITIAL_MULTIPLIER = 10.0  # of λ₂: holds the cost to a goal that falls within few steps, before λ₁ has grown
EPSILON = 1e-6  # keeps uniform samples away from 0 and 1, where the logit is infinite
GateKind = Literal["hard_concrete", "movement"]
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class GateFunctions:
    """What one kind of gate computes from scores of any shape.

    Attributes:
        initial_score: of a gate before training: open, and close enough to the threshold to learn.
        sample: the gates' factors in training.
        deterministic: the gates' factors in evaluation.
        keep_probability: the probability that a gate is not 0; for movement gates, the sigmoid of the score.
    """

    initial_score: float
    sample: Function
    deterministic: Function
    keep_probability: Function


def concrete_sample(scores: Tensor) -> Tensor:
    """Sample hard-concrete gates from the current torch seed (Louizos et al., equations 10 and 11)."""
    noise = torch.logit(torch.rand_like(scores), eps=EPSILON)  # log u − log(1 − u)
    return _hard(torch.sigmoid((noise + scores) / BETA))


def concrete_deterministic(scores: Tensor) -> Tensor:
    """Return hard-concrete gates at test time (Louizos et al., equation 13)."""
    return _hard(torch.sigmoid(scores))


def concrete_keep_probability(scores: Tensor) -> Tensor:
    """Return the probability that a hard-concrete gate is above 0 (Louizos et al., equation 12).

    It is σ(score − β·log(−γ/ζ)).
    """
    shift = BETA * torch.log(torch.tensor(-GAMMA / ZETA, dtype=scores.dtype, device=scores.device))
    return torch.sigmoid(scores - shift)


def _hard(values: Tensor) -> Tensor:
    """Stretch values in (0, 1) to (γ, ζ) and clip them, so that exact zeros and ones are reached."""
    return (values * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def movement_deterministic(scores: Tensor) -> Tensor:
    """Return 1 where the score's sigmoid is above one half, else 0."""
    return (scores > 0).to(scores.dtype)


def movement_sample(scores: Tensor) -> Tensor:
    """Return the values of `movement_deterministic` with the gradient of the sigmoid (straight-through)."""
    soft = torch.sigmoid(scores)
    return movement_deterministic(scores) + (soft - soft.detach())


GATE_KINDS: dict[GateKind, GateFunctions] = {
    "hard_concrete": GateFunctions(2.4, concrete_sample, concrete_deterministic, concrete_keep_probability),
    "movement": GateFunctions(2.0, movement_sample, movement_deterministic, torch.sigmoid),
}


class LearnedGates(nn.Module):
    """The gates of all layers, and the Lagrange multipliers of the penalty on their expected cost.

    All state is in parameters, so a checkpoint of the network that contains this module holds all of it.
    """

    attention_of: Tensor
    feed_forward_of: Tensor
    head_costs: Tensor
    neuron_costs: Tensor

    def __init__(self, costs: CostTable, kind: GateKind, lr_multiplier: float) -> None:
        """Open all gates.

        Args:
            costs: of the model; all heads of a layer cost the same, and so do all its neurons.
            kind: of the gates.
            lr_multiplier: learning rate of gates and multipliers, divided by that of the network.
        """
        super().__init__()
        self._functions, self._lr_multiplier = GATE_KINDS[kind], lr_multiplier
        self._head_counts = [len(table) - 1 for table in costs.attention]
        self._neuron_counts = [len(table) - 1 for table in costs.feed_forward]
        depth, full = len(self._head_counts), costs.full()
        # Parameters hold the difference from the initial score: AdamW's weight decay pulls gates back to it.
        self.heads = nn.Parameter(torch.zeros(sum(self._head_counts)))
        self.neurons = nn.Parameter(torch.zeros(sum(self._neuron_counts)))
        self.attention = nn.Parameter(torch.zeros(depth))
        self.feed_forward = nn.Parameter(torch.zeros(depth))
        self.multipliers = nn.Parameter(torch.zeros(2))
        layers = torch.arange(depth)
        for name, value in {
            "attention_of": layers.repeat_interleave(torch.tensor(self._head_counts)),  # layer of each head
            "feed_forward_of": layers.repeat_interleave(torch.tensor(self._neuron_counts)),  # layer of each neuron
            "head_costs": _unit_costs(costs.attention) / full,
            "neuron_costs": _unit_costs(costs.feed_forward) / full,
        }.items():
            self.register_buffer(name, value, persistent=False)
        self._fixed = costs.fixed / full
        with torch.no_grad():
            self.initial_share = float(self.expected_share())

    def factors(self) -> list[LayerGates]:
        """Return the gates of each layer: sampled in training mode, deterministic in evaluation mode."""
        functions = self._functions
        heads, neurons = self._by_layer(*self._units(functions.sample if self.training else functions.deterministic))
        return [LayerGates(*pair) for pair in zip(heads, neurons, strict=True)]

    def expected_share(self) -> Tensor:
        """Return the expected cost of the gated model, as a share of the full model's; a scalar."""
        heads, neurons = self._units(self._functions.keep_probability)
        share: Tensor = self._fixed + heads @ self.head_costs + neurons @ self.neuron_costs
        return share

    def penalty(self, goal: float) -> Tensor:
        """Return λ₁·g + λ₂·g², where g is the expected cost minus `goal`, both as shares; a scalar.

        This is the Lagrangian of CoFi (Xia et al. 2022, section 3.1): gates minimize it and multipliers maximize it.
        """
        gap = self.expected_share() - goal
        first, second = _scaled(self.multipliers, self._lr_multiplier, ascend=True)
        penalty: Tensor = first * gap + (INITIAL_MULTIPLIER + second) * gap**2
        return penalty

    def select(self, costs: CostTable, budget: float, neuron_step: int) -> Selection:
        """Select the units that are most probably open, within `budget`; each counts by its share of the cost."""
        with torch.no_grad():
            heads, neurons = self._units(self._functions.keep_probability)
        # A neuron saves far less than a head; weighted by cost, the selection keeps the largest expected cost.
        importance = self._by_layer(heads * self.head_costs, neurons * self.neuron_costs)
        of_heads, of_neurons = ([each.double().cpu().numpy() for each in part] for part in importance)
        return select(of_heads, of_neurons, costs, budget, neuron_step=neuron_step)

    def deterministic_factors(self, selection: Selection) -> list[LayerGates]:
        """Return the deterministic gates of the selected units in each layer."""
        with torch.no_grad():
            layers = self._by_layer(*self._units(self._functions.deterministic))
        return [
            LayerGates(heads[of_heads], neurons[of_neurons])
            for heads, neurons, of_heads, of_neurons in zip(*layers, selection.heads, selection.neurons, strict=True)
        ]

    def _by_layer(self, heads: Tensor, neurons: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        return torch.split(heads, self._head_counts), torch.split(neurons, self._neuron_counts)

    def _units(self, function: Function) -> tuple[Tensor, Tensor]:
        """Multiply each unit's own value by that of its part: [all heads] and [all neurons], layer after layer."""
        parameters = (self.heads, self.neurons, self.attention, self.feed_forward)
        heads, neurons, attention, feed_forward = (
            function(self._functions.initial_score + _scaled(each, self._lr_multiplier)) for each in parameters
        )
        return heads * attention[self.attention_of], neurons * feed_forward[self.feed_forward_of]


def _scaled(parameter: Tensor, factor: float, ascend: bool = False) -> Tensor:
    """Multiply by `factor`, but leave the gradient as if there was no factor; `ascend` reverses its sign.

    AdamW's step does not depend on the size of a gradient, so the product learns at `factor` times the learning rate.
    A gradient that was `factor` times as large would dominate the norm that gradients are clipped to.
    """
    gradient_only = parameter - parameter.detach()  # 0, with a gradient of 1
    value: Tensor = (factor * parameter).detach() + (-gradient_only if ascend else gradient_only)
    return value


def _unit_costs(tables: Sequence[Floats]) -> Tensor:
    """Return the cost of every unit of all layers, [units]; units of one layer cost the same."""
    costs = [torch.full((len(table) - 1,), table[-1] / max(1, len(table) - 1)) for table in tables]
    return torch.cat(costs).float()
