"""What a search would try and roughly take, before anything is trained or written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from plankwise.core.progress import duration
from plankwise.core.recipe import to_plain
from plankwise.run.dry_run import estimate
from plankwise.run.pipeline import Checked
from plankwise.search.pareto.fidelity import SURVIVORS, shortened
from plankwise.search.pareto.search import SearchRequest, read_request

MEASURING = 45.0  # seconds to export an artefact, to score it and to time it
Rehearse = Callable[[Checked], list[dict[str, Any]]]


def estimate_search(request: SearchRequest, rehearse: Rehearse = estimate) -> dict[str, Any]:
    """Count settings and estimate seconds with one worker, by the first setting with all its steps.

    Args:
        request: what is wanted.
        rehearse: estimates the stages of one run, as `run.dry_run.estimate` does.

    Raises:
        PlankwiseError: as the search itself would.
    """
    plan = read_request(request)
    rows = rehearse(plan.study.checked({}, plan.seed))
    steps = tuple(to_plain(plan.recipe)["steps"])
    costs = [float(row["seconds"]) for row in rows]
    before, own = sum(costs[: -len(steps)]), costs[-len(steps) :]
    shares = [_share(one, other) for one, other in zip(shortened(steps), steps, strict=True)]
    proxy = sum(cost * share for cost, share in zip(own, shares, strict=True)) + MEASURING
    full = sum(own) + MEASURING
    finite = plan.settings()
    listed = None if finite is None else len(finite)
    trials = _trials(request, listed, proxy)
    promoted = math.ceil(SURVIVORS * trials) if plan.has_proxies else 0
    return {
        "name": plan.name,
        "space": to_plain(plan.study.study)["space"][0],
        "drop": [f"steps.{number}" for number in plan.drops],
        "runtimes": [" ".join(pair) for pair in plan.pairs],
        "settings": listed,
        "trials": trials,
        "trained_in_full": promoted,
        "seconds_per_proxy": proxy,
        "seconds_per_full": full,
        "seconds_before": before + MEASURING * (1 + len(plan.pairs)),
        "seconds": before + MEASURING * (1 + len(plan.pairs)) + trials * proxy + promoted * full,
        "seconds_allowed": request.seconds,
    }


def _trials(request: SearchRequest, listed: int | None, proxy: float) -> int:
    """Return how many settings are drawn: as many as are asked for, exist, or fit into the time."""
    fitting = math.inf if request.seconds is None else max(1.0, request.seconds / proxy)
    asked = math.inf if request.most_trials is None else float(request.most_trials)
    return int(min(fitting, asked, math.inf if listed is None else float(listed)))  # one of the first two is finite


def _share(cut: dict[str, Any], whole: dict[str, Any]) -> float:
    if not whole.get("training"):
        return 1.0
    return float(cut["training"]["epochs"]) / float(whole["training"]["epochs"])


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """Format the plan for the terminal."""
    space = [f"  {key}: {_shown(values)}" for key, values in plan["space"].items()]
    dropped = ", ".join(plan["drop"]) or "none"
    known = "" if plan["settings"] is None else f" of {plan['settings']}"
    limit = "" if plan["seconds_allowed"] is None else f", {duration(plan['seconds_allowed'])} allowed"
    return [
        f"{plan['name']}: {plan['trials']} settings{known}, at most {plan['trained_in_full']} or the front in full",
        *space,
        f"  steps that may be left out: {dropped}",
        f"  runtimes: {', '.join(plan['runtimes'])}",
        f"baseline and plain runtimes about {duration(plan['seconds_before'])}, a setting about "
        f"{duration(plan['seconds_per_proxy'])}, in full about {duration(plan['seconds_per_full'])}",
        f"about {duration(plan['seconds'])} in all with one worker{limit}; nothing has been trained",
    ]


def _shown(values: Any) -> str:
    if isinstance(values, dict):
        return f"{values['low']:g} to {values['high']:g}"
    return ", ".join(str(each) for each in values)
