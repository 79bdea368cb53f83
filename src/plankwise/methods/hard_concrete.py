"""Gates that learn: what each of them draws, what the model left would cost, and the price on costing too much.

Each head and each neuron has a gate, and so has each layer's attention and feed-forward part; a unit is open when both
its own and its part's gate are (Xia, Zhong, Chen 2022, CoFi, arXiv 2204.00408). Two kinds of gates:

- *hard concrete* (Louizos, Welling, Kingma 2018, arXiv 1712.01312): random between 0 and 1, with both ends reached;
- *movement* (Sanh, Wolf, Rush 2020, arXiv 2005.07683; on structures Lagunas et al. 2021, arXiv 2109.04838): open or
  shut by a score's sign, with a gradient as if it were the score's sigmoid.
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

LOW, HIGH = -0.1, 1.1  # a hard-concrete gate is drawn between these and then clipped to [0, 1]
TEMPERATURE = 2 / 3  # of what is drawn before stretching
FIRMNESS = 10.0  # where λ₂ starts: holds the cost to a goal that falls within few steps, before λ₁ has grown
NEAR_NOTHING = 1e-6  # uniform draws keep this far from 0 and 1
Kind = Literal["hard_concrete", "movement"]
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Gating:
    """A kind of gate, by what it does with scores of any shape.

    Attributes:
        start: score of a gate that has not learned: open, and close enough to the edge to learn.
        draw: gives factors in training.
        settle: gives factors without randomness.
        chance: gives the probability, or what stands for it, that a gate is not shut.
    """

    start: float
    draw: Function
    settle: Function
    chance: Function


def concrete_draw(scores: Tensor) -> Tensor:
    """Draw hard-concrete gates from the current torch seed."""
    noise = torch.logit(torch.rand_like(scores), eps=NEAR_NOTHING)
    return _stretched(torch.sigmoid((noise + scores) / TEMPERATURE))


def concrete_deterministic(scores: Tensor) -> Tensor:
    """Give hard-concrete gates at test time."""
    return _stretched(torch.sigmoid(scores))


def concrete_keep_probability(scores: Tensor) -> Tensor:
    """Give the probability that a hard-concrete gate is more than 0: σ(score − β·log(−γ/ζ))."""
    shift = TEMPERATURE * torch.log(torch.tensor(-LOW / HIGH, dtype=scores.dtype, device=scores.device))
    return torch.sigmoid(scores - shift)


def _stretched(values: Tensor) -> Tensor:
    return (values * (HIGH - LOW) + LOW).clamp(0, 1)


def movement_deterministic(scores: Tensor) -> Tensor:
    """Give 1 where the score's sigmoid is above a half, else 0."""
    return (scores > 0).to(scores.dtype)


def movement_draw(scores: Tensor) -> Tensor:
    """Give what `movement_settle` does, with the gradient of the sigmoid."""
    soft = torch.sigmoid(scores)
    return movement_deterministic(scores) + (soft - soft.detach())


GATINGS: dict[Kind, Gating] = {
    "hard_concrete": Gating(2.4, concrete_draw, concrete_deterministic, concrete_keep_probability),
    "movement": Gating(2.0, movement_draw, movement_deterministic, torch.sigmoid),
}


class LearnedGates(nn.Module):
    """The gates of all layers, and the multipliers that set the price of cost above the target.

    All it learns are parameters, so a checkpoint of the network that it is part of holds its whole state.
    """

    attention_of: Tensor
    feed_forward_of: Tensor
    head_costs: Tensor
    neuron_costs: Tensor

    def __init__(self, costs: CostTable, kind: Kind, pace: float) -> None:
        """Set all gates open.

        Args:
            costs: of the model; each head of a layer costs the same, and each neuron.
            kind: of gates.
            pace: how many times the network's learning rate gates and multipliers learn at.
        """
        super().__init__()
        self._gating, self._pace = GATINGS[kind], pace
        self._head_counts = [len(table) - 1 for table in costs.attention]
        self._neuron_counts = [len(table) - 1 for table in costs.feed_forward]
        depth, full = len(self._head_counts), costs.full()
        self.heads = nn.Parameter(torch.zeros(sum(self._head_counts)))
        self.neurons = nn.Parameter(torch.zeros(sum(self._neuron_counts)))
        self.attention = nn.Parameter(torch.zeros(depth))
        self.feed_forward = nn.Parameter(torch.zeros(depth))
        self.multipliers = nn.Parameter(torch.zeros(2))
        self._keep("attention_of", torch.arange(depth).repeat_interleave(torch.tensor(self._head_counts)))
        self._keep("feed_forward_of", torch.arange(depth).repeat_interleave(torch.tensor(self._neuron_counts)))
        self._keep("head_costs", _of_each(costs.attention) / full)
        self._keep("neuron_costs", _of_each(costs.feed_forward) / full)
        self._fixed = costs.fixed / full
        with torch.no_grad():
            self.first_share = float(self.expected_share())

    def _keep(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def factors(self) -> list[LayerGates]:
        """Give the gates of each layer: drawn in training, settled in evaluation."""
        heads, neurons = self._by_layer(*self._of_units(self._gating.draw if self.training else self._gating.settle))
        return [LayerGates(*pair) for pair in zip(heads, neurons, strict=True)]

    def expected_share(self) -> Tensor:
        """Give the expected cost of the model left, as a share of the whole model's; a scalar."""
        heads, neurons = self._of_units(self._gating.chance)
        share: Tensor = self._fixed + heads @ self.head_costs + neurons @ self.neuron_costs
        return share

    def price(self, goal: float) -> Tensor:
        """Give λ₁·g + λ₂·g² with g how far the expected cost is above `goal`, both as shares; a scalar.

        The gates descend on it and the multipliers climb.
        """
        gap = self.expected_share() - goal
        first, second = _at_pace(self.multipliers, self._pace, climb=True)
        price: Tensor = first * gap + (FIRMNESS + second) * gap**2
        return price

    def choose(self, costs: CostTable, budget: float, neuron_step: int) -> Selection:
        """Choose what stays: the units most probably open, within `budget`; each counts by its share of the cost."""
        with torch.no_grad():
            heads, neurons = self._of_units(self._gating.chance)
        worth = self._by_layer(heads * self.head_costs, neurons * self.neuron_costs)
        of_heads, of_neurons = ([each.double().cpu().numpy() for each in part] for part in worth)
        return select(of_heads, of_neurons, costs, budget, neuron_step)

    def settled(self, kept: Selection) -> list[LayerGates]:
        """Give the factors, without randomness, of the units kept in each layer."""
        with torch.no_grad():
            layers = self._by_layer(*self._of_units(self._gating.settle))
        return [
            LayerGates(heads[of_heads], neurons[of_neurons])
            for heads, neurons, of_heads, of_neurons in zip(*layers, kept.heads, kept.neurons, strict=True)
        ]

    def _by_layer(self, heads: Tensor, neurons: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        return torch.split(heads, self._head_counts), torch.split(neurons, self._neuron_counts)

    def _of_units(self, function: Function) -> tuple[Tensor, Tensor]:
        """Give the product of each unit's own value and its part's: of all heads and of all neurons, layer by layer."""
        parameters = (self.heads, self.neurons, self.attention, self.feed_forward)
        heads, neurons, attention, feed_forward = (
            function(self._gating.start + _at_pace(each, self._pace)) for each in parameters
        )
        return heads * attention[self.attention_of], neurons * feed_forward[self.feed_forward_of]


def _at_pace(parameter: Tensor, pace: float, climb: bool = False) -> Tensor:
    """Multiply by `pace` but leave the gradient as it would be without.

    AdamW's step does not depend on a gradient's size, so what is made of the parameter learns at `pace` times the
    learning rate; a gradient `pace` times as large would take over the norm that gradients are clipped to.
    """
    slope = parameter - parameter.detach()
    value: Tensor = (pace * parameter).detach() + (-slope if climb else slope)
    return value


def _of_each(tables: Sequence[Floats]) -> Tensor:
    """Give the cost of every unit of all layers, [units]; in a layer they cost the same."""
    costs = [torch.full((len(table) - 1,), table[-1] / max(1, len(table) - 1)) for table in tables]
    return torch.cat(costs).float()
