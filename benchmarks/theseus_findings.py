"""Test published findings on Theseus' hyperparameters in a study: one contrast each, decided by its interval.

The findings are those of S. Jäger, "Compressing BERT – An Evaluation and Combination of Methods": start replacing at a
rate of 0.1 to 0.3, replace during about 85 % of the steps, both phases matter, the learning rate matters little.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from plankwise.core.intervals import format_interval
from plankwise.evaluation.effects import (
    Estimate,
    TrialTable,
    contrast,
    main_effects,
    spreads,
    table_of,
)
from plankwise.evaluation.intervals import LEVEL
from plankwise.evaluation.noise import in_place_of_score, trials_to_decide

Verdict = Literal["holds", "does not hold", "undecided", "not tested"]
_NAMES = {"start": "start", "full_at": "full_at", "schedule": "schedule", "rate": r"training\.learning_rate"}


@dataclass(frozen=True)
class Part:
    """One contrast: what is compared, the estimate, and about how many more trials would decide it.

    The estimate is `None` if the study has no such trials; `more_trials` where nothing more would help to tell.
    """

    contrast: str
    estimate: Estimate | None

    @property
    def more_trials(self) -> int | None:
        """Number of trials, with 80 % power, if the effect is as large as it was found."""
        return None if self.estimate is None else trials_to_decide(self.estimate)


@dataclass(frozen=True)
class Finding:
    """One claim, the contrasts that decide it, and the verdict."""

    claim: str
    parts: tuple[Part, ...]
    verdict: Verdict
    note: str = ""


def findings(table: TrialTable) -> list[Finding]:
    """Test the four findings on the finished trials of a study."""
    names = {name: _key(table, pattern) for name, pattern in _NAMES.items()}
    made = [_best_start(table, names), _share_of_steps(table, names), *_both_phases(table, names)]
    return [*made, _learning_rate(table, names)]


def verdict_of(parts: Sequence[Part]) -> Verdict:
    """Decide a claim: it holds if every interval is above 0, and does not hold if one is below."""
    estimates = [part.estimate for part in parts]
    if any(each is None for each in estimates):
        return "not tested"
    lows = [-np.inf if each is None or each.low is None else each.low for each in estimates]
    highs = [np.inf if each is None or each.high is None else each.high for each in estimates]
    if all(low > 0 for low in lows):
        return "holds"
    return "does not hold" if any(high < 0 for high in highs) else "undecided"


def _key(table: TrialTable, ending: str) -> str | None:
    """Return the parameter of the first step of that name, if it is varied."""
    return next((key for key in table.keys if re.fullmatch(rf"steps\.\d+\.{ending}", key)), None)


def _column(table: TrialTable, key: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = table.rows[key].to_numpy(dtype=np.float64)
    return values


def _between(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.bool_]:
    return (values >= low - 1e-9) & (values <= high + 1e-9)


def _best_start(table: TrialTable, names: dict[str, str | None]) -> Finding:
    what = "starting rate 0.1 to 0.3 − other rates below 1, the other parameters and the seed equal"
    key, estimate, note = names["start"], None, ""
    if key is not None and len(table.rows):
        start = _column(table, key)
        low, replacing = _between(start, 0.1, 0.3), start < 1
        estimate = contrast(table, low & replacing, ~low & replacing, {key})
        note = _best(table, key)
    parts = (Part(what, estimate),)
    return Finding("A starting rate of 0.1 to 0.3 is best", parts, verdict_of(parts), note)


def _share_of_steps(table: TrialTable, names: dict[str, str | None]) -> Finding:
    what = "replacing during 0.8 to 0.9 of the steps − other shares, the other parameters and the seed equal"
    key, estimate, note = names["full_at"], None, ""
    if key is not None and len(table.rows):
        near = _between(_column(table, key), 0.8, 0.9)
        replacing = _replacing(table, names)
        estimate = contrast(table, near & replacing, ~near & replacing, {key})
        note = _best(table, key)
    parts = (Part(what, estimate),)
    return Finding("Replacing during about 85 % of the steps is best", parts, verdict_of(parts), note)


def _replacing(table: TrialTable, names: dict[str, str | None]) -> NDArray[np.bool_]:
    key = names["start"]
    return np.ones(len(table.rows), dtype=bool) if key is None else _column(table, key) < 1


def _both_phases(table: TrialTable, names: dict[str, str | None]) -> list[Finding]:
    start, full_at = names["start"], names["full_at"]
    tuned = replaced = None
    if full_at is not None and len(table.rows):
        ends, replacing = _column(table, full_at), _replacing(table, names)
        tuned = contrast(table, (ends < 1) & replacing, (ends >= 1) & replacing, {full_at})
    if start is not None and len(table.rows):
        replacing = _replacing(table, names)
        both = replacing & (np.ones_like(replacing) if full_at is None else _column(table, full_at) < 1)
        # Without replacing, its end and its schedule have no effect, so trials may differ in these as well.
        free = {key for key in (start, full_at, names["schedule"]) if key is not None}
        replaced = contrast(table, both, ~replacing, free)
    parts = (
        Part("both phases − no successor fine-tuning (full_at 1), the other parameters and the seed equal", tuned),
        Part(
            "both phases − no replacing (start 1), the parameters that still mean something and the seed equal",
            replaced,
        ),
    )
    return [Finding("Both phases matter: replacing, then fine-tuning the successors", parts, verdict_of(parts))]


def _learning_rate(table: TrialTable, names: dict[str, str | None]) -> Finding:
    what = (
        "largest variance between levels among start, full_at and schedule − that of the learning rate, noise taken "
        "off each, start < 1 only; shown as its signed root, in units of the score"
    )
    rate, others = names["rate"], [names[name] for name in ("start", "full_at", "schedule")]
    estimate, note = None, ""
    if rate is not None and any(others) and len(table.rows):
        part = TrialTable(table.keys, table.rows[_replacing(table, names)].reset_index(drop=True))
        keys = [key for key in (rate, *others) if key is not None]
        estimate, note = _more_than(part, rate, keys)
    parts = (Part(what, estimate),)
    return Finding("The learning rate matters little", parts, verdict_of(parts), note)


def _more_than(table: TrialTable, rate: str, keys: Sequence[str]) -> tuple[Estimate | None, str]:
    """Compare the largest variance component of the other parameters with that of the learning rate.

    The largest one is chosen again in each resample. Noise inflates variances, and a resample adds noise of its own, so
    the interval is the basic one, 2·estimate − percentiles, which corrects that bias.
    """
    components, resampled = spreads(table, keys)
    if rate not in components or len(components) < 2:
        return None, ""
    order = list(components)
    rest = [order.index(key) for key in order if key != rate]
    values = np.array(list(components.values()))
    value = float(values[rest].max() - values[order.index(rate)])
    draws = resampled[:, rest].max(axis=1) - resampled[:, order.index(rate)]
    seeds, low, high = table.rows["seed"].nunique(), None, None
    if seeds > 1 and np.isfinite(value):
        ends = 2 * value - np.nanpercentile(draws, LEVEL[::-1])
        low, high = (_signed_root(float(end)) for end in ends)
    shown = ", ".join(f"{_short(key)} {_signed_root(components[key]):.4f}" for key in order)
    counts = ", ".join(f"{table.rows[key].nunique()} of {_short(key)}" for key in order)
    note = f"standard deviation between levels: {shown}; levels: {counts}"
    return Estimate(_signed_root(value), low, high, len(table.rows), seeds, True), note


def _signed_root(value: float) -> float:
    return float(np.sign(value) * np.sqrt(abs(value)))


def _short(key: str) -> str:
    return key.rpartition(".")[2]


def _best(table: TrialTable, key: str) -> str:
    levels = main_effects(table, key)
    if len(levels) < 2:
        return ""
    best: Any = max(levels, key=lambda level: level.effect.value)
    effect = best.effect
    shown = format_interval(effect.value, effect.low, effect.high, digits=4, signed=True)
    return f"best {_short(key)}: {best.value}, {shown} against the mean of all levels"


def main() -> None:
    """Print a study's document, as `study.json` holds it, with the findings added, as one JSON line."""
    document = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    table = table_of(document["trials"], document["parameters"])
    losses = in_place_of_score(table, "log_loss", sign=-1.0)  # so that up is better, as the findings have it
    found = {"findings": as_rows(table), "findings_by_loss": None if losses is None else as_rows(losses)}
    print(json.dumps({**document, **found}))


def as_rows(table: TrialTable) -> list[dict[str, Any]]:
    """Return the findings as JSON can hold them, the open ones with what it would take to decide them."""
    rows = []
    for finding in findings(table):
        more = [part.more_trials for part in finding.parts] if finding.verdict == "undecided" else []
        rows.append({**asdict(finding), "more_trials": more})
    return rows


if __name__ == "__main__":
    main()
