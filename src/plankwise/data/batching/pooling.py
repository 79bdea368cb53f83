"""Logits of windows to logits of texts: in numpy for scoring and prediction, in torch where gradients are needed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plankwise.data.batching.inputs import Numbers
from plankwise.data.truncation import Pooling

Floats = npt.NDArray[np.float64]


def pool(logits: Tensor, window_of: Tensor, pooling: Pooling) -> Tensor:
    """Pool the logits of windows, [windows, labels], into those of texts, [texts, labels]; differentiable.

    Args:
        logits: the windows of a text are adjacent, texts are in order, and every text has a window.
        window_of: index of each window's text, [windows].
        pooling: mean or maximum; a single window keeps its own logits, bit by bit, either way.
    """
    # Not index_add: on GPUs it adds in any order, and a resumed training would end at other weights.
    parts = torch.split(logits, torch.bincount(window_of).tolist())
    return torch.stack([part.mean(dim=0) if pooling == "mean" else part.amax(dim=0) for part in parts])


def pooled(logits: Floats, inputs_of: Numbers, pooling: Pooling | None) -> Floats:
    """Pool the logits of inputs, [inputs, labels], into those of the texts that have any, [texts, labels].

    The values are those of `pool`, in a few calls for any number of texts.

    Args:
        logits: the inputs of a text are adjacent, and texts are in order.
        inputs_of: number of inputs of each text, [texts]; texts without any are left out.
        pooling: mean or maximum; None where each text has one input or none.
    """
    counts = inputs_of[inputs_of > 0]
    if pooling is None or not len(counts):
        return logits
    starts = np.cumsum(counts) - counts
    if pooling == "max":
        largest: Floats = np.maximum.reduceat(logits, starts, axis=0)
        return largest
    means: Floats = np.add.reduceat(logits, starts, axis=0) / counts[:, None]
    return means
