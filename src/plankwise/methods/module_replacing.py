"""The parts of Theseus compression that run in training: a gate for each module, its slots, and the draws.

Every slot holds a predecessor layer, and one of a module's slots holds the successor as well. The module's gate decides
which branch runs (Xu et al. 2020, arXiv 2002.02925, equations 2 and 3).
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn
from transformers import PreTrainedConfig

from plankwise.core.schedules import Schedule
from plankwise.core.seeds import mix_seed
from plankwise.encoder.anatomy import as_layer_output, hidden_of

CURVE = 50  # points of the replacement rate in a record


class Gate:
    """The share of the successor in a module's training: 0 runs the predecessor, 1 the successor, else a blend.

    Attributes:
        share: the same for all slots of the module.
        entry: in a blend, the hidden states that enter the module.
        replacement: in a blend, the successor's output.
    """

    share = 0.0
    entry: Tensor
    replacement: Tensor


class Slot(nn.Module):
    """The slot of one predecessor layer, with the same interface; in evaluation mode only the successor runs.

    Args:
        predecessor: the layer.
        gate: of the module, shared by its slots.
        config: of the predecessor model.
        successor: of the module, in one of its slots.
        is_first: whether this is the module's first slot.
        is_last: whether this is the module's last slot.
        keep_dropout: whether the predecessor's dropout is active in training.
    """

    successor: nn.Module | None

    def __init__(
        self,
        predecessor: nn.Module,
        gate: Gate,
        config: PreTrainedConfig,
        *,
        successor: nn.Module | None,
        is_first: bool,
        is_last: bool,
        keep_dropout: bool,
    ) -> None:
        super().__init__()
        self.predecessor, self.successor = predecessor, successor
        self.gate, self._config, self._is_first, self.is_last = gate, config, is_first, is_last
        self._keep_dropout = keep_dropout

    def __getattr__(self, name: str) -> Any:
        """Look up other attributes on the layer: ModernBERT's loop, for one, reads its attention type."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("predecessor"), name)

    def train(self, mode: bool = True) -> Slot:
        """Set the mode; the predecessor stays in evaluation mode unless its dropout is kept."""
        super().train(mode)
        if not self._keep_dropout:
            self.predecessor.eval()
        return self

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run hidden states, [batch, tokens, width], through the branch that the gate selects."""
        share = self.gate.share if self.training else 1.0
        if share == 1.0:  # the successor replaces the whole module; the module's other slots are identities
            if self.successor is not None:
                return self.successor(hidden, *args, **kwargs)
            return as_layer_output(self._config, hidden)
        if share == 0.0:
            return self.predecessor(hidden, *args, **kwargs)
        return self._blend(share, hidden, *args, **kwargs)

    def _blend(self, share: float, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run both branches and mix them after the module's last slot: (1 − α)·predecessor + α·successor."""
        if self._is_first:
            self.gate.entry = hidden
        if self.successor is not None:
            self.gate.replacement = hidden_of(self.successor(self.gate.entry, *args, **kwargs))
        output = self.predecessor(hidden, *args, **kwargs)
        if not self.is_last:
            return output
        mixed = (1.0 - share) * hidden_of(output) + share * self.gate.replacement
        del self.gate.entry, self.gate.replacement
        return as_layer_output(self._config, mixed)


class Replacing:
    """Sets the gates before each step.

    Draws depend on (seed, step) alone, so they are the same in every process and after a resume.
    """

    def __init__(self, schedule: Schedule, gates: list[Gate], seed: int, mode: Literal["replace", "blend"]) -> None:
        self._schedule, self._gates, self._mode = schedule, gates, mode
        self._seed = mix_seed(seed, "theseus", "draws")
        self._digest, self._hashed_steps = hashlib.sha256(), 0

    def __call__(self, step: int, total: int) -> None:
        """Set every gate for this step."""
        self._catch_up(step, total)
        shares = self._shares(step, total)
        for gate, share in zip(self._gates, shares, strict=True):
            gate.share = share
        self._hash(shares)

    def draw(self, step: int, rate: float) -> tuple[list[float], int]:
        """Draw each module's branch, 1.0 for the successor, and count the draws in which all modules are predecessors.

        Such a draw would train nothing, so it is repeated, from the same stream.
        """
        generator = np.random.default_rng([self._seed, step])
        redraws = 0
        while not (chosen := generator.random(len(self._gates)) < rate).any():
            redraws += 1
        return chosen.astype(float).tolist(), redraws

    def redraws_until(self, steps: int, total: int) -> int:
        """Count the redraws of the first `steps` steps, including those that an earlier process ran."""
        if self._mode == "blend":
            return 0
        return sum(self.draw(step, self._schedule(step / total))[1] for step in range(steps))

    def digest_until(self, steps: int, total: int) -> str:
        """Return the hash of all draws of the first `steps` steps; those of an earlier process are drawn once more."""
        self._catch_up(steps, total)
        return self._digest.hexdigest()

    def curve(self, steps: int, total: int) -> list[dict[str, float]]:
        """Return the rate and what was drawn over the first `steps` steps, as `StepLog.replacement` keeps it."""
        every = max(1, math.ceil(steps / CURVE))
        found = []
        for first in range(0, steps, every):
            window = range(first, min(first + every, steps))
            replaced = np.mean([self._shares(step, total) for step in window])
            rate = np.mean([self._schedule(step / total) for step in window])
            found.append({"step": window[-1] + 1, "rate": round(float(rate), 4), "replaced": round(float(replaced), 4)})
        return found

    def _shares(self, step: int, total: int) -> list[float]:
        rate = self._schedule(step / total)  # p of equation 2, or the α of a blend
        return [rate] * len(self._gates) if self._mode == "blend" else self.draw(step, rate)[0]

    def _catch_up(self, step: int, total: int) -> None:
        while self._hashed_steps < step:
            self._hash(self._shares(self._hashed_steps, total))

    def _hash(self, shares: list[float]) -> None:
        self._digest.update(json.dumps([self._hashed_steps, shares]).encode())
        self._hashed_steps += 1
