"""The chain: recipe → task → baseline → methods → evaluation → record → report. Every arrow is one function here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.errors import MethodError, ModelError, OutputError, RecipeError
from plankwise.core.recipe import to_plain
from plankwise.core.records import Cost, Entry, Record
from plankwise.core.runtime import default_device, environment, is_main_process, mix_seed, wait_for_everyone
from plankwise.data.blocks import ids_of
from plankwise.data.corpus import Corpus, cache_folder
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.encoder.anatomy import usable_positions
from plankwise.encoder.checkpoint import load_classifier, load_config, load_masked_lm, load_tokenizer, load_trained
from plankwise.methods.method import Job, Method, blocks_for, train_on_task
from plankwise.study.final import PREDICTIONS, measure_final
from plankwise.study.plan import Recipe
from plankwise.study.report import write_report
from plankwise.study.run_folder import Made, RunFolder, read_entry
from plankwise.training.evaluate import predict
from plankwise.training.fit import check_training
from plankwise.training.losses import Loss, balanced_weights, masked_lm_loss, task_loss
from plankwise.training.masking import score_masked_lm
from plankwise.training.pretraining import pretrain, scratch_config

logger = logging.getLogger(__name__)
PRETRAINED, BASELINE, MODEL = "pretrained", "baseline", "model"
_NO_COST = Cost(parameters=0, size_bytes=0, train_seconds=0.0)


@dataclass(frozen=True)
class Checked:
    """A recipe whose data and models have been looked at, before anything is written or trained.

    Attributes:
        recipe: as given.
        task: loaded, test split included; only the last stage reads that.
        configs: of the baseline and of the model after each step.
    """

    recipe: Recipe
    task: Task
    configs: list[PreTrainedConfig]


def check(recipe: Recipe) -> Checked:
    """Load the data, read the model's configuration and plan every step; any fault shows here.

    Raises:
        PlankwiseError: of the kind that fits.
    """
    source, scratch = recipe.model.source, recipe.model.scratch
    config = load_config(source or "") if scratch is None else scratch_config(scratch)
    longest = usable_positions(config)
    if recipe.model.max_length > longest:
        raise ModelError(f"model.max_length {recipe.model.max_length} is more than the model's {longest} positions")
    if source is not None:
        _check_tokenizer(recipe, source, config)
    if recipe.baseline is not None:
        check_training(recipe.baseline)
    configs = [config]
    for number, step in enumerate(recipe.steps):
        try:
            configs.append(step.plan(configs[-1]))
            check_training(step.training)
        except (MethodError, RecipeError) as error:
            raise type(error)(f"steps.{number} ({step.method}): {error}") from None
    task = recipe.task.load()
    if task.access == "credentialed" and scratch is not None:
        logger.warning("the new tokenizer will hold words of the credentialed text, in every model folder of the run")
    return Checked(recipe, task, configs)


def _check_tokenizer(recipe: Recipe, source: str, config: PreTrainedConfig) -> None:
    tokenizer = load_tokenizer(source)
    wanted = ("mask_token_id", "cls_token_id", "sep_token_id") if isinstance(recipe.task, Corpus) else ()
    for name in wanted:
        if getattr(tokenizer, name) is None:
            raise ModelError(f"the tokenizer of {source} has no {name.removesuffix('_id')}; a masked LM needs one")
    if ids_of(tokenizer) > config.vocab_size:
        raise ModelError(f"the tokenizer of {source} has {ids_of(tokenizer)} ids, its model {config.vocab_size}")


def run(
    checked: Checked,
    out: Path,
    *,
    resume: bool = False,
    progress: bool = False,
    until: Literal["baseline", "report"] = "report",
    baseline: Path | None = None,
) -> Record:
    """Run a checked recipe into the folder `out`, or go on with it.

    Args:
        checked: by `check`.
        out: the run's folder.
        resume: whether `out` may hold an unfinished run of this very recipe.
        progress: whether to show progress bars.
        until: where to stop.
        baseline: folder of a finished baseline of the same data, model and settings, to take instead of training one.
    """
    recipe, task = checked.recipe, checked.task
    folder = RunFolder(out, to_plain(recipe))
    with folder.claimed(resume):
        known = folder.known()
        if known is not None and known.data_hashes != dict(task.hashes):
            raise OutputError(f"the data changed since the run in {out} began; choose another folder")
        if known is not None and known.final is not None:
            return _close(known, folder)
        record = _new_record(checked)
        chain = _Chain(checked, folder, progress)
        if baseline is not None:
            chain.adopt_baseline(baseline)
        record.baseline = chain.baseline()
        _write(record, out)
        if until == "report":
            for number, step in enumerate(recipe.steps, 1):
                record.steps.append(chain.step(number, step))
                _write(record, out)
            folder.copy_model(chain.last, MODEL)
            if is_main_process() and task.kind != "masked_lm":
                record = measure_final(record, task, recipe, out / BASELINE, out / MODEL, out / PREDICTIONS)
                record.write(out)
            _close(record, folder)
        wait_for_everyone()
    return record


def _close(record: Record, folder: RunFolder) -> Record:
    """Write the report of a record that is whole, and remove what only an unfinished run needs."""
    if is_main_process():
        if record.final is not None:
            write_report([folder.path], folder.path / "report.html")
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


class _Chain:
    """The trained stages of one run, each starting from the one before."""

    def __init__(self, checked: Checked, folder: RunFolder, progress: bool) -> None:
        self._recipe, self._folder, self._progress = checked.recipe, folder, progress
        self._task = checked.task.without_test()  # nothing below ever holds the test split
        self.last = BASELINE

    def adopt_baseline(self, source: Path) -> None:
        """Take over a finished baseline, if it is what this recipe would have trained."""
        entry = read_entry(source)
        if entry.settings != self._baseline_settings():
            raise OutputError(f"the baseline in {source} was made with other data, model, settings or seed")
        self._folder.adopt(source, BASELINE)

    def baseline(self) -> Entry:
        """Fine-tune the uncompressed model; on a corpus, train the language model on, or take it as it is."""
        source, training = self._recipe.model.source or str(self._pretrained()), self._recipe.baseline

        def make(work: Path) -> Made:
            torch.manual_seed(self._seed("head"))
            if self._task.kind == "masked_lm":
                model = load_masked_lm(source, head_is_new=training is not None)
            else:
                model = load_classifier(source, self._task.labels, self._task.kind)
            job, notes = self._job(work, BASELINE, load_tokenizer(source))
            model.to(default_device())
            seconds = 0.0 if training is None else train_on_task(model, job, training, "baseline").train_seconds
            entry = self._entry(BASELINE, self._baseline_settings(), model, job, notes, seconds)
            return model, job.tokenizer, entry

        return self._folder.stage(BASELINE, make)

    def step(self, number: int, method: Method) -> Entry:
        """Let one method compress the model so far."""
        name, source = f"steps/{number:02d}-{method.method}", self.last

        def make(work: Path) -> Made:
            model = self._load(str(self._folder.path / source)).to(default_device())
            job, notes = self._job(work, name, load_tokenizer(str(self._folder.path / source)))
            smaller = method.compress(model, job)
            self._warn_if_unchanged(name, model, smaller)
            seconds = notes.get("training", {}).get("train_seconds", 0.0)
            return smaller, job.tokenizer, self._entry(method.method, to_plain(method), smaller, job, notes, seconds)

        entry = self._folder.stage(name, make)
        self.last = name
        return entry

    def _pretrained(self) -> Path:
        scratch = self._recipe.model.scratch
        assert scratch is not None

        def make(work: Path) -> Made:
            texts, content = self._task.splits[TRAIN], self._task.hashes[TRAIN]
            corpus = self._task.kind == "masked_lm"
            cache = cache_folder() / "blocks" if corpus else work / "blocks"
            masking, seed = self._recipe.masking, self._seed(PRETRAINED)

            def look_at(tokenizer: PreTrainedTokenizerBase) -> None:
                if corpus:
                    blocks_for(self._job(work, PRETRAINED, tokenizer)[0], DEVELOPMENT)  # it may not fill one block

            model, tokenizer, notes = pretrain(
                scratch, texts, content, masking, seed, work, cache, self._progress, look_at
            )
            seconds = sum(stage["train_seconds"] for stage in notes["stages"])
            entry = Entry(
                name=PRETRAINED,
                settings=to_plain(scratch),
                scores={},
                scores_split=TRAIN,
                cost=_NO_COST,
                train_seconds=seconds,
                development_scores={},
                details=notes,
            )
            return model, tokenizer, entry

        self._folder.stage(PRETRAINED, make)
        return self._folder.path / PRETRAINED

    def _job(self, work: Path, stage: str, tokenizer: PreTrainedTokenizerBase) -> tuple[Job, dict[str, Any]]:
        notes: dict[str, Any] = {}
        job = Job(
            self._task,
            tokenizer,
            self._recipe.model.max_length,
            objective(self._recipe, self._task),
            self._seed(stage),
            work,
            self._progress,
            notes.__setitem__,
            self._recipe.masking,
        )
        return job, notes

    def _entry(
        self,
        name: str,
        settings: dict[str, Any],
        model: PreTrainedModel,
        job: Job,
        notes: dict[str, Any],
        seconds: float,
    ) -> Entry:
        if job.task.kind == "masked_lm":
            scores = score_masked_lm(model, job.tokenizer, blocks_for(job, DEVELOPMENT), job.masking)
        else:
            scores = predict(model, job.tokenizer, job.task, DEVELOPMENT, job.max_length).scores(job.task.metrics)
        return Entry(
            name=name,
            settings=settings,
            scores=scores,
            scores_split=DEVELOPMENT,
            cost=_NO_COST,
            train_seconds=seconds,
            development_scores=scores,
            details=notes,
        )

    def _baseline_settings(self) -> dict[str, Any]:
        recipe = self._recipe
        return {
            "training": None if recipe.baseline is None else to_plain(recipe.baseline),
            "model": to_plain(recipe.model),
            "seed": recipe.seed,
            "objective": to_plain(recipe.objective),
            "masking": to_plain(recipe.masking),
            "data_hashes": dict(self._task.hashes),
        }

    def _load(self, folder: str) -> PreTrainedModel:
        return load_masked_lm(folder, head_is_new=False) if self._task.kind == "masked_lm" else load_trained(folder)

    def _seed(self, stage: str) -> int:
        return mix_seed(self._recipe.seed, stage)

    def _warn_if_unchanged(self, name: str, model: PreTrainedModel, smaller: PreTrainedModel) -> None:
        if sum(value.numel() for value in smaller.parameters()) >= sum(value.numel() for value in model.parameters()):
            logger.warning("%s made the model no smaller", name)


def objective(recipe: Recipe, task: Task) -> Loss:
    """Make the loss that the recipe asks for."""
    if task.kind == "masked_lm":
        return masked_lm_loss
    if recipe.objective.class_weights == "none":
        return task_loss(task.kind)
    labels = task.splits[TRAIN]["label"][:]
    return task_loss(task.kind, balanced_weights(labels, task.kind, len(task.labels)))
