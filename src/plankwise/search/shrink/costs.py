"""Roughly what a candidate will cost: from the time of one text, corrected by what earlier candidates took."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plankwise.search.budget.candidate import Candidate, Failure, Outcome, shared_steps

BACKWARD = 3.0  # a training step costs a forward and a backward pass, which is about twice as dear
BF16 = 0.5  # of fp32, where the processor multiplies bf16
REPLACING = 0.5  # of a full training step: frozen predecessors record no graph
OBSERVED = 2000  # texts that importance and reconstruction look at
PASSES = 9.0  # over these texts, in forward passes: gradients of the gates, and hidden states of both models
MEASURING = 45.0  # seconds to export an artefact and to time it
TABLE = 60.0  # seconds to measure a table of latencies, once for each runtime and precision


@dataclass(frozen=True)
class Costs:
    """What work costs on this machine.

    Attributes:
        seconds_per_text: of one forward pass of the original in torch fp32, in sorted batches.
        train_rows: texts of an epoch.
        development_rows: texts that are scored.
        depth: layers of the original.
        bf16: whether trainings run in bf16.
    """

    seconds_per_text: float
    train_rows: int
    development_rows: int
    depth: int
    bf16: bool

    def epoch(self, share: float = 1.0) -> float:
        """Return the seconds of one epoch of a model that costs this share of the original, with its evaluation."""
        speed = BF16 if self.bf16 else 1.0
        return share * self.seconds_per_text * (BACKWARD * speed * self.train_rows + self.development_rows)

    def epochs_within(self, seconds: float, share: float, most: float) -> float:
        """Return how many epochs fit into this time, at most `most`, in quarters."""
        once = self.seconds_per_text * self.train_rows  # the teacher's predictions
        return min(most, int(4 * max(0.0, seconds - once) / self.epoch(share)) / 4)

    def estimate(self, candidate: Candidate, known: Sequence[Candidate]) -> float:
        """Estimate the seconds of a candidate; steps that an earlier candidate took before are free."""
        done = max((shared_steps(candidate.steps, each.steps) for each in known), default=0)
        share, seconds = 1.0, MEASURING + self.development_rows * self.seconds_per_text
        for number, step in enumerate(candidate.steps):
            own, share = self._step(step, share)
            seconds += own if number >= done else 0.0
        table = any(step.get("measure") == "latency" for step in candidate.steps)
        tables = any(step.get("measure") == "latency" for each in known for step in each.steps)
        return seconds + (TABLE if table and not tables else 0.0)

    def _step(self, step: dict[str, Any], share: float) -> tuple[float, float]:
        """Return the seconds of one step, and the share of the original's cost that its model has."""
        seconds, method = 0.0, step["method"]
        if method == "theseus":
            after = share * step["modules"] / self.depth
        elif method == "distillation":
            after = share * (step.get("student") or {}).get("layers", self.depth) / self.depth
        elif method == "pruning":
            after = share / step["target"]
            seconds += PASSES * share * self.seconds_per_text * min(OBSERVED, self.train_rows)
        else:
            after = share
        training = step.get("training")
        if training is not None:
            cost = REPLACING if method == "theseus" else after
            seconds += training["epochs"] * self.epoch(cost) + self.seconds_per_text * self.train_rows
        return seconds, after


def correction(estimated: Sequence[float], found: Sequence[Outcome | Failure]) -> float:
    """Return the median ratio of what candidates took to what was estimated; 1 where nothing is known.

    Args:
        estimated: seconds of each candidate.
        found: of the same candidates.
    """
    ratios = [each.seconds / seconds for each, seconds in zip(found, estimated, strict=True) if seconds > 0]
    return min(5.0, max(0.2, statistics.median(ratios))) if ratios else 1.0
