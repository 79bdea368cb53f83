"""What models are timed on: the same texts for all, read by each one's own tokenizer and batched as prediction does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tokenizers import Tokenizer

from plankwise.core.errors import DataError, suggest
from plankwise.data.reading import check_reading
from plankwise.data.tables import read_table
from plankwise.deploy.batches import (
    MASK,
    Encoded,
    Numbers,
    Text,
    check_inputs,
    cut_batches,
    encode_texts,
    padded_batch,
    starts_of,
)
from plankwise.deploy.manifest import Manifest
from plankwise.deploy.runtimes import Inputs

ARRIVAL_BATCH = 8
_PAIR = "text_pair"


@dataclass(frozen=True)
class Workload:
    """One model's input, batch by batch.

    Attributes:
        batches: what its runtime is called with.
        texts: how many these are; a text in windows is one text.
        lengths: tokens of each input.
    """

    batches: Sequence[Inputs]
    texts: int
    lengths: Sequence[int]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Texts and tokens of each batch."""
        shapes: list[Any] = [batch["input_ids"].shape for batch in self.batches]
        return [(int(texts), int(tokens)) for texts, tokens in shapes]


def texts_of_split(split: Dataset, most: int) -> list[Text]:
    """Choose at most so many texts, or pairs of texts, of a split, evenly."""
    chosen = split.select(_evenly(len(split), most))
    texts: list[Text] = list(chosen["text"][:])
    if _PAIR not in chosen.column_names:
        return texts
    return [(str(text), str(other)) for text, other in zip(texts, chosen[_PAIR][:], strict=True)]


def texts_of_file(path: Path, column: str, most: int) -> list[Text]:
    """Choose at most so many texts of a file, evenly: lines of `.txt`, else a column of a table, without empty ones.

    Raises:
        DataError: if it cannot be read, has no such column, or holds no text.
    """
    texts = [text for text in _read(path, column) if isinstance(text, str) and text.strip()]
    if not texts:
        raise DataError(f"{path} holds no text")
    return [texts[index] for index in _evenly(len(texts), most)]


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
    check_reading(manifest.reading, tokenizer.num_special_tokens_to_add(pairs), pairs)
    check_inputs(manifest.inputs)
    encoded = encode_texts(texts, tokenizer, manifest.inputs, manifest.reading)
    groups = _in_order(encoded) if budget is None else cut_batches(encoded.lengths, budget)
    starts = starts_of(encoded.lengths)
    batches = [padded_batch(encoded, starts, group, manifest.padding) for group in groups]
    return Workload(batches, len(texts), encoded.lengths.tolist())


def one_text(manifest: Manifest, tokenizer: Tokenizer, tokens: int) -> Inputs:
    """Make an input [1, tokens] of random token ids."""
    size = tokenizer.get_vocab_size()
    ids = np.random.default_rng(0).integers(min(5, size - 1), size, (1, tokens), dtype=np.int64)
    fixed = {"input_ids": ids, MASK: np.ones_like(ids)}
    return {name: fixed.get(name, np.zeros_like(ids)) for name in manifest.inputs}


def _in_order(encoded: Encoded) -> list[Numbers]:
    numbers = np.arange(len(encoded.lengths))
    return [numbers[start : start + ARRIVAL_BATCH] for start in range(0, len(numbers), ARRIVAL_BATCH)]


def _evenly(total: int, most: int) -> list[int]:
    numbers: list[int] = np.linspace(0, total - 1, min(most, total), dtype=int).tolist()
    return numbers


def _read(path: Path, column: str) -> list[Any]:
    if path.suffix.lower() != ".txt":
        frame = read_table(path)
        if column not in frame.columns:
            raise DataError(f"{path}: there is no column '{column}'; {suggest(column, frame.columns)}")
        return list(frame[column])
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from None
