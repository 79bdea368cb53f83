"""Predictions for texts in Python: many at once in bounded memory, or one as soon as possible."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
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
from plankwise.deploy.runtimes import MODES, Mode, probabilities
from plankwise.deploy.streaming import Streams, Watch, run_blocks

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
LOOK_AHEAD = 4096
MOST_CHARACTERS = 1_000_000  # of the texts of a block: long ones fill it sooner
PROBED_SECONDS = 1.0
MOST = 100_000_000  # of threads, tokens and texts
SHORTEST = 4  # tokens of an input, as for every reading


@dataclass(frozen=True)
class Prediction:
    """What a model says of one text.

    Attributes:
        labels: the most likely one; of a multi-label model those of probability above one half, any number.
        probabilities: of every label, in the model's order; they add up to 1 unless the model is multi-label.
    """

    labels: tuple[str, ...]
    probabilities: dict[str, float]

    @property
    def label(self) -> str:
        """The one label.

        Raises:
            ValueError: if there are several, or none.
        """
        if len(self.labels) != 1:
            raise ValueError(f"this text has {len(self.labels)} labels; see labels")
        return self.labels[0]


class Predictor:
    """A model with all that it needs for predicting; texts may be pairs.

    A stream of any length takes bounded memory: `buffer_size` texts are tokenized at a time and sorted by length into
    batches, while those before them run. Texts longer than the model reads are cut, or read in windows, as in training.
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
            model: an artefact, a folder or Hub id of a fine-tuned model, or one that is open.
            mode: `throughput` sorts texts into batches; `latency` runs one at a time on all threads.
            threads: cores to use; all by default.
            truncation: how much of a text the model sees; as it was trained or exported by default.
            max_length: tokens of one input, where that alone is to differ.
            tokens_per_batch: padded tokens of a batch, 512 by default; latency mode has none.
            buffer_size: texts that are sorted together, 4096 by default; in latency mode 1.

        Raises:
            ModelError: if the model cannot be read or is no classifier.
            RecipeError: if the reading does not fit it.
            DataError: for another value that is not allowed.
        """
        numbers = {"threads": threads, "tokens_per_batch": tokens_per_batch, "look_ahead": buffer_size}
        for name, value in numbers.items():
            if value is not None and (isinstance(value, bool) or not 1 <= value <= MOST):
                raise DataError(f"{name} is {value}; allowed: 1 or more, up to {MOST:,}")
        if mode == "latency" and tokens_per_batch is not None:
            raise DataError("tokens_per_batch is for throughput mode; latency mode runs one text at a time")
        self.mode: Mode = one_of(mode, MODES, "mode")
        self.source = None if isinstance(model, Deployed) else str(model)
        self.deployed = model if isinstance(model, Deployed) else open_model(model, self.mode, threads)
        manifest = self.deployed.manifest
        self.labels, self.kind = manifest.labels, manifest.kind
        self.truncation = _shortened(truncation or manifest.truncation, max_length, manifest.positions)
        warn_if_other(self.truncation, self.deployed.own, self.source or "the model")
        self.tokens_per_batch = None if mode == "latency" else tokens_per_batch or TOKENS_PER_BATCH
        self.buffer_size = buffer_size or (1 if mode == "latency" else LOOK_AHEAD)
        check_inputs(manifest.inputs)
        self.check_texts(pairs=False)
        self._tokens_are_checked = False
        self._streams = Streams(self.deployed.runtime, manifest.padding, len(self.labels), self.tokens_per_batch)

    def check_texts(self, pairs: bool) -> None:
        """Refuse a reading that leaves no room for text, or for pairs of texts.

        Raises:
            RecipeError: naming the key and what is allowed.
        """
        check_truncation(self.truncation, self.deployed.tokenizer.num_special_tokens_to_add(pairs), pairs)

    def check_tokens(self, texts: list[Text], refuse: bool = True) -> None:
        """Check once, on the first texts, whether the tokenizer knows them.

        Raises:
            ModelError: if more than a half of their tokens is unknown, and that is to be refused.
        """
        if not self._tokens_are_checked:
            self._tokens_are_checked = True
            check_unknown(texts, self.deployed.tokenizer, self.source or "the model", refuse)

    def predict(self, texts: Iterable[Text]) -> Iterator[Prediction]:
        """Predict texts, or pairs of them, in their order.

        They are drawn in another thread, at most a few blocks ahead of the predictions; closing the generator ends it.
        """
        for block in self._probabilities(texts):
            for chosen, row in zip(chosen_labels(block, self.labels, self.kind), block.tolist(), strict=True):
                yield Prediction(chosen, dict(zip(self.labels, row, strict=True)))

    def probabilities(self, texts: Iterable[Text]) -> Floats:
        """Compute the probability of every label, [texts, labels]."""
        return np.concatenate([np.zeros((0, len(self.labels))), *self._probabilities(texts)])

    def logits(self, texts: Iterable[Text]) -> Floats:
        """Compute logits, pooled over windows, [texts, labels]."""
        return np.concatenate([np.zeros((0, len(self.labels))), *self._logits(texts)])

    def encode(self, texts: list[Text], truncate: bool = True) -> Encoded:
        """Tokenize texts; those that are too long get no input unless they may be cut."""
        self.check_tokens(texts, refuse=False)
        manifest = self.deployed.manifest
        return encode_texts(texts, self.deployed.tokenizer, manifest.inputs, self.truncation, truncate)

    def run(
        self, blocks: Iterable[tuple[Encoded, Item]], watch: Watch = lambda texts: None
    ) -> Iterator[tuple[Item, Floats]]:
        """Compute, block by block, the probabilities of the texts that have an input, [texts, labels]."""
        for encoded, passthrough, logits in run_blocks(self._streams, blocks, watch):
            yield passthrough, probabilities(self._pooled(encoded, logits), self.kind)

    def seconds_per_text(self, texts: list[Text]) -> float:
        """Measure roughly what a text costs, in about a second, on a few of them."""
        encoded = self.encode(texts)
        batches, starts = self._streams.batches(encoded), starts_of(encoded.lengths)
        self._streams.logits(encoded, starts, batches[-1])  # warms up on the shortest ones
        inputs, began = 0, perf_counter()
        # From both ends, so that long and short texts have their share where time is up before the last batch.
        for chosen in chain.from_iterable(zip(batches, reversed(batches), strict=True)):
            self._streams.logits(encoded, starts, chosen)
            inputs += len(chosen)
            if perf_counter() - began > PROBED_SECONDS:
                break
        per_input = (perf_counter() - began) / inputs / self.deployed.runtime.streams
        return per_input * len(encoded.lengths) / len(texts)

    def _probabilities(self, texts: Iterable[Text]) -> Iterator[Floats]:
        for logits in self._logits(texts):
            yield probabilities(logits, self.kind)

    def _logits(self, texts: Iterable[Text]) -> Iterator[Floats]:
        if isinstance(texts, str):
            raise DataError("texts is a single string; allowed: an iterable of strings, or of pairs of strings")
        read = TextsRead()
        if isinstance(texts, (list, tuple)) and len(texts) == 1:  # threads would cost more than they gain
            encoded = self.encode(list(self._sound(texts)))
            read += encoded.read
            yield self._pooled(encoded, self._streams.all_logits(encoded))
        else:
            blocks = blocks_of(self._sound(texts), self.buffer_size, characters)
            for encoded, _, logits in run_blocks(self._streams, ((self.encode(block), None) for block in blocks)):
                read += encoded.read
                yield self._pooled(encoded, logits)
        if read.truncated or read.thinned:
            logger.info("%s: %s", self.source or "the model", read)

    def _pooled(self, encoded: Encoded, logits: Floats) -> Floats:
        windows = self.truncation.windows
        return pooled(logits, encoded.inputs_of, None if windows is None else windows.pooling)

    def _sound(self, texts: Iterable[Text]) -> Iterator[Text]:
        """Make sure that texts are texts; they are named by number, never quoted."""
        pairs_fit = False
        for number, text in enumerate(texts, 1):
            pair = isinstance(text, tuple)
            parts = text if isinstance(text, tuple) else (text,)
            if len(parts) != 1 + pair or not all(map(is_text, parts)):
                raise DataError(f"text {number} is no text; allowed: a string, or a tuple of two")
            if pair and not pairs_fit:
                self.check_texts(pairs=True)
                pairs_fit = True
            yield text


def _shortened(truncation: Truncation, max_length: int | None, positions: int | None) -> Truncation:
    if max_length is not None and (isinstance(max_length, bool) or max_length < SHORTEST):
        raise RecipeError(f"max_length is {max_length}; allowed: {SHORTEST} or more")
    changed = truncation if max_length is None else replace(truncation, max_length=max_length)
    check_positions(changed, positions)
    return changed


def chosen_labels(shares: Floats, labels: tuple[str, ...], kind: str) -> list[tuple[str, ...]]:
    """Choose the labels of each text from its probabilities, [texts, labels]."""
    if kind == "multi_label":
        return [tuple(label for label, yes in zip(labels, row, strict=True) if yes) for row in (shares > 0.5).tolist()]
    single = [(label,) for label in labels]
    return [single[index] for index in shares.argmax(axis=1).tolist()] if len(shares) else []


def blocks_of(items: Iterable[Item], most: int, characters: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Group items into lists of at most `most`, fewer where they hold much text.

    Args:
        items: drawn one by one.
        most: items of a block.
        characters: counts those of an item.
    """
    block: list[Item] = []
    held = 0
    for item in items:
        block.append(item)
        held += characters(item)
        if len(block) == most or held >= MOST_CHARACTERS:
            yield block
            block, held = [], 0
    if block:
        yield block


def characters(text: Text) -> int:
    """Count the characters of a text or a pair."""
    return len(text) if isinstance(text, str) else sum(map(len, text))
