"""Batches of inputs of similar length, within a budget of padded tokens: one way for scoring, timing and prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from plankwise.core.errors import ModelError
from plankwise.data.batching.inputs import MASK, PARTS, Encoded, Inputs, Numbers, pad_right

TOKENS_PER_BATCH = 512  # padded tokens of a batch of prediction; 256 to 512 are best for int8 on two streams


def check_inputs(names: Sequence[str]) -> None:
    """Refuse a model that takes an input which tokenizers do not make.

    Raises:
        ModelError: naming the input.
    """
    for name in names:
        if name not in (*PARTS, MASK):
            raise ModelError(f"the model takes an input '{name}'; allowed: {', '.join((*PARTS, MASK))}")


def token_budget_batches(lengths: Numbers | Sequence[int], budget: int | None) -> list[Numbers]:
    """Group the indices of inputs, longest first, into batches of at most `budget` padded tokens.

    A batch holds one input at least, whatever its length. Equal lengths stay in order, so that the same inputs always
    share the same batches.

    Args:
        lengths: tokens of each input, [inputs].
        budget: rows of a batch times its longest row. Without one, each input is a batch by itself, in order.

    Returns:
        Indices of the inputs of each batch. The longest come first: out of memory shows at once, and streams that run
        batches side by side end together.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if budget is None:
        return [np.array([index]) for index in range(len(lengths))]
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
        chosen: indices of inputs.
        padding: the value that fills up each of the model's inputs, by its name.
    """
    lengths = encoded.lengths[chosen]
    where = np.repeat(starts[chosen] - starts_of(lengths), lengths) + np.arange(lengths.sum())
    return pad_right(lengths, {name: encoded.tokens[name][where] for name in padding if name != MASK}, padding)


def starts_of(lengths: Numbers) -> Numbers:
    """Return where each of some adjacent stretches begins, given their lengths."""
    starts: Numbers = np.cumsum(lengths) - lengths
    return starts
