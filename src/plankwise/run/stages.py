"""The trained stages of a run: the baseline, and what each step makes of the model before it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.cache import cache_folder
from plankwise.core.errors import OutputError
from plankwise.core.hardware import default_device
from plankwise.core.recipe import to_plain
from plankwise.core.records import Cost, Entry, TextsRead
from plankwise.core.seeds import mix_seed
from plankwise.data.batching.inputs import log_texts_read
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.data.tokenizer.unknown_tokens import SAMPLED, check_unknown
from plankwise.encoder.checkpoint import load_classifier, load_masked_lm, load_trained
from plankwise.encoder.cost import count_bytes, count_nonzero
from plankwise.encoder.stored_truncation import store_truncation
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.benchmark.workload import texts_of_split
from plankwise.methods.method import TEXTS_READ, Job, Method, blocks_for, train_on_task
from plankwise.run.folder import Made, RunFolder, read_entry
from plankwise.run.recipe import Recipe
from plankwise.training.objectives.losses import Loss, balanced_weights, masked_lm_loss, task_loss
from plankwise.training.objectives.masking import score_masked_lm
from plankwise.training.prediction import predict
from plankwise.training.pretraining.pretrain import pretrain

logger = logging.getLogger(__name__)
PRETRAINED, BASELINE = "pretrained", "baseline"
_NO_COST = Cost(parameters=0, size_bytes=0, train_seconds=0.0)


class Stages:
    """The trained stages of one run, each starting from the one before."""

    def __init__(self, recipe: Recipe, task: Task, folder: RunFolder, progress: bool) -> None:
        self._recipe, self._folder, self._progress = recipe, folder, progress
        self._task = task.without_test()  # nothing below ever holds the test split
        self._own_reading = None if task.kind == "masked_lm" else recipe.model.plain_truncation
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
            store_truncation(model.config, self._own_reading)
            return model, job.tokenizer, entry

        return self._folder.stage(BASELINE, make)

    def step(self, number: int, method: Method) -> Entry:
        """Let one method compress the model so far."""
        name, source = f"steps/{number:02d}-{method.method}", self.last

        def make(work: Path) -> Made:
            model = self._load(str(self._folder.path / source)).to(default_device())
            job, notes = self._job(work, name, load_tokenizer(str(self._folder.path / source)))
            delivered: list[PreTrainedTokenizerBase] = []
            able = dataclasses.replace(job, baseline=self._baseline_and_tokenizer, deliver_tokenizer=delivered.append)
            smaller = method.compress(model, able)
            self._warn_if_unchanged(name, model, smaller)
            after = dataclasses.replace(job, tokenizer=(delivered or [job.tokenizer])[-1])
            entry = self._entry(method.method, to_plain(method), smaller, after, notes, seconds_of(notes))
            store_truncation(smaller.config, self._own_reading)
            return smaller, after.tokenizer, entry

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
                check_unknown(texts_of_split(texts, SAMPLED), tokenizer, "the model")
                if corpus:
                    blocks_for(self._job(work, PRETRAINED, tokenizer)[0], DEVELOPMENT)  # it may not fill one block

            made = pretrain(
                scratch,
                texts,
                texts_hash=content,
                masking=masking,
                seed=seed,
                folder=work,
                cache=cache,
                progress=self._progress,
                check_tokenizer=look_at,
            )
            entry = Entry(
                name=PRETRAINED,
                settings=to_plain(scratch),
                scores={},
                scores_split=TRAIN,
                cost=_NO_COST,
                train_seconds=made.log.train_seconds,
                development_scores={},
                details=made.log.as_dict(),
            )
            return made.model, made.tokenizer, entry

        self._folder.stage(PRETRAINED, make)
        return self._folder.path / PRETRAINED

    def _job(self, work: Path, stage: str, tokenizer: PreTrainedTokenizerBase) -> tuple[Job, dict[str, Any]]:
        notes: dict[str, Any] = {}
        job = Job(
            self._task,
            tokenizer,
            self._recipe.model.plain_truncation,
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
        texts_read = {split: TextsRead(**read) for split, read in notes.pop(TEXTS_READ, {}).items()}
        if job.task.kind == "masked_lm":
            scores = score_masked_lm(model, job.tokenizer, blocks_for(job, DEVELOPMENT), job.masking)
        else:
            found = predict(model, job.tokenizer, job.task, DEVELOPMENT, job.truncation)
            scores = found.scores(job.task.metrics)
            if DEVELOPMENT not in texts_read:  # else training has said it
                log_texts_read(f"{name}, {DEVELOPMENT}", found.read)
            texts_read = {**texts_read, DEVELOPMENT: found.read}
        return Entry(
            name=name,
            settings=settings,
            scores=scores,
            scores_split=DEVELOPMENT,
            cost=_NO_COST,
            train_seconds=seconds,
            development_scores=scores,
            details=notes,
            texts_read=texts_read,
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

    def _baseline_and_tokenizer(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        folder = str(self._folder.path / BASELINE)
        return self._load(folder).to(default_device()), load_tokenizer(folder)

    def _warn_if_unchanged(self, name: str, model: PreTrainedModel, smaller: PreTrainedModel) -> None:
        if count_nonzero(smaller) >= count_nonzero(model) and count_bytes(smaller) >= count_bytes(model):
            logger.warning("%s made the model no smaller", name)


def seconds_of(notes: dict[str, Any]) -> float:
    """Add up what a step spent: its training steps, what its method noted beside them, and a teacher's answers."""
    trained = float(notes.get("training", {}).get("train_seconds", 0.0))
    beside: dict[str, float] = notes.get("seconds", {})
    return trained + sum(beside.values()) + float(notes.get("teacher", {}).get("seconds", 0.0))


def objective(recipe: Recipe, task: Task) -> Loss:
    """Make the loss that the recipe asks for."""
    if task.kind == "masked_lm":
        return masked_lm_loss
    if recipe.objective.class_weights == "none":
        return task_loss(task.kind)
    labels = task.splits[TRAIN]["label"][:]
    return task_loss(task.kind, balanced_weights(labels, task.kind, len(task.labels)))
