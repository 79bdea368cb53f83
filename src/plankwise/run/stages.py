"""The trained stages of a run: the baseline, and what each step makes of the model before it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from plankwise.core.cache import cache_folder
from plankwise.core.hardware import default_device
from plankwise.core.recipe import to_plain
from plankwise.core.records import Cost, Entry
from plankwise.core.seeds import mix_seed
from plankwise.data.batching.inputs import log_texts_read
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.data.tokenizer.unknown_tokens import SAMPLED, check_unknown
from plankwise.encoder.cost import count_bytes, count_nonzero
from plankwise.encoder.stored_truncation import store_truncation
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.benchmark.workload import texts_of_split
from plankwise.methods.method import Compressed, Job, Method, StepLog
from plankwise.run.baselines import baseline_settings, check_baseline, shared_stages
from plankwise.run.contents import BASELINE as BASELINE
from plankwise.run.contents import PRETRAINED, stage_of
from plankwise.run.folder import Made, RunFolder
from plankwise.run.recipe import Recipe
from plankwise.training.objectives.registry import objective_of
from plankwise.training.on_task import train_on_task
from plankwise.training.pretraining.pretrain import pretrain

logger = logging.getLogger(__name__)
_NO_COST = Cost(parameters=0, size_bytes=0, train_seconds=0.0)


class Stages:
    """The trained stages of one run, each starting from the one before."""

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        folder: RunFolder,
        *,
        progress: bool = False,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self._recipe, self._folder, self._progress, self._callbacks = recipe, folder, progress, tuple(callbacks)
        self._task = task.without_test()  # nothing below ever holds the test split
        self._objective = objective_of(task.kind, recipe.objective, recipe.masking)
        # A model keeps how its texts are truncated; blocks of a corpus are not.
        self._truncation = None if self._objective.reads_blocks else recipe.model.plain_truncation
        self.last = BASELINE

    def adopt(self, baseline: Path | None, run: Path | None) -> None:
        """Take over a finished baseline, or what another run has of this one; each must be what this one would make."""
        if baseline is not None:
            check_baseline(baseline, self._recipe, self._task)
            self._folder.adopt(baseline, BASELINE)
        if run is not None:
            for name in shared_stages(run, self._recipe, self._task):
                self._folder.adopt(run / name, name)

    def baseline(self) -> Entry:
        """Train the uncompressed model, or use it as it is where the recipe says so."""
        source, training = self._recipe.model.source, self._recipe.baseline
        if source is None and not self._folder.has(BASELINE):  # a baseline that was taken over needs no pretraining
            source = str(self._pretrained())

        def make(work: Path) -> Made:
            assert source is not None
            torch.manual_seed(self._seed("head"))
            if training is None:
                model = self._objective.load_baseline(source, self._task.labels, self._recipe.model.labels)
            else:
                model = self._objective.load(source, self._task.labels)
            job = self._job(work, BASELINE, load_tokenizer(source))
            model.to(default_device())
            log = StepLog() if training is None else train_on_task(model, job, training, "baseline")
            entry = self._entry(
                BASELINE, baseline_settings(self._recipe, self._task), Compressed(model, job.tokenizer, log), job
            )
            store_truncation(model.config, self._truncation)
            return model, job.tokenizer, entry

        return self._folder.stage(BASELINE, make)

    def step(self, number: int, method: Method) -> Entry:
        """Compress the model so far by one method."""
        name, source = stage_of(number, method), self.last

        def make(work: Path) -> Made:
            folder = str(self._folder.path / source)
            model = self._objective.load_trained(folder).to(default_device())
            job = self._job(work, name, load_tokenizer(folder))
            made = method.compress(model, dataclasses.replace(job, baseline=self._baseline_and_tokenizer))
            self._warn_if_unchanged(name, model, made.model)
            entry = self._entry(method.method, to_plain(method), made, job)
            store_truncation(made.model.config, self._truncation)
            return made.model, made.tokenizer, entry

        entry = self._folder.stage(name, make)
        if self._recipe.keep == "last" and source != BASELINE:  # methods ask for the baseline as their teacher
            self._folder.drop_model(source)
        self.last = name
        return entry

    def _pretrained(self) -> Path:
        scratch = self._recipe.model.scratch
        assert scratch is not None

        def make(work: Path) -> Made:
            texts, content = self._task.splits[TRAIN], self._task.hashes[TRAIN]
            # Blocks of a corpus serve later stages too; those of a task's texts are for this stage alone.
            cache = cache_folder() / "blocks" if self._objective.reads_blocks else work / "blocks"
            masking, seed = self._recipe.masking, self._seed(PRETRAINED)

            def check(tokenizer: PreTrainedTokenizerBase) -> None:
                check_unknown(texts_of_split(texts, SAMPLED), tokenizer, "the model")
                self._objective.check_texts(self._job(work, PRETRAINED, tokenizer))

            made = pretrain(
                scratch,
                texts,
                texts_hash=content,
                masking=masking,
                seed=seed,
                folder=work,
                cache=cache,
                progress=self._progress,
                check_tokenizer=check,
                callbacks=self._callbacks,
            )
            entry = Entry(
                name=PRETRAINED,
                settings=to_plain(scratch),
                scores={},
                scores_split=TRAIN,
                cost=_NO_COST,
                train_seconds=made.log.train_seconds,
                development_scores={},
                details=StepLog(**made.log.as_dict()),
            )
            return made.model, made.tokenizer, entry

        self._folder.stage(PRETRAINED, make)
        return self._folder.path / PRETRAINED

    def _job(self, work: Path, stage: str, tokenizer: PreTrainedTokenizerBase) -> Job:
        return Job(
            task=self._task,
            objective=self._objective,
            tokenizer=tokenizer,
            truncation=self._recipe.model.plain_truncation,
            seed=self._seed(stage),
            folder=work,
            progress=self._progress,
            callbacks=self._callbacks,
        )

    def _entry(self, name: str, settings: dict[str, Any], made: Compressed, job: Job) -> Entry:
        """Score what a stage made on development and describe it; its cost is measured once it is saved."""
        found = self._objective.score(made.model, dataclasses.replace(job, tokenizer=made.tokenizer), DEVELOPMENT)
        texts_read = dict(made.log.texts_read)
        if found.read is not None:
            if DEVELOPMENT not in texts_read:  # else training has logged it
                log_texts_read(f"{name}, {DEVELOPMENT}", found.read)
            texts_read[DEVELOPMENT] = found.read
        return Entry(
            name=name,
            settings=settings,
            scores=found.scores,
            scores_split=DEVELOPMENT,
            cost=_NO_COST,
            train_seconds=made.log.total_seconds,
            development_scores=found.scores,
            details=made.log,
            texts_read=texts_read,
        )

    def _seed(self, stage: str) -> int:
        return mix_seed(self._recipe.seed, stage)

    def _baseline_and_tokenizer(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        folder = str(self._folder.path / BASELINE)
        return self._objective.load_trained(folder).to(default_device()), load_tokenizer(folder)

    def _warn_if_unchanged(self, name: str, model: PreTrainedModel, smaller: PreTrainedModel) -> None:
        if count_nonzero(smaller) >= count_nonzero(model) and count_bytes(smaller) >= count_bytes(model):
            logger.warning("%s made the model no smaller", name)
