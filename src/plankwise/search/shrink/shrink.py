"""`plankwise shrink`: from a fine-tuned model and the user's files to the best model under a budget."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedConfig

from plankwise.core.errors import RecipeError
from plankwise.core.progress import duration
from plankwise.core.recipe import to_plain, validate
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN
from plankwise.data.tasks.tables import TableFiles
from plankwise.data.truncation import Truncation
from plankwise.deploy.predictor import Predictor
from plankwise.evaluation.benchmark.workload import texts_of_split
from plankwise.run.pipeline import check
from plankwise.run.recipe import Recipe
from plankwise.search.budget.conclusion import conclude, read_document
from plankwise.search.budget.evaluation import Evaluator, Original
from plankwise.search.budget.folder import claimed, refuse_taken
from plankwise.search.budget.goal import Goal
from plankwise.search.budget.log import CandidateLog
from plankwise.search.budget.start import TORCH, Start, measure_original
from plankwise.search.shrink.climb import Climb, ProgressCallback
from plankwise.search.shrink.clock import Clock
from plankwise.search.shrink.costs import MEASURING
from plankwise.search.shrink.document import DOCUMENT, finished, write_document
from plankwise.search.shrink.given_data import TEXTS, GivenData
from plankwise.search.shrink.plan import PROBED, facts_of, ladder_of, truncation_of
from plankwise.search.shrink.prepare_data import prepare_given
from plankwise.search.shrink.request import ShrinkRequest, check_request

logger = logging.getLogger(__name__)
DATA = "data"
NOT_HERE = "timed on this processor, which is not the one that it is for"


def shrink(
    request: ShrinkRequest,
    *,
    resume: bool = False,
    on_progress: ProgressCallback = lambda progress: None,
    make_evaluator: Callable[..., Evaluator] = Evaluator,
) -> dict[str, Any]:
    """Search for the best model under a budget and write it.

    Args:
        request: what is wanted.
        resume: whether the folder may hold this search already. A search that is complete is returned as it is, unless
            its budget was not met and there is more time now.
        on_progress: called before and after each candidate.
        make_evaluator: makes what candidates are measured with.

    Returns:
        The document of `shrink.json`.

    Raises:
        PlankwiseError: if the request, the model or the data are wrong; nothing is left in the folder then.
    """
    goal, config = check_request(request)
    refuse_taken(request.out, None, resume=resume)
    with claimed(request.out, _definition(request, goal), resume=resume):
        known = finished(request.out, request.seconds)
        if known is not None:
            return known
        clock = Clock(request.out)
        with clock.running():
            return _search(request, goal, config, clock=clock, on_progress=on_progress, make_evaluator=make_evaluator)


def _search(
    request: ShrinkRequest,
    goal: Goal,
    config: PreTrainedConfig,
    *,
    clock: Clock,
    on_progress: ProgressCallback,
    make_evaluator: Callable[..., Evaluator],
) -> dict[str, Any]:
    out = request.out
    truncation = truncation_of(request, config)
    how: dict[str, Any] = {"truncation": truncation, "seed": request.seed, "max_rows": request.max_rows()}
    data = prepare_given(request.model, request.files(), out / DATA, **how, progress=True)
    for line in (*data.said, *data.notes):
        logger.info("%s", line)
    checked = check(_recipe(request, data, truncation))
    assert isinstance(checked.recipe.task, TableFiles)
    scored = dataclasses.replace(checked.recipe.task, development=data.table(DEVELOPMENT)).load()
    evaluator = make_evaluator(checked.recipe, checked.task, out, scored=scored)
    start, original = measure_original(evaluator, out)
    _log_original(start, data)
    climb = _climb(request, goal, data, evaluator, original, start=start, clock=clock, on_progress=on_progress)
    ended = climb.run()
    if not climb.log.candidates:
        raise RecipeError(
            f"--time {duration(request.seconds)} is too short for a single measurement: the original took "
            f"{duration(clock.spent)}, and about {duration(climb.reserve + MEASURING)} more are needed"
        )
    logger.info("the climb ended: %s", ended)
    concluded = conclude(
        out,
        goal=goal,
        start=start,
        original=original,
        evaluator=evaluator,
        outcomes=climb.log.outcomes,
        failures=climb.log.failures,
        before=read_document(out / DOCUMENT),
    )
    document = {
        **concluded,
        **_described(request, data),
        "ended": ended,
        "seconds_allowed": request.seconds,
        "spent_seconds": clock.spent,
    }
    write_document(out, document, climb.log.outcomes)
    return document


def _described(request: ShrinkRequest, data: GivenData) -> dict[str, Any]:
    """Return what the document says of model and data."""
    return {
        "measured": data.measured[TEST],
        "model": request.model,
        "data": data.model_dump(mode="json", include={"rows", "labelled", "measured", "distribution", "columns"}),
        "said": list(data.said),
        "notes": [*data.notes, *([NOT_HERE] if request.processor else [])],
    }


def _climb(
    request: ShrinkRequest,
    goal: Goal,
    data: GivenData,
    evaluator: Evaluator,
    original: Original,
    *,
    start: Start,
    clock: Clock,
    on_progress: ProgressCallback,
) -> Climb:
    predictor = Predictor(request.model, truncation=evaluator.recipe.model.plain_truncation)
    texts = texts_of_split(evaluator.task.splits[DEVELOPMENT], PROBED)
    labelled, seconds = data.labelled[TRAIN] == data.rows[TRAIN], start.ms_per_text[TORCH] / 1000
    facts = facts_of(request, predictor, texts, data.rows, seconds_per_text=seconds, labelled=labelled)
    trimming = {"method": "vocabulary", "source": [str(data.table(TEXTS).resolve())]}
    facts = dataclasses.replace(facts, vocabulary=(trimming,))
    return Climb(
        goal=goal,
        ladder=ladder_of(request, facts),
        costs=facts.costs,
        evaluator=evaluator,
        original=original,
        log=CandidateLog(request.out),
        clock=clock,
        seconds=request.seconds,
        reserve=MEASURING + 2 * seconds * data.rows[TEST],
        on_progress=on_progress,
    )


def _recipe(request: ShrinkRequest, data: GivenData, truncation: Truncation) -> Recipe:
    """Return the recipe that every candidate adds its steps to."""
    plain = {
        "name": "shrink",
        "task": data.task(request.metric),
        "model": {"source": request.model, **to_plain(truncation)},
        "baseline": None,
        "seed": request.seed,
    }
    return validate(plain, Recipe)


def _log_original(start: Start, data: GivenData) -> None:
    """Log what the original does, before anything is compared with it."""
    times = ", ".join(f"{name} {value:.3g}" for name, value in start.ms_per_text.items())
    metric, measured = next(iter(start.scores)), data.measured[DEVELOPMENT]
    logger.info("the original: %s %s on development (%s); ms a text: %s", metric, start.interval, measured, times)
    start.warn_if_no_better_than_majority()


def _definition(request: ShrinkRequest, goal: Goal) -> dict[str, Any]:
    """Return what makes this search different from others; how long it may take does not."""
    return {
        "model": request.model,
        "data": request.files().identity(),
        "goal": goal.as_dict(),
        "metric": request.metric,
        "processor": request.processor,
        "recipe": request.recipe,
        "max_length": request.max_length,
        "seed": request.seed,
    }
