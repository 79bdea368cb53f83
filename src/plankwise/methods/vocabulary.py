"""Vocabulary trimming: tokens that the texts of a task, or of a domain, never use are dropped with their embeddings.

Abdaoui, Pradel, Sigel 2020, "Load What You Need: Smaller Versions of Multilingual BERT", arXiv 2010.05609. Layers and
heads do not change, and a text whose tokens are all kept gets the same logits as before. This saves memory and, in a
language model, the time of the decoder.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import pydantic
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.cache import built_once, cache_folder
from plankwise.core.errors import DataError, MethodError
from plankwise.core.numbers import Rows, VocabularySize
from plankwise.core.recipe import settings
from plankwise.data.corpus.blocks import ids_of, serialized, tokenized
from plankwise.data.corpus.corpus import identity_of
from plankwise.data.corpus.streams import documents_of, find_files, texts_of
from plankwise.data.task import DEVELOPMENT, TRAIN
from plankwise.data.tokenizer.trimming import Counts, always_kept, choose_tokens, count_tokens, trim
from plankwise.data.tokenizer.unknown_tokens import check_unknown
from plankwise.encoder.embeddings import fixed_rows, keep_tokens, with_tokens
from plankwise.encoder.low_rank import has_low_rank
from plankwise.encoder.quantized import refuse_quantized
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, StepLog, planned
from plankwise.training.distillation.config import DistillationConfig, check_taught
from plankwise.training.fit import Training
from plankwise.training.objectives.masked_lm import blocks_for
from plankwise.training.on_task import train_on_task

TASK = "task"  # the source that means the training split
COMPARED_TEXTS = 2000  # of development, at most, that both tokenizers read
PLANNED_TEXTS = 50_000  # at most, that an estimate counts


class VocabularyLog(StepLog):
    """What trimming did.

    Attributes:
        tokens: their number `before`, and how many were `kept`.
        development_texts_unchanged: share of development texts that both tokenizers split into the same tokens.
    """

    tokens: Mapping[str, int]
    development_texts_unchanged: float


@settings(renamed={"most": "max_tokens"})
class TrimmedVocabulary(Method):
    """Settings of vocabulary trimming.

    Attributes:
        minimum_count: how often a token has to occur to stay. Special tokens, single characters and bytes always stay.
        source: the texts to count: `task` for the training split, else files, folders or globs as in a corpus.
        text: key or column that contains the text, in files with keys or columns.
        max_tokens: size of the vocabulary at most; the most frequent tokens stay.
        teacher: what training afterwards learns from, besides the task.
        training: of the whole model afterwards; none by default.
    """

    credentialed_warning: ClassVar[str] = (
        "the trimmed tokenizer will reveal which words occur in the text that is counted"
    )
    method: Literal["vocabulary"] = "vocabulary"
    minimum_count: Rows = 1
    source: str | Annotated[tuple[str, ...], pydantic.Field(min_length=1)] = TASK
    text: str = "text"
    max_tokens: VocabularySize | None = None
    teacher: DistillationConfig | None = None
    training: Training | None = None

    @pydantic.model_validator(mode="after")
    def _teacher_needs_training(self) -> TrimmedVocabulary:
        check_taught(self.teacher, self.training)
        return self

    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Plan the model as far as it is known: with `max_tokens` tokens, or as many as before.

        Raises:
            MethodError: if there are no such files, the tokenizer cannot be trimmed, or `max_tokens` is too small.
        """
        refuse_quantized(spec.config)
        if has_low_rank(spec.config, "embeddings"):
            raise MethodError("the embeddings are of low rank; trim the vocabulary before low_rank")
        self._files()
        if spec.tokenizer is not None:
            # Special tokens, single characters and bytes, and rows that positions are counted from.
            stay = len(always_kept(spec.tokenizer) | fixed_rows(spec.config))
            if self.max_tokens is not None and self.max_tokens < stay:
                raise MethodError(
                    f"max_tokens {self.max_tokens} is too few: {stay} tokens always stay; allowed: {stay} or more"
                )
        config = copy.deepcopy(spec.config)
        config.vocab_size = min(config.vocab_size, self.max_tokens or config.vocab_size)
        return planned(self, spec, config, tokenizer=None, trimmed=True)

    def plan_from_texts(self, spec: ModelSpec, job: Job) -> tuple[ModelSpec, Mapping[str, float]]:
        """Plan with the tokens that occur; of many texts only a sample is counted, which misses some rare tokens."""
        begun, texts, share = time.perf_counter(), *self._some(job)
        counts = count_tokens(texts, job.tokenizer)
        counted = time.perf_counter() - begun
        kept = choose_tokens(job.tokenizer, counts, self.minimum_count, self.max_tokens, fixed_rows(spec.config))
        trimmed = trim(job.tokenizer, kept)
        after = planned(self, spec, with_tokens(spec.config, kept), tokenizer=trimmed, trimmed=True)
        return after, {"counting": counted / share}

    def _some(self, job: Job) -> tuple[Iterator[str], float]:
        """Return up to `PLANNED_TEXTS` texts, and their share of all texts; 1 where this is unknown."""
        files, split = self._files(), job.task.splits[TRAIN]
        if files:
            return (" ".join(each) for each in islice(documents_of(files, self.text), PLANNED_TEXTS)), 1.0
        some = split.select(range(min(len(split), PLANNED_TEXTS)))
        return _texts(some), len(some) / len(split)

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Count tokens, and reduce the tokenizer and the embeddings to those that stay."""
        begun = time.perf_counter()
        counts, examples = self._counts(job)
        kept = choose_tokens(job.tokenizer, counts, self.minimum_count, self.max_tokens, fixed_rows(model.config))
        trimmed = trim(job.tokenizer, kept)
        smaller = keep_tokens(model, kept)
        unchanged = _share_unchanged(job, trimmed, kept)
        seconds, log = {"counting": time.perf_counter() - begun}, StepLog()
        some = _texts(job.task.splits[DEVELOPMENT])
        check_unknown(some, trimmed, "the model with fewer tokens", refuse=False)
        if self.training is not None:
            # A teacher "input" is the trimmed model before training, so that both read the same tokens.
            after, given = dataclasses.replace(job, tokenizer=trimmed), copy.deepcopy(smaller)
            log = train_on_task(smaller, after, self.training, "vocabulary", teacher=self.teacher, given=given)
        whole = VocabularyLog(
            **{**dict(log), "seconds": seconds, "examples": examples},
            tokens={"before": int(model.config.vocab_size), "kept": len(kept)},
            development_texts_unchanged=unchanged,
        )
        return Compressed(smaller.eval(), trimmed, whole)

    def _counts(self, job: Job) -> tuple[Counts, int | None]:
        """Count each token; also return the number of training examples, `None` where other files are counted."""
        files = self._files()
        if files:
            return _count_files(files, self.text, job.tokenizer), None
        if job.objective.reads_blocks:  # their tokens are cached, and training needs them anyway
            blocks = blocks_for(job, TRAIN)
            return _count_blocks(blocks, ids_of(job.tokenizer)), len(blocks)
        split = job.task.splits[TRAIN]
        return count_tokens(_texts(split), job.tokenizer), len(split)

    def _files(self) -> list[Path]:
        if self.source == TASK:
            return []
        try:
            return find_files([self.source] if isinstance(self.source, str) else self.source)
        except DataError as error:
            raise MethodError(f"source: {error}") from None


def _texts(split: Dataset) -> Iterator[str]:
    for column in ("text", "text_pair"):
        if column in split.column_names:
            yield from texts_of(split, column)


def _count_blocks(blocks: Dataset, ids: int) -> Counts:
    counts = np.zeros(ids, dtype=np.int64)
    for part in blocks.with_format("numpy").iter(1000):
        counts += np.bincount(np.asarray(part["input_ids"]).ravel(), minlength=ids)
    return counts


def _count_files(files: list[Path], text: str, tokenizer: PreTrainedTokenizerBase) -> Counts:
    """Count the tokens of files, once: the counts are cached under a hash of the files' content and the tokenizer."""
    what = [text, serialized(tokenizer), *(identity_of(path) for path in files)]
    folder = cache_folder() / "token-counts" / hashlib.sha256(repr(what).encode()).hexdigest()[:32]

    def build(target: Path) -> None:
        lines: Iterable[str] = ("\n".join(document) for document in documents_of(files, text))
        np.save(target / "counts.npy", count_tokens(lines, tokenizer))

    built_once(folder, build)
    counts: Counts = np.load(folder / "counts.npy", allow_pickle=False)
    return counts


def _share_unchanged(job: Job, trimmed: PreTrainedTokenizerBase, kept: list[int]) -> float:
    """Return the share of development texts, of the first few thousand, with the same tokens in both tokenizers."""
    split = job.task.splits[DEVELOPMENT]
    some = split.select(range(min(len(split), COMPARED_TEXTS)))
    # Tokens of the trimmed tokenizer, translated back to the ids they had.
    old = (ids for part in tokenized(_texts(some), job.tokenizer) for ids in part)
    new = (ids for part in tokenized(_texts(some), trimmed) for ids in part)
    return float(np.mean([one == [kept[each] for each in other] for one, other in zip(old, new, strict=True)]))
