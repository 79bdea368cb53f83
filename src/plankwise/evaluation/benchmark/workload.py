"""What models are timed on: the same texts for all, read by each one's own tokenizer and batched as prediction does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tokenizers import Tokenizer

from plankwise.core.errors import DataError
from plankwise.core.records import TextsRead
from plankwise.data.batching.inputs import MASK, Encoded, Inputs, Numbers, Text, encode_texts
from plankwise.data.batching.token_budget import (
    TOKENS_PER_BATCH,
    check_inputs,
    padded_batch,
    starts_of,
    token_budget_batches,
)
from plankwise.data.table_io import read_table
from plankwise.data.text_files import TextFormat, kind_of, read_lines
from plankwise.data.truncation import check_truncation
from plankwise.deploy.deployed import Deployed
from plankwise.deploy.manifest import Manifest

ARRIVAL_BATCH = 8
_PAIR = "text_pair"
_PROBED, _FEWEST_TEXTS = 4, 8


@dataclass(frozen=True)
class Workload:
    """One model's input, batch by batch.

    Attributes:
        batches: what its runtime is called with.
        texts: how many these are; a text in windows is one text.
        lengths: tokens of each input.
        read: how much of the texts that is.
    """

    batches: Sequence[Inputs]
    texts: int
    lengths: Sequence[int]
    read: TextsRead = field(default_factory=TextsRead)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Texts and tokens of each batch."""
        shapes: list[Any] = [batch["input_ids"].shape for batch in self.batches]
        return [(int(texts), int(tokens)) for texts, tokens in shapes]


def texts_of_split(split: Dataset, most: int) -> list[Text]:
    """Choose at most so many texts, or pairs of texts, of a split, evenly."""
    chosen = split.select(evenly(len(split), most))
    texts: list[Text] = list(chosen["text"][:])
    if _PAIR not in chosen.column_names:
        return texts
    return [(str(text), str(other)) for text, other in zip(texts, chosen[_PAIR][:], strict=True)]


def texts_of_file(path: Path, column: str, most: int, form: TextFormat | None = None) -> list[Text]:
    """Choose at most so many texts of a file, evenly: lines of `.txt`, else a column of a table, without empty ones.

    Raises:
        DataError: if it cannot be read, has no such column, or holds no text.
    """
    texts = [text for text in _read(path, column, form or TextFormat()) if isinstance(text, str) and text.strip()]
    if not texts:
        raise DataError(f"{path} holds no text")
    return [texts[index] for index in evenly(len(texts), most)]


def workload(manifest: Manifest, tokenizer: Tokenizer, texts: Sequence[Text], budget: int | None) -> Workload:
    """Tokenize texts for one model and batch them.

    Args:
        manifest: how the model reads.
        tokenizer: its own.
        texts: in order of arrival.
        budget: padded tokens of a batch, after sorting by length, as prediction does it. Without one, texts are taken
            as they come, 8 at a time, each batch padded to its longest: what is done without a thought.

    Raises:
        PlankwiseError: if the reading does not fit the tokenizer or the texts, or the model takes other inputs.
    """
    pairs = isinstance(texts[0], tuple)
    check_truncation(manifest.truncation, tokenizer.num_special_tokens_to_add(pairs), pairs)
    check_inputs(manifest.inputs)
    encoded = encode_texts(texts, tokenizer, manifest.inputs, manifest.truncation)
    groups = _in_order(encoded) if budget is None else token_budget_batches(encoded.lengths, budget)
    starts = starts_of(encoded.lengths)
    batches = [padded_batch(encoded, starts, group, manifest.padding) for group in groups]
    return Workload(batches, len(texts), encoded.lengths.tolist(), encoded.read)


def affordable(opened: Mapping[str, Deployed], texts: Sequence[Text], passes: int, seconds: float) -> int:
    """Count the texts that all models together can run so often in so many seconds, judged by a few; at least 8."""
    few = [texts[index] for index in evenly(len(texts), _PROBED)]
    spent = 0.0
    for each in opened.values():
        batches = workload(each.manifest, each.tokenizer, few, TOKENS_PER_BATCH).batches
        times = []
        for _ in range(2):  # the first prepares the shapes
            start = time.perf_counter()
            for batch in batches:
                each.runtime(batch)
            times.append(time.perf_counter() - start)
        spent += min(times) / len(few)
    return max(_FEWEST_TEXTS, min(len(texts), int(seconds / (passes * max(spent, 1e-9)))))


def one_text(manifest: Manifest, tokenizer: Tokenizer, tokens: int) -> Inputs:
    """Make an input [1, tokens] of random token ids."""
    size = tokenizer.get_vocab_size()
    ids = np.random.default_rng(0).integers(min(5, size - 1), size, (1, tokens), dtype=np.int64)
    fixed = {"input_ids": ids, MASK: np.ones_like(ids)}
    return {name: fixed.get(name, np.zeros_like(ids)) for name in manifest.inputs}


def _in_order(encoded: Encoded) -> list[Numbers]:
    numbers = np.arange(len(encoded.lengths))
    return [numbers[start : start + ARRIVAL_BATCH] for start in range(0, len(numbers), ARRIVAL_BATCH)]


def evenly(total: int, most: int) -> list[int]:
    """Choose at most so many numbers below `total`, from the first to the last."""
    numbers: list[int] = np.linspace(0, total - 1, min(most, total), dtype=int).tolist()
    return numbers


def _read(path: Path, column: str, form: TextFormat) -> list[Any]:
    fault = form.fault(path)
    if fault is not None:
        raise DataError(fault)
    return read_lines(path, form.encoding) if kind_of(path) == ".txt" else read_table(path, [column], form)[column]
