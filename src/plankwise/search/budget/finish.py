"""The end of a search: the chosen model on the rows held back, once, and everything that is left to the user."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pydantic
import yaml

from plankwise.core.files import atomic_folder, write_text
from plankwise.core.recipe import to_plain
from plankwise.core.records import Interval
from plankwise.data.task import TEST, TRAIN
from plankwise.evaluation.comparison import Pair, behaviour, chance_corrected
from plankwise.evaluation.intervals import score_interval
from plankwise.evaluation.metrics import METRICS, majority_logits
from plankwise.evaluation.saved_predictions import PREDICTIONS, save_predictions
from plankwise.run.folder import STAGE
from plankwise.search.budget.candidate import Outcome
from plankwise.search.budget.evaluation import RESAMPLES, Evaluator, Original
from plankwise.search.budget.start import TORCH
from plankwise.training.fit import CURVES

MODEL, ARTEFACT, RECIPE = "model", "artefact", "recipe.yaml"
CHOSEN = "chosen"


class HeldBack(pydantic.BaseModel):
    """What was measured of the chosen model on rows that nothing was decided on.

    Attributes:
        rows: their number.
        scores: of the artefact, by metric, with intervals.
        original_scores: the same of the original.
        majority_scores: of always guessing the most frequent class of train.
        retained: by metric.
        chance_corrected: share of the original's lead over the majority guess that is kept, by metric.
        behaviour: label loyalty, flips and McNemar's test, as in a run's record.
        ms_per_text: by what was timed, in the same rounds.
        speedup: of the artefact over each of these.
        warnings: of the timing.
    """

    rows: int
    scores: dict[str, Interval]
    original_scores: dict[str, Interval]
    majority_scores: dict[str, float]
    retained: dict[str, Interval]
    chance_corrected: dict[str, float | None]
    behaviour: dict[str, float]
    ms_per_text: dict[str, float]
    speedup: dict[str, Interval]
    warnings: tuple[str, ...] = ()


def hold_back(evaluator: Evaluator, original: Original, chosen: Outcome, references: dict[str, Path]) -> HeldBack:
    """Score and time the chosen candidate and the original on the test split; save both models' logits.

    Args:
        evaluator: of the search.
        original: what the candidate is compared with.
        chosen: the candidate.
        references: the original in other runtimes, by title.
    """
    model, _ = evaluator.model(())
    artefact = evaluator.artefact(chosen.candidate, evaluator.model(chosen.candidate.steps)[0])
    old, new = (evaluator.logits(folder, TEST) for folder in (original.reference, artefact))
    labels = evaluator.labels(TEST)
    guess, names = majority_logits(labels, evaluator.labels(TRAIN)), evaluator.task.metrics
    scores = {name: score_interval([labels], [new], name, RESAMPLES) for name in names}
    before = {name: score_interval([labels], [old], name, RESAMPLES) for name in names}
    majority = {name: METRICS[name](labels, guess) for name in names}
    ids = [str(each) for each in evaluator.task.splits[TEST]["id"][:]]
    save_predictions(evaluator.folder / PREDICTIONS, ids, Pair(labels, old, new))
    timed = evaluator.time({original.title: original.reference, TORCH: model, **references, CHOSEN: artefact}, TEST)
    return HeldBack(
        rows=len(labels),
        scores=scores,
        original_scores=before,
        majority_scores=majority,
        retained={name: evaluator.retained(new, old, TEST, name) for name in names},
        chance_corrected={n: chance_corrected(scores[n].value, before[n].value, majority[n]) for n in names},
        behaviour=behaviour(Pair(labels, old, new)),
        ms_per_text={name: each.ms_per_text for name, each in timed.items()},
        speedup={name: timed[CHOSEN].over(each) for name, each in timed.items() if name != CHOSEN},
        warnings=timed[CHOSEN].warnings,
    )


def write_model(evaluator: Evaluator, chosen: Outcome, out: Path) -> None:
    """Put the chosen model, its artefact and its recipe where the user looks for them."""
    model, _ = evaluator.model(chosen.candidate.steps)
    artefact = evaluator.artefact(chosen.candidate, model)
    for source, target in ((model, out / MODEL), (artefact, out / ARTEFACT)):
        with atomic_folder(target) as temporary:
            shutil.copytree(source, temporary, dirs_exist_ok=True, ignore=lambda *_: {STAGE, CURVES})
    write_text(out / RECIPE, recipe_text(evaluator, chosen))


def recipe_text(evaluator: Evaluator, chosen: Outcome) -> str:
    """Return the recipe that makes the chosen model again, and the command that exports it."""
    recipe: dict[str, Any] = to_plain(evaluator.with_steps(chosen.candidate.steps))
    runtime, precision = chosen.candidate.runtime, chosen.candidate.precision
    head = (
        "# Makes the model again:  plankwise run recipe.yaml --out RUN\n"
        f"# and its artefact:       plankwise export RUN/model --out ARTEFACT --to {runtime} --precision {precision}\n"
    )
    return head + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
