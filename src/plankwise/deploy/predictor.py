"""The predictor: labels and probabilities of many texts in bounded memory, or of one as soon as possible."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np

from plankwise.core.errors import DataError, RecipeError, one_of
from plankwise.core.records import TextsRead
from plankwise.data.batching.inputs import Encoded, Text, encode_texts
from plankwise.data.batching.pooling import Floats, pooled
from plankwise.data.batching.token_budget import TOKENS_PER_BATCH, check_inputs, starts_of
from plankwise.data.table_io import is_text
from plankwise.data.tokenizer.unknown_tokens import check_unknown
from plankwise.data.truncation import Truncation, check_positions, check_truncation, warn_if_other
from plankwise.deploy.deployed import Deployed, open_model
from plankwise.deploy.runtimes import MODES, Mode
from plankwise.deploy.streaming import BatchRunner, ProgressCallback, run_blocks
from plankwise.encoder.score_head import SCORE

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
BUFFER_SIZE = 4096  # texts
MAX_CHARACTERS = 1_000_000  # of the texts of a block: a block of long texts has fewer of them
PROBED_SECONDS = 1.0
MAX_NUMBER = 100_000_000  # of threads, tokens and texts
MIN_LENGTH = 4  # tokens of an input, as in a recipe


@dataclass(frozen=True)
class Prediction:
    """The answer of a model for one text.

    Attributes:
        labels: the most probable label; from a multi-label model, all labels of probability above one half; from a
            model that scores, none.
        probabilities: of every label, in the model's order. They add up to 1 unless the model is multi-label. From a
            model that scores, `score` alone, of any size.
    """

    labels: tuple[str, ...]
    probabilities: dict[str, float]

    @property
    def label(self) -> str:
        """The only label.

        Raises:
            ValueError: if there is none, or more than one.
        """
        if len(self.labels) != 1:
            raise ValueError(f"this text has {len(self.labels)} labels; see the attribute labels")
        return self.labels[0]

    @property
    def score(self) -> float:
        """The number that a model with one output answers.

        Raises:
            ValueError: if the model chooses labels.
        """
        if list(self.probabilities) != [SCORE]:
            raise ValueError("this text has labels, and no score; see the attribute labels")
        return self.probabilities[SCORE]


class Predictor:
    """Predicts texts, or pairs of texts, with one model.

    Memory is bounded, however many texts there are: `buffer_size` texts at a time are tokenized and sorted by length
    into batches, while the texts before them run. Texts that are too long are cut, or read in windows, as in training.
    """

    def __init__(
        self,
        model: str | Path | Deployed,
        *,
        mode: str = "throughput",
        threads: int | None = None,
        truncation: Truncation | None = None,
        max_length: int | None = None,
        tokens_per_batch: int | None = None,
        buffer_size: int | None = None,
    ) -> None:
        """Open a model.

        Args:
            model: an artefact, a folder or Hub id of a fine-tuned model, or a model that is open already.
            mode: `throughput` sorts texts into batches; `latency` runs one text at a time on all threads.
            threads: cores to use; all by default.
            truncation: how much of a text the model sees; by default as it was trained or exported.
            max_length: tokens of one input, to change only this part of the truncation.
            tokens_per_batch: padded tokens of a batch, 512 by default; not for latency mode.
            buffer_size: number of texts that are sorted together, by default 4096, and 1 in latency mode.

        Raises:
            ModelError: if the model cannot be read, or neither classifies nor scores.
            RecipeError: if the truncation does not fit the model.
            DataError: if another value is not allowed.
        """
        _check_numbers(threads=threads, tokens_per_batch=tokens_per_batch, buffer_size=buffer_size)
        if mode == "latency" and tokens_per_batch is not None:
            raise DataError("tokens_per_batch is for throughput mode; latency mode runs one text at a time")
        self.mode: Mode = one_of(mode, MODES, "mode")
        self.source = None if isinstance(model, Deployed) else str(model)
        self.deployed = model if isinstance(model, Deployed) else open_model(model, self.mode, threads)
        manifest = self.deployed.manifest
        self.labels, self.answer, self.kind = manifest.labels, manifest.answer, manifest.kind
        self.truncation = _with_length(truncation or manifest.truncation, max_length, manifest.positions)
        warn_if_other(self.truncation, self.deployed.own, self.source or "the model")
        self.tokens_per_batch = None if mode == "latency" else tokens_per_batch or TOKENS_PER_BATCH
        self.buffer_size = buffer_size or (1 if mode == "latency" else BUFFER_SIZE)
        check_inputs(manifest.inputs)
        self.check_texts(pairs=False)
        self._tokens_are_checked = False
        self._runner = BatchRunner(self.deployed.runtime, manifest.padding, len(self.labels), self.tokens_per_batch)

    def check_texts(self, pairs: bool) -> None:
        """Refuse a truncation that leaves no room for text, or for pairs of texts.

        Raises:
            RecipeError: with the key and the allowed values.
        """
        check_truncation(self.truncation, self.deployed.tokenizer.num_special_tokens_to_add(pairs), pairs)

    def check_tokens(self, texts: list[Text], refuse: bool = True) -> None:
        """Check the share of tokens unknown to the tokenizer, in the first texts this is called with.

        Raises:
            ModelError: if `refuse` is set and more than half of the tokens are unknown.
        """
        if not self._tokens_are_checked:
            self._tokens_are_checked = True
            check_unknown(texts, self.deployed.tokenizer, self.source or "the model", refuse)

    def predict(self, texts: Iterable[Text]) -> Generator[Prediction, None, None]:
        """Predict texts, or pairs of texts, in order.

        Another thread draws the texts, at most a few blocks ahead of the predictions. It ends when the generator is
        closed.
        """
        for block in self._probabilities(texts):
            for chosen, row in zip(self.answer.choose(block, self.labels), block.tolist(), strict=True):
                yield Prediction(chosen, dict(zip(self.labels, row, strict=True)))

    def probabilities(self, texts: Iterable[Text]) -> Floats:
        """Compute the probability of every label, [texts, labels]."""
        return np.concatenate([np.zeros((0, len(self.labels))), *self._probabilities(texts)])

    def logits(self, texts: Iterable[Text]) -> Floats:
        """Compute logits, pooled over windows, [texts, labels]."""
        return np.concatenate([np.zeros((0, len(self.labels))), *self._logits(texts)])

    def encode(self, texts: list[Text], truncate: bool = True) -> Encoded:
        """Tokenize texts; without `truncate`, texts that are too long get no input."""
        self.check_tokens(texts, refuse=False)
        manifest = self.deployed.manifest
        return encode_texts(texts, self.deployed.tokenizer, manifest.inputs, self.truncation, truncate)

    def run(
        self, blocks: Iterable[tuple[Encoded, Item]], on_progress: ProgressCallback = lambda texts: None
    ) -> Iterator[tuple[Item, Floats]]:
        """Compute, block by block, the probabilities of the texts that have an input, [texts, labels]."""
        for encoded, passthrough, logits in run_blocks(self._runner, blocks, on_progress):
            yield passthrough, self.answer.probabilities(self._pooled(encoded, logits))

    def seconds_per_text(self, texts: list[Text]) -> float:
        """Estimate the time of a text from a few of them, in about a second."""
        encoded = self.encode(texts)
        batches, starts = self._runner.batches(encoded), starts_of(encoded.lengths)
        self._runner.logits(encoded, starts, batches[-1])  # warm-up, on the shortest texts
        inputs, began = 0, perf_counter()
        # From both ends, so that long and short texts are both counted if time is up before the last batch.
        for chosen in chain.from_iterable(zip(batches, reversed(batches), strict=True)):
            self._runner.logits(encoded, starts, chosen)
            inputs += len(chosen)
            if perf_counter() - began > PROBED_SECONDS:
                break
        per_input = (perf_counter() - began) / inputs / self.deployed.runtime.streams
        return per_input * len(encoded.lengths) / len(texts)

    def _probabilities(self, texts: Iterable[Text]) -> Iterator[Floats]:
        for logits in self._logits(texts):
            yield self.answer.probabilities(logits)

    def _logits(self, texts: Iterable[Text]) -> Iterator[Floats]:
        if isinstance(texts, str):
            raise DataError("texts is a single string; allowed: an iterable of strings, or of pairs of strings")
        read = TextsRead()
        if isinstance(texts, (list, tuple)) and len(texts) == 1:  # starting threads would cost more than it gains
            encoded = self.encode(list(self._checked(texts)))
            read += encoded.read
            yield self._pooled(encoded, self._runner.all_logits(encoded))
        else:
            blocks = blocks_of(self._checked(texts), self.buffer_size, count_characters)
            for encoded, _, logits in run_blocks(self._runner, ((self.encode(block), None) for block in blocks)):
                read += encoded.read
                yield self._pooled(encoded, logits)
        if read.truncated or read.thinned:
            logger.info("%s: %s", self.source or "the model", read)

    def _pooled(self, encoded: Encoded, logits: Floats) -> Floats:
        windows = self.truncation.windows
        return pooled(logits, encoded.inputs_of, None if windows is None else windows.pooling)

    def _checked(self, texts: Iterable[Text]) -> Iterator[Text]:
        """Pass texts on, and refuse what is not text by its number; texts are never quoted."""
        pairs_fit = False
        for number, text in enumerate(texts, 1):
            pair = isinstance(text, tuple)
            parts = text if isinstance(text, tuple) else (text,)
            if len(parts) != 1 + pair or not all(map(is_text, parts)):
                raise DataError(f"text {number} is not text; allowed: a string, or a tuple of two")
            if pair and not pairs_fit:
                self.check_texts(pairs=True)
                pairs_fit = True
            yield text


def _check_numbers(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not 1 <= value <= MAX_NUMBER):
            raise DataError(f"{name} is {value}; allowed: 1 or more, up to {MAX_NUMBER:,}")


def _with_length(truncation: Truncation, max_length: int | None, positions: int | None) -> Truncation:
    if max_length is not None and (isinstance(max_length, bool) or max_length < MIN_LENGTH):
        raise RecipeError(f"max_length is {max_length}; allowed: {MIN_LENGTH} or more")
    changed = truncation if max_length is None else replace(truncation, max_length=max_length)
    check_positions(changed, positions)
    return changed


def blocks_of(items: Iterable[Item], max_items: int, count: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Group items into blocks of at most `max_items`, fewer if they hold much text.

    Args:
        items: drawn one by one.
        max_items: of a block.
        count: returns the characters of an item.
    """
    block: list[Item] = []
    held = 0
    for item in items:
        block.append(item)
        held += count(item)
        if len(block) == max_items or held >= MAX_CHARACTERS:
            yield block
            block, held = [], 0
    if block:
        yield block


def count_characters(text: Text) -> int:
    """Count the characters of a text or a pair."""
    return len(text) if isinstance(text, str) else sum(map(len, text))
