"""`plankwise search`: the best settings of a recipe's steps under a budget, by any number of workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from plankwise.core.distributed import process_count
from plankwise.core.errors import OutputError, PlankwiseError, RecipeError
from plankwise.core.hardware import environment
from plankwise.core.paths import check_folder
from plankwise.search.budget.candidate import Candidate, Failure, Outcome
from plankwise.search.budget.evaluation import Evaluator, Original, Timer
from plankwise.search.budget.folder import refuse_taken
from plankwise.search.budget.goal import Goal, check_seconds, goal_of
from plankwise.search.budget.log import CandidateLog
from plankwise.search.budget.start import measure_original
from plankwise.search.pareto.document import Found, finished, write_document
from plankwise.search.pareto.fidelity import FULL
from plankwise.search.pareto.plan import SearchPlan, read_search
from plankwise.search.pareto.shared_folder import (
    DATABASE,
    END,
    ORIGINAL,
    joined,
    one_at_a_time,
    run_alone,
    time_alone,
)
from plankwise.search.pareto.worker import Deadline, Worker
from plankwise.search.storage import check_storage, reachable

logger = logging.getLogger(__name__)
TRIALS = 40  # settings, where neither their number nor the time is limited


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """One search.

    Attributes:
        path: of a search file or a plain recipe.
        out: folder of the search.
        retain: share of the baseline's score to keep.
        speedup: times as fast as the baseline in an optimised runtime in fp32.
        max_size_mb: of the artefact, in 10⁶ bytes.
        seconds: that this worker may take.
        trials: settings that all workers together draw.
        storage: a URL of SQLAlchemy; SQLite in the folder by default.
        overrides: of the recipe.
        seed: of the recipe and of the sampler; that of the recipe by default.
    """

    path: Path
    out: Path
    retain: float = 0.99
    speedup: float | None = None
    max_size_mb: float | None = None
    seconds: float | None = None
    trials: int | None = None
    storage: str | None = None
    overrides: tuple[str, ...] = ()
    seed: int | None = None

    def goal(self) -> Goal:
        """Return the budget.

        Raises:
            RecipeError: if it contradicts itself.
        """
        return goal_of(retain=self.retain, speedup=self.speedup, max_size_mb=self.max_size_mb)

    @property
    def most_trials(self) -> int | None:
        """Settings that may be drawn; None where the time alone ends the search."""
        return TRIALS if self.trials is None and self.seconds is None else self.trials


def read_request(request: SearchRequest) -> SearchPlan:
    """Check a request and read its search file, before anything is written.

    Raises:
        PlankwiseError: naming the bad value, its place and what is allowed.
    """
    request.goal()
    if request.seconds is not None:
        check_seconds(request.seconds)
    check_folder(request.out)
    if process_count() > 1:
        raise RecipeError("a search runs one process per worker; start the same command several times with --resume")
    if request.storage is not None:
        check_storage(request.storage)
    plan = read_search(request.path, request.overrides, request.seed)
    if not plan.task.has_labels:
        raise RecipeError(f"{request.path}: a search scores labelled rows; allowed: a task with labels")
    return plan


def search(
    request: SearchRequest,
    *,
    resume: bool = False,
    timer: Timer | None = None,
    make_evaluator: Callable[..., Evaluator] = Evaluator,
) -> dict[str, Any]:
    """Search for the best settings under a budget and write the best model.

    Args:
        request: what is wanted.
        resume: whether the folder may hold this search already: it is resumed, or joined by one more worker.
        timer: times models and artefacts.
        make_evaluator: makes what makes and measures candidates.

    Returns:
        The document of `search.json`.

    Raises:
        PlankwiseError: if the request, the recipe or the data are wrong; nothing is left in the folder then.
    """
    refuse_taken(request.out, None, resume=resume)  # before data is loaded
    plan, goal, out = read_request(request), request.goal(), request.out
    definition = {**plan.definition(), "goal": goal.as_dict()}
    with joined(out, definition, resume=resume):
        known = finished(out, request.most_trials, request.seconds)
        if known is not None:
            return known
        evaluate = partial(make_evaluator, folder=out, run=run_alone, timer=timer or partial(time_alone, out=out))
        return _search(request, plan, goal, evaluate=evaluate)


def _search(
    request: SearchRequest, plan: SearchPlan, goal: Goal, *, evaluate: Callable[..., Evaluator]
) -> dict[str, Any]:
    out, deadline = request.out, Deadline(request.seconds)
    evaluator: Evaluator = evaluate(plan.recipe, plan.task)
    with one_at_a_time(out, ORIGINAL):
        start, original = measure_original(evaluator, out)
        plain = _plain_runtimes(plan, evaluator, original)
    start.warn_if_no_better_than_majority()
    url = request.storage or f"sqlite:///{(out / DATABASE).resolve()}"
    with reachable(url):
        worker = Worker(
            plan=plan,
            goal=goal,
            measure=partial(measure_from_prefixes, evaluator, original),
            storage=url,
            trials=request.most_trials,
            deadline=deadline,
        )
        _register(worker, {**plan.definition(), "goal": goal.as_dict()})
        proxies, full = worker.run()
        found = Found(
            plain=plain,
            proxies=[each for each in proxies.outcomes if each.candidate.rung != FULL],
            full=[*(each for each in proxies.outcomes if each.candidate.rung == FULL), *full.outcomes],
            failures=[*proxies.failures, *full.failures],
            ended="the time is spent" if not deadline.allows(1.0) else "every setting that was asked for is measured",
            spent_seconds=deadline.spent,
        )
    with one_at_a_time(out, END):
        known = finished(out, request.most_trials, request.seconds)
        if known is not None:  # another worker was quicker
            return known
        whole = evaluate(plan.recipe, plan.recipe.task.load())  # the test split is read here and nowhere else
        about = {"trials_allowed": request.most_trials, "seconds_allowed": request.seconds}
        return write_document(out, goal=goal, start=start, original=original, evaluator=whole, found=found, about=about)


def measure_from_prefixes(evaluator: Evaluator, original: Original, candidate: Candidate) -> Outcome | Failure:
    """Measure a candidate, after making the model of each of its first steps under a name of its own.

    Candidates share what their first steps make, and a worker that needs the same model waits for it.

    Args:
        evaluator: of the search.
        original: what the candidate is compared with.
        candidate: to measure.
    """
    try:
        for count in range(len(candidate.steps)):
            evaluator.model(candidate.steps[:count])
    except PlankwiseError as error:
        return Failure(candidate=candidate, fault=str(error), seconds=0.0)
    found = evaluator.measure(candidate, original)
    if candidate.steps:  # the baseline's artefacts are needed until the end; others are made again in seconds
        evaluator.drop(candidate)
    return found


def _plain_runtimes(plan: SearchPlan, evaluator: Evaluator, original: Original) -> list[Outcome]:
    """Measure what each runtime and precision gives without any compression: the straw man is beaten first."""
    log = CandidateLog(evaluator.folder)
    known = [(each.runtime, each.precision) for each in log.candidates if each != log.pending]
    for runtime, precision in plan.pairs:
        if (runtime, precision) not in known:
            name = f"original, {runtime} {precision}"
            candidate = Candidate(name=name, rung="runtime", runtime=runtime, precision=precision)
            log.propose(candidate)
            log.finish(evaluator.measure(candidate, original))
    return log.outcomes


def _register(worker: Worker, definition: Mapping[str, Any]) -> None:
    """Note in the storage which search this is, and on what kind of processor speed-ups are measured.

    Raises:
        OutputError: if the storage holds another search of this name.
        RecipeError: if the search was begun on another kind of processor.
    """
    study, here = worker.rungs()[0].study, environment()["cpu"]["model"]
    known = study.user_attrs.get("definition")
    if known is None:
        study.set_user_attr("definition", dict(definition))
        study.set_user_attr("processor", here)
        return
    differing = ", ".join(key for key in definition if definition[key] != known.get(key))
    if differing:
        raise OutputError(
            f"the storage holds another search '{worker.plan.name}' (it differs in {differing}); rename it"
        )
    if study.user_attrs["processor"] != here:
        begun = study.user_attrs["processor"]
        raise RecipeError(f"this search was begun on {begun}, and speed-ups do not carry over to {here}")
