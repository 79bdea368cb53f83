"""The chain: recipe → task → baseline → methods → evaluation → record → report. Every arrow is one function here."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import PreTrainedConfig, TrainerCallback

from plankwise.core.distributed import is_main_process, wait_for_everyone
from plankwise.core.errors import MethodError, ModelError, OutputError, RecipeError
from plankwise.core.hardware import environment
from plankwise.core.recipe import to_plain
from plankwise.core.records import Record
from plankwise.data.batching.examples import check_fits
from plankwise.data.task import TEST, TRAIN, Task
from plankwise.data.tokenizer.unknown_tokens import SAMPLED, check_unknown
from plankwise.data.truncation import KEYS, truncation_for, warn_if_other
from plankwise.encoder.checkpoint import load_config
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.quantized import LAST, is_quantized
from plankwise.encoder.shapes import is_plain
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.benchmark.workload import texts_of_split
from plankwise.evaluation.saved_predictions import PREDICTIONS
from plankwise.methods.method import ModelSpec
from plankwise.report.model_card import write_model_card
from plankwise.report.run_report import write_report
from plankwise.run.contents import MODEL as MODEL
from plankwise.run.contents import REPORT
from plankwise.run.final_evaluation import measure_final
from plankwise.run.folder import RunFolder
from plankwise.run.recipe import Recipe
from plankwise.run.stages import BASELINE, Stages
from plankwise.training.distillation.teacher import OF_THE_RUN
from plankwise.training.fit import check_training
from plankwise.training.objectives.objective import Objective
from plankwise.training.objectives.registry import OBJECTIVES, objective_of
from plankwise.training.pretraining.config import pretraining_model_config

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """A recipe whose data and models have been looked at, before anything is written or trained.

    Attributes:
        recipe: as given, with the truncation of its model's source where it does not say how texts are read.
        task: loaded, test split included; only the last stage reads that.
        specs: of the baseline and of the model after each step.
    """

    recipe: Recipe
    task: Task
    specs: list[ModelSpec]


def check(recipe: Recipe, task: Task | None = None) -> Checked:
    """Load the data, read the model's configuration and plan every step; any fault shows here.

    Args:
        recipe: to check.
        task: the recipe's task, where it is loaded already.

    Raises:
        PlankwiseError: of the kind that fits.
    """
    source, scratch = recipe.model.source, recipe.model.scratch
    config = load_config(source or "") if scratch is None else pretraining_model_config(scratch)
    if is_quantized(config):
        raise ModelError(f"model.source {source}: {LAST}; allowed: a model whose weights are floating-point")
    recipe = _with_own_truncation(recipe, config)
    longest = usable_positions(config)
    if recipe.model.max_length > longest:
        raise ModelError(f"model.max_length {recipe.model.max_length} is more than the model's {longest} positions")
    objective = objective_of(recipe.task.kinds[0], recipe.objective, recipe.masking)
    tokenizer = None if source is None else load_tokenizer(source)
    if tokenizer is not None:
        objective.check_tokenizer(tokenizer, str(source))
    if recipe.baseline is not None:
        check_training(recipe.baseline)
    elif source is not None:
        objective.check_teacher(config, source)  # a model that answers something else needs no data to be refused
    specs = [ModelSpec(config=config, tokenizer=tokenizer, objective=objective, baseline=config)]
    for number, step in enumerate(recipe.steps):
        try:
            specs.append(step.plan(specs[-1]))
        except (MethodError, RecipeError, ModelError) as error:
            raise type(error)(f"steps.{number} ({step.method}): {error}") from None
    task = task or recipe.task.load()
    if recipe.baseline is None and source is not None:
        objective.check_baseline(config, source, task, recipe.model.labels)
    if not objective.reads_blocks:
        check_fits(recipe.model.plain_truncation, task, tokenizer)
    _check_texts(recipe, task, objective)
    if task.access == "credentialed":
        _warn_of_words(recipe)
    return Checked(recipe, task, specs)


def _warn_of_words(recipe: Recipe) -> None:
    """Warn where a model of the run will reveal words of text that must not leave the machine."""
    if recipe.model.scratch is not None:
        logger.warning("the new tokenizer will hold words of the credentialed text, in every model folder of the run")
    for step in recipe.steps:
        if step.credentialed_warning:
            logger.warning(step.credentialed_warning)


def _with_own_truncation(recipe: Recipe, config: PreTrainedConfig) -> Recipe:
    """Truncate texts as the source was trained to, where the recipe does not say how; corpora are not truncated."""
    reads_blocks = OBJECTIVES[recipe.task.kinds[0]].reads_blocks
    own = None if reads_blocks else stored_truncation(config)
    if own is None:
        return recipe
    truncation = truncation_for(recipe.model, own)
    warn_if_other(truncation, own, str(recipe.model.source))
    keys = {name: getattr(truncation, name) for name in KEYS}
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, **keys))


def _check_texts(recipe: Recipe, task: Task, objective: Objective) -> None:
    """Check that the model's tokenizer, and that of each teacher of its own, knows the task's texts."""
    teachers = [step.teacher.source for step in recipe.steps if step.teacher is not None]
    others = [source for source in teachers if source not in OF_THE_RUN]
    for source in others:
        objective.check_teacher(load_config(source), source)
    for source in dict.fromkeys([*([] if recipe.model.source is None else [recipe.model.source]), *others]):
        check_unknown(texts_of_split(task.splits[TRAIN], SAMPLED), load_tokenizer(source), source)


def run(
    checked: Checked,
    out: Path,
    *,
    resume: bool = False,
    progress: bool = False,
    until: Literal["baseline", "steps", "report"] = "report",
    baseline: Path | None = None,
    start_from: Path | None = None,
    from_step: int | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Record:
    """Run a checked recipe into the folder `out`, or resume the run that is there.

    Args:
        checked: by `check`.
        out: the run's folder.
        resume: whether `out` may hold an unfinished run of this very recipe.
        progress: whether to show progress bars.
        until: where to stop; only `report` reads the test split.
        baseline: folder of a finished baseline of the same data, model and settings, to take instead of training one.
        start_from: folder of another run of the same data, model, baseline and seed. Its baseline, and its steps as far
            as their settings agree, are taken over (as hard links where possible) instead of being run again.
        from_step: number of the step, from 1, from which on the run in `out` is run again; the recipe of that run may
            differ in these steps alone. Nothing is removed before everything is checked.
        callbacks: of the Transformers Trainer, for every training of the run.
    """
    recipe, task = checked.recipe, checked.task
    folder = RunFolder(out, to_plain(recipe))
    with folder.claimed(resume, from_step):
        known, record = _known(folder, task), _new_record(checked)
        if from_step is not None:
            folder.rewind(from_step, record)
        elif known is not None and known.final is not None:
            return _close(known, folder)
        chain = Stages(recipe, task, folder, progress=progress, callbacks=callbacks)
        chain.adopt(baseline, start_from)
        record.baseline = chain.baseline()
        _write(record, out)
        if until != "baseline":
            for number, step in enumerate(recipe.steps, 1):
                record.steps.append(chain.step(number, step))
                _write(record, out)
        if until == "report":
            folder.copy_model(chain.last, MODEL)
            record = _close(_measured(record, checked, out), folder)
        wait_for_everyone()
    return record


def _known(folder: RunFolder, task: Task) -> Record | None:
    """Return the record of the run so far; refuse to go on with other data."""
    known = folder.known()
    if known is not None and known.data_hashes != dict(task.hashes):
        raise OutputError(f"the data changed since the run in {folder.path} began; choose another folder")
    return known


def _measured(record: Record, checked: Checked, out: Path) -> Record:
    """Score the last model on the test split, where there is one; the main process does it, and writes the record."""
    if not is_main_process() or TEST not in checked.task.splits:
        return record
    measured = measure_final(record, checked.task, checked.recipe, out / BASELINE, out / MODEL, out / PREDICTIONS)
    measured.write(out)
    return measured


def _close(record: Record, folder: RunFolder) -> Record:
    """Write the report of a record that is whole, and remove what only an unfinished run needs."""
    if is_main_process():
        if record.final is not None:
            write_report([folder.path], folder.path / REPORT)
            plain = is_plain(load_config(str(folder.path / MODEL)))
            write_model_card(folder.path, folder.path / MODEL, record, plain=plain)
        folder.tidy()
    return record


def _new_record(checked: Checked) -> Record:
    task = checked.task
    described = {
        "name": task.name,
        "kind": task.kind,
        "labels": list(task.labels),
        "metrics": list(task.metrics),
        "access": task.access,
        "rows": dict(task.splits.num_rows),
    }
    return Record(
        name=checked.recipe.name,
        task=described,
        environment=environment(),
        data_hashes=dict(task.hashes),
        seed=checked.recipe.seed,
        recipe=to_plain(checked.recipe),
    )


def _write(record: Record, out: Path) -> None:
    if is_main_process():
        record.write(out)
