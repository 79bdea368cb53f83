"""What a search is for: how much of the score to keep, and how fast and how small the model has to become."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from plankwise.core.errors import RecipeError
from plankwise.core.intervals import format_interval
from plankwise.search.budget.candidate import Outcome

SHORTEST = 60.0  # seconds: an export, a scoring and a timing take about that
RETAINED, SPEED, SIZE = "retained", "speed", "size"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A budget.

    Attributes:
        retain: share of the original's score that the lower bound of the retained performance has to reach.
        speedup: how many times as fast as the original in an optimised runtime in fp32; the lower bound counts.
        max_size_bytes: of the artefact's folder.
    """

    retain: float = 0.99
    speedup: float | None = None
    max_size_bytes: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.retain <= 1:
            raise RecipeError(f"--retain {self.retain:g}: a share of the score; allowed: above 0, up to 1")
        if self.speedup is not None and not 1 <= self.speedup <= 10_000:
            raise RecipeError(f"--speedup {self.speedup:g}: times as fast; allowed: 1 to 10,000")
        if self.max_size_bytes is not None and self.max_size_bytes <= 0:
            raise RecipeError(f"--max-size-mb {self.max_size_bytes / 1e6:g}: allowed: above 0")

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the budget as plain values."""
        return dataclasses.asdict(self)

    def missing(self, outcome: Outcome) -> dict[str, float]:
        """Return by how much each constraint is missed, as the logarithm of a ratio; 0 or less where it is met.

        A value that is not a number, or a score of 0, misses its constraint by infinity.
        """
        found = {RETAINED: _log_ratio(self.retain, outcome.retained.low)}
        if self.speedup is not None:
            found[SPEED] = _log_ratio(self.speedup, outcome.speedup.low)
        if self.max_size_bytes is not None:
            found[SIZE] = _log_ratio(float(outcome.size_bytes), float(self.max_size_bytes))
        return found

    def shortfall(self, outcome: Outcome) -> float:
        """Return the largest miss of all constraints; 0 if the budget is met.

        The logarithm of a lost share is small beside that of a lost speed-up: 0.01 is a percent of the score, and as
        much as a percent of the speed. A user who asks for 99 % and four times the speed would rather have 98 % at
        four times than 99 % at twice, so a miss of the score counts ten times.
        """
        missed = self.missing(outcome)
        weighted = [10 * value if name == RETAINED else value for name, value in missed.items()]
        return max(0.0, *weighted)

    def is_met(self, outcome: Outcome) -> bool:
        """Return whether a candidate that may be chosen meets every constraint."""
        return outcome.certifies and self.shortfall(outcome) == 0.0

    def describe(self) -> str:
        """Return the budget in words.

        Example:
            >>> Goal(retain=0.99, speedup=4).describe()
            'keep 99 %, 4× as fast'
        """
        parts = [f"keep {100 * self.retain:g} %"]
        parts += [] if self.speedup is None else [f"{self.speedup:g}× as fast"]
        parts += [] if self.max_size_bytes is None else [f"at most {self.max_size_bytes / 1e6:g} MB"]
        return ", ".join(parts)


def goal_of(*, retain: float, speedup: float | None, max_size_mb: float | None) -> Goal:
    """Return the budget that the options of a command name.

    Raises:
        RecipeError: if it contradicts itself.
    """
    for name, value in (("retain", retain), ("speedup", speedup), ("max-size-mb", max_size_mb)):
        if value is not None and not math.isfinite(value):
            raise RecipeError(f"--{name} {value}: allowed: a number")
    size = None if max_size_mb is None else round(1e6 * max_size_mb)
    return Goal(retain=retain, speedup=speedup, max_size_bytes=size)


def check_seconds(seconds: float) -> None:
    """Refuse a time in which nothing can be measured.

    Raises:
        RecipeError: with what is allowed.
    """
    if seconds < SHORTEST:
        raise RecipeError(f"--time {seconds:g}s is too short for a single measurement; allowed: {SHORTEST:g}s or more")


def best_of(goal: Goal, outcomes: list[Outcome]) -> Outcome | None:
    """Return the candidate to choose: the fastest that meets the budget, else the nearest to it.

    Args:
        goal: the budget.
        outcomes: of all candidates; those that failed, or that certify nothing, are never chosen.
    """
    possible = [each for each in outcomes if each.certifies]
    met = [each for each in possible if goal.is_met(each)]
    if met:
        return max(met, key=lambda each: (each.speedup.low, -each.size_bytes))
    return min(possible, key=lambda each: (goal.shortfall(each), -each.speedup.low), default=None)


def front(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the candidates that no other one beats in both speed and retained performance, the fastest first."""
    chosen: list[Outcome] = []
    for each in sorted((each for each in outcomes if each.certifies), key=lambda each: -each.speedup.value):
        if not chosen or each.retained.value > chosen[-1].retained.value:
            chosen.append(each)
    return chosen


def shown(outcome: Outcome) -> str:
    """Describe what was measured of a candidate on one line."""
    retained = format_interval(outcome.retained.value, outcome.retained.low, outcome.retained.high)
    speed = format_interval(outcome.speedup.value, outcome.speedup.low, outcome.speedup.high, digits=2, unit="×")
    return f"retained {retained}, {speed} as fast, {outcome.size_bytes / 1e6:.1f} MB"


def _log_ratio(above: float, below: float) -> float:
    if not (math.isfinite(above) and math.isfinite(below)) or below <= 0:
        return math.inf
    return math.log(above / below) if above > 0 else 0.0
