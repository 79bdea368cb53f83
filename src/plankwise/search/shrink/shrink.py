"""`plankwise shrink`: from a fine-tuned model and the user's files to the best model under a budget."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from plankwise.core.errors import RecipeError
from plankwise.core.files import read_text
from plankwise.core.progress import duration
from plankwise.core.recipe import to_plain, validate
from plankwise.data.task import TEST, Task
from plankwise.data.truncation import Truncation
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.evaluation.benchmark.workload import texts_of_split
from plankwise.run.pipeline import check
from plankwise.run.recipe import Recipe
from plankwise.search.budget.evaluation import Evaluator
from plankwise.search.budget.folder import claimed, refuse_taken
from plankwise.search.budget.goal import Goal
from plankwise.search.budget.log import CandidateLog
from plankwise.search.shrink.climb import Climb, Listener
from plankwise.search.shrink.clock import Clock
from plankwise.search.shrink.costs import MEASURING
from plankwise.search.shrink.document import DOCUMENT, NOT_HERE, conclude, finished
from plankwise.search.shrink.facts import facts_of
from plankwise.search.shrink.ladder import Facts, Ladder, Situation
from plankwise.search.shrink.prepared import Prepared, prepare
from plankwise.search.shrink.ready import Ready
from plankwise.search.shrink.request import ShrinkRequest, check_request, pairs_of
from plankwise.search.shrink.start import TORCH, Start, measure_original, references_of

logger = logging.getLogger(__name__)
DATA = "data"
PROBED = 64  # texts that are timed for a plan


def shrink(
    request: ShrinkRequest, *, resume: bool = False, listener: Listener = lambda progress: None
) -> dict[str, Any]:
    """Search for the best model under a budget and write it.

    Args:
        request: what is wanted.
        resume: whether the folder may hold this search already. A search that is complete is returned as it is, unless
            its budget was not met and there is more time now.
        listener: told of every candidate.

    Returns:
        The document of `shrink.json`.

    Raises:
        PlankwiseError: if the request, the model or the data are wrong; nothing is left in the folder then.
    """
    goal, config = check_request(request)
    refuse_taken(request.out, None, resume=resume)
    prepared = prepare(request, config)
    with claimed(request.out, _definition(request, goal, prepared), resume=resume):
        known = finished(request.out, request.seconds)
        if known is not None:
            return known
        clock = Clock(request.out)
        with clock.running():
            return _search(request, goal, config, prepared, clock=clock, listener=listener)


def plan(request: ShrinkRequest) -> list[dict[str, Any]]:
    """Say what a search would try, and roughly how long it would take, without writing anything.

    Targets and epochs are guesses: the search chooses them by what it measures.

    Returns:
        Rows with `stage`, `seconds` and `fits`: whether all stages up to this one fit into the time.
    """
    goal, config = check_request(request)
    prepared = prepare(request, config)
    with tempfile.TemporaryDirectory(prefix="plankwise-plan-") as scratch:
        recipe, task = _recipe_and_task(request, config, prepared, Path(scratch))
        predictor = Predictor(request.model, truncation=recipe.model.plain_truncation)
        seconds = predictor.seconds_per_text(texts_of_split(task.splits[TEST], PROBED))
        facts = _facts(request, recipe, task, prepared, seconds_per_text=seconds)
    ladder = _ladder(request, facts)
    now = Situation(goal, (), frozenset(), request.seconds)
    stages = [("the original in every runtime", 2 * MEASURING)]
    stages += [(each.name, facts.costs.estimate(each, ())) for each in ladder.proposals(now)]
    rows, spent = [], 0.0
    for stage, cost in stages:
        spent += cost
        rows.append({"stage": stage, "seconds": cost, "fits": spent <= request.seconds})
    return rows


def _search(
    request: ShrinkRequest,
    goal: Goal,
    config: PreTrainedConfig,
    prepared: Prepared,
    *,
    clock: Clock,
    listener: Listener,
) -> dict[str, Any]:
    out = request.out
    recipe, task = _recipe_and_task(request, config, prepared, out / DATA)
    evaluator = Evaluator(recipe, task, out, agreement=prepared.agreement)
    start, original = measure_original(evaluator, out)
    _say(start, task, prepared)
    facts = _facts(request, recipe, task, prepared, seconds_per_text=start.ms_per_text[TORCH] / 1000)
    reserve = MEASURING + 2 * facts.costs.seconds_per_text * len(task.splits[TEST])
    climb = Climb(
        goal=goal,
        ladder=_ladder(request, facts),
        costs=facts.costs,
        evaluator=evaluator,
        original=original,
        log=CandidateLog(out),
        clock=clock,
        seconds=request.seconds,
        reserve=reserve,
        listener=listener,
    )
    ended = climb.run()
    if not climb.log.outcomes and not climb.log.failures:
        raise RecipeError(
            f"--time {duration(request.seconds)} is too short for a single measurement: the original took "
            f"{duration(clock.spent)}, and about {duration(reserve + MEASURING)} more are needed"
        )
    logger.info("the climb ended: %s", ended)
    return conclude(
        out,
        goal=goal,
        start=start,
        original=original,
        evaluator=evaluator,
        log=climb.log,
        references=references_of(evaluator),
        about={
            "measured": prepared.measured,
            "model": request.model,
            "data": prepared.described,
            "notes": [*prepared.notes, *([NOT_HERE] if request.processor else [])],
            "ended": ended,
            "seconds_allowed": request.seconds,
            "spent_seconds": clock.spent,
            "looks": _looks(out) + 1,
        },
    )


def _recipe_and_task(
    request: ShrinkRequest, config: PreTrainedConfig, prepared: Prepared, folder: Path
) -> tuple[Recipe, Task]:
    """Write the data as files, and return the recipe that reads them, with no steps yet, and its task."""
    truncation = _truncation(request, config)
    settings = prepared.write(folder, truncation)
    plain = {
        "name": "shrink",
        "task": settings,
        "model": {"source": request.model, **to_plain(truncation)},
        "baseline": None,
        "seed": request.seed,
    }
    checked = check(validate(plain, Recipe))
    return checked.recipe, checked.task


def _truncation(request: ShrinkRequest, config: PreTrainedConfig) -> Truncation:
    """Read texts as the model was trained to; if that is not known, as many tokens as it has positions, up to 512."""
    own = stored_truncation(config, request.model) or Truncation(max_length=min(512, usable_positions(config)))
    if request.max_length is None:
        return own
    return Truncation(max_length=request.max_length, truncation=own.truncation, windows=own.windows)


def _facts(request: ShrinkRequest, recipe: Recipe, task: Task, prepared: Prepared, *, seconds_per_text: float) -> Facts:
    model = load_trained(request.model)
    return facts_of(
        model,
        Predictor(request.model, truncation=recipe.model.plain_truncation),
        task,
        seconds_per_text=seconds_per_text,
        labelled=prepared.labelled_train,
        pairs=pairs_of(request.processor),
        measurable=request.processor is None,
    )


def _ladder(request: ShrinkRequest, facts: Facts) -> Ladder:
    return Ladder(facts) if request.recipe is None else Ready(facts, request.recipe)


def _say(start: Start, task: Task, prepared: Prepared) -> None:
    """Log what the original does, before anything is compared with it."""
    times = ", ".join(f"{name} {value:.3g}" for name, value in start.ms_per_text.items())
    metric = task.metrics[0]
    logger.info(
        "the original: %s %s on development (%s); ms a text: %s", metric, start.interval, prepared.measured, times
    )
    if not start.beats_majority:
        logger.warning(
            "the original's %s %s does not beat the majority class, %.3f: keeping it proves nothing; no budget is met",
            metric,
            start.interval,
            start.majority,
        )


def _definition(request: ShrinkRequest, goal: Goal, prepared: Prepared) -> dict[str, Any]:
    """Return what makes this search different from others; how long it may take does not."""
    return {
        "model": request.model,
        "data": dict(prepared.hashes),
        "columns": {"text": request.text, "pair": request.pair, "label": request.label, "names": dict(request.names)},
        "goal": {"retain": goal.retain, "speedup": goal.speedup, "max_size_bytes": goal.max_size_bytes},
        "metric": request.metric,
        "processor": request.processor,
        "recipe": request.recipe,
        "max_length": request.max_length,
        "seed": request.seed,
    }


def _looks(out: Path) -> int:
    """Return how often the rows held back were scored before."""
    if not (out / DOCUMENT).exists():
        return 0
    return int(json.loads(read_text(out / DOCUMENT)).get("looks", 0))
