"""Single weights set to zero: which ones, exactly so many, and held at zero while a model trains.

The masks follow from the weights (or scores) of the moment and from a share, by nothing else. So a training that was
killed finds the same ones again from its checkpoint, and an evaluation judges the very weights that are kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from plankwise.encoder.anatomy import layers_of


@dataclass(frozen=True)
class Matrix:
    """A weight matrix that may lose single weights.

    Attributes:
        kind: its path inside a Transformer layer, or `embeddings`.
        holders: the modules that hold it as their `weight`; several where it is tied.
    """

    kind: str
    holders: tuple[nn.Module, ...]

    @property
    def weight(self) -> Tensor:
        """The matrix as the model uses it."""
        weight = self.holders[0].weight
        assert isinstance(weight, Tensor)
        return weight


def matrices_of(model: PreTrainedModel, embeddings: bool = False) -> list[Matrix]:
    """Give the linear layers' matrices of all Transformer layers, and if asked for the table of word embeddings."""
    found: list[tuple[str, nn.Linear | nn.Embedding]] = [
        (kind, module)
        for layer in layers_of(model)
        for kind, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    ]
    if embeddings:
        inputs = model.get_input_embeddings().modules()
        found += [("embeddings", module) for module in inputs if isinstance(module, (nn.Embedding, nn.Linear))]
    holders: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.Linear)):
            holders.setdefault(id(module.weight), []).append(module)
    return [Matrix(kind, tuple(holders[id(module.weight)])) for kind, module in found]


def lowest(scores: Sequence[Tensor], count: int, absolute: bool = False) -> list[Tensor]:
    """Mark the `count` lowest of all scores together; of equal ones those that come first.

    A radix selection on the bits of the numbers: it sorts nothing, is exact on any device, and holds next to nothing
    beside the marks.

    Args:
        scores: fp32, of any shapes.
        count: how many to mark.
        absolute: whether signs do not count.

    Returns:
        For each tensor of scores a boolean one of its shape.
    """
    if count <= 0:
        return [torch.zeros_like(each, dtype=torch.bool) for each in scores]
    left, threshold, whole = count, 0, functools.partial(_ordered_bits, absolute=absolute)
    candidates: list[Tensor] | None = None  # only those that the digits so far leave open
    for digit_of, values, weight, offset in _DIGITS:
        parts = candidates if candidates is not None else map(whole, scores)
        ends = sum(torch.bincount(digit_of(each), minlength=values) for each in parts).cumsum(0).tolist()  # type: ignore[union-attr]
        digit = next(at for at, end in enumerate(ends) if end >= left)
        left -= ends[digit - 1] if digit else 0
        threshold += (digit - offset) * weight
        parts = candidates if candidates is not None else map(whole, scores)
        candidates = [each[digit_of(each) == digit] for each in parts]
    return _mark(scores, whole, threshold, left)


def _ordered_bits(values: Tensor, absolute: bool) -> Tensor:
    """Read fp32 numbers as integers of the same order, [all numbers]."""
    bits = values.detach().float().reshape(-1).contiguous().view(torch.int32)
    if absolute:
        return bits & 0x7FFFFFFF
    return bits.where(bits >= 0, -(bits & 0x7FFFFFFF))  # both zeros are 0


_DIGITS: tuple[tuple[Callable[[Tensor], Tensor], int, int, int], ...] = (
    (lambda key: (key >> 20) + 2048, 4096, 1 << 20, 2048),  # how to read it, its values, what one counts, what 0 is
    (lambda key: (key >> 10) & 1023, 1024, 1 << 10, 0),
    (lambda key: key & 1023, 1024, 1, 0),
)


def _mark(scores: Sequence[Tensor], whole: Callable[[Tensor], Tensor], threshold: int, equal: int) -> list[Tensor]:
    """Mark all below the threshold, and the first `equal` of those that stand on it."""
    marks = []
    for each in scores:
        key = whole(each)
        mark = key < threshold
        on_it = (key == threshold).nonzero()[:equal, 0]
        mark[on_it] = True
        equal -= len(on_it)
        marks.append(mark.view(each.shape))
    return marks


class Masked(nn.Module):
    """A parametrization of one matrix: what is dropped is zero, and gets no gradient.

    With `learned`, each weight has a score whose gradient is that of its factor in the forward pass, dropped or not.
    """

    def __init__(self, weight: Tensor, learned: bool) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros_like(weight)) if learned else None
        # No buffer: it is made anew at every step, on every process, and needs no copying between them.
        self.dropped = torch.zeros_like(weight, dtype=torch.bool)

    def forward(self, weight: Tensor) -> Tensor:
        """Give the sparse matrix."""
        if self.scores is None:
            return weight.masked_fill(self.dropped, 0.0)
        sparse: Tensor = _StraightThrough.apply(weight, self.scores, self.dropped)  # type: ignore[no-untyped-call]
        return sparse


class _StraightThrough(torch.autograd.Function):
    """Sanh, Wolf, Rush 2020: the mask's gradient reaches the scores as if it were the scores themselves."""

    @staticmethod
    def forward(context: Any, weight: Tensor, scores: Tensor, dropped: Tensor) -> Tensor:
        context.save_for_backward(weight, dropped)
        return weight.masked_fill(dropped, 0.0)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, dropped = context.saved_tensors
        return gradients[0].masked_fill(dropped, 0.0), gradients[0] * weight, None


class Masks:
    """The masks of a model's matrices while it trains.

    Args:
        model: changed in place; `remove` makes it plain again.
        matrices: of this model.
        learned: whether scores decide which weights are dropped, and not their magnitude.
        together: whether all matrices are ranked together, and not each by itself.
    """

    def __init__(self, model: PreTrainedModel, matrices: Sequence[Matrix], learned: bool, together: bool) -> None:
        self._model, self._matrices, self._together, self._learned = model, matrices, together, learned
        self._masked = [Masked(each.weight, learned) for each in matrices]
        self._weights = [each.weight for each in matrices]
        self._share, self._fresh = 0.0, True
        for matrix, masked in zip(matrices, self._masked, strict=True):
            for holder in matrix.holders:
                parametrize.register_parametrization(holder, "weight", masked)
        self._hook = model.register_forward_pre_hook(self._before_forward)

    @torch.no_grad()
    def set(self, share: float, then: float) -> None:
        """Drop `share` of the weights for the step to come; `then` is the share that an evaluation after it sees.

        Weights dropped by magnitude become zero at once, so that none comes back by a hair's breadth; those dropped
        by their scores keep their values.
        """
        self._drop(share)
        if not self._learned:
            for weight, masked in zip(self._weights, self._masked, strict=True):
                weight.masked_fill_(masked.dropped, 0.0)
        self._share, self._fresh = then, False

    @torch.no_grad()
    def remove(self, share: float) -> None:
        """Drop `share` of the weights for good and leave plain modules behind."""
        self._drop(share)
        self._hook.remove()
        for matrix in self._matrices:
            for holder in matrix.holders:
                parametrize.remove_parametrizations(holder, "weight", leave_parametrized=False)
                if "bias" in holder._parameters:  # weights come first in a plain module, and in its optimizer
                    holder._parameters["bias"] = holder._parameters.pop("bias")
        for weight, masked in zip(self._weights, self._masked, strict=True):
            weight.masked_fill_(masked.dropped, 0.0)

    def _before_forward(self, *_: Any) -> None:
        """The step before changed the weights, so an evaluation begins with masks of its own."""
        if not self._model.training and not self._fresh:
            with torch.no_grad():
                self._drop(self._share)
            self._fresh = True

    def _drop(self, share: float) -> None:
        scores = [
            weight if masked.scores is None else masked.scores
            for weight, masked in zip(self._weights, self._masked, strict=True)
        ]
        for group in self._groups():
            numbers = [scores[at] for at in group]
            count = round(share * sum(each.numel() for each in numbers))
            for at, dropped in zip(group, lowest(numbers, count, absolute=not self._learned), strict=True):
                self._masked[at].dropped = dropped

    def _groups(self) -> Iterator[list[int]]:
        each = range(len(self._matrices))
        yield from [list(each)] if self._together else ([at] for at in each)


def sparsity_of(matrices: Sequence[Matrix]) -> dict[str, float]:
    """Give the share of zeros of each kind of matrix, and of `all`."""
    counts: dict[str, list[int]] = {}
    for each in matrices:
        for name in (each.kind, "all"):
            count = counts.setdefault(name, [0, 0])
            count[0] += each.weight.numel() - int(each.weight.count_nonzero())
            count[1] += each.weight.numel()
    return {name: zeros / max(1, total) for name, (zeros, total) in counts.items()}
