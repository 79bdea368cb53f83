"""Encoded texts to batches of like length, and logits of inputs to those of texts: in numpy, a few calls for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from plankwise.core.errors import ModelError
from plankwise.data.batching.inputs import MASK, PARTS, Encoded, Inputs, Numbers, pad_right
from plankwise.data.truncation import Pooling

Floats = npt.NDArray[np.float64]
TOKENS_PER_BATCH = 512  # padded ones; 256 to 512 are best for int8 on two streams


def check_inputs(names: Sequence[str]) -> None:
    """Refuse a model that takes something else than a tokenizer gives.

    Raises:
        ModelError: naming it.
    """
    for name in names:
        if name not in (*PARTS, MASK):
            raise ModelError(f"the model takes an input '{name}'; allowed: {', '.join((*PARTS, MASK))}")


def cut_batches(lengths: Numbers, budget: int | None) -> list[Numbers]:
    """Group the numbers of inputs, longest first, into batches of at most `budget` padded tokens, at least one input.

    Without a budget each input is a batch by itself, in order. Long ones come first so that streams end together.
    """
    if budget is None:
        return [np.array([number]) for number in range(len(lengths))]
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        end = start + max(1, budget // max(1, int(lengths[order[start]])))
        batches.append(order[start:end])
        start = end
    return batches


def padded_batch(encoded: Encoded, starts: Numbers, chosen: Numbers, padding: Mapping[str, int]) -> Inputs:
    """Pad the chosen inputs on the right to the longest of them, [chosen, longest].

    Args:
        encoded: all inputs.
        starts: where each begins among the tokens, [inputs].
        chosen: numbers of inputs.
        padding: the value that fills up each of the model's inputs, by its name.
    """
    lengths = encoded.lengths[chosen]
    where = np.repeat(starts[chosen] - starts_of(lengths), lengths) + np.arange(lengths.sum())
    return pad_right(lengths, {name: encoded.tokens[name][where] for name in padding if name != MASK}, padding)


def starts_of(lengths: Numbers) -> Numbers:
    """Say where each of some stretches begins that lie one behind the other."""
    starts: Numbers = np.cumsum(lengths) - lengths
    return starts


def pooled(logits: Floats, inputs_of: Numbers, pooling: Pooling | None) -> Floats:
    """Pool the logits of inputs, [inputs, labels], into those of the texts that have any, [texts, labels].

    Without pooling, each text has one input, or none.
    """
    counts = inputs_of[inputs_of > 0]
    if pooling is None or not len(counts):
        return logits
    if pooling == "max":
        largest: Floats = np.maximum.reduceat(logits, starts_of(counts), axis=0)
        return largest
    means: Floats = np.add.reduceat(logits, starts_of(counts), axis=0) / counts[:, None]
    return means
