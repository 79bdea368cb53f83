"""Unstructured sparsity: choosing an exact number of weights, and holding them at zero while a model trains.

The masks depend only on the current weights (or scores) and on the share. A resumed training therefore finds the same
masks from its checkpoint, and an evaluation sees exactly the weights that are kept.
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
        kind: path inside a Transformer layer, or `embeddings`.
        holders: modules that have it as their `weight`; several if it is tied.
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
    """Return the matrices of the linear layers of all Transformer layers, and optionally the word embeddings."""
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
    """Mark the `count` lowest scores over all tensors; among equal ones, those that come first.

    This is a radix selection on the bits of the numbers. It does not sort, is exact on every device, and needs hardly
    any memory beside the marks.

    Args:
        scores: fp32, of any shapes.
        count: number of scores to mark.
        absolute: whether to compare magnitudes.

    Returns:
        A boolean tensor for each tensor of scores, of its shape.
    """
    if count <= 0:
        return [torch.zeros_like(each, dtype=torch.bool) for each in scores]
    left, threshold, whole = count, 0, functools.partial(_ordered_bits, absolute=absolute)
    candidates: list[Tensor] | None = None  # numbers that agree with the threshold in all digits so far
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
    """Return fp32 numbers as integers of the same order, [all numbers]: IEEE 754 bits sort like integers."""
    bits = values.detach().float().reshape(-1).contiguous().view(torch.int32)
    if absolute:
        return bits & 0x7FFFFFFF
    return bits.where(bits >= 0, -(bits & 0x7FFFFFFF))  # maps both +0 and -0 to 0


_DIGITS: tuple[tuple[Callable[[Tensor], Tensor], int, int, int], ...] = (
    (
        lambda key: (key >> 20) + 2048,
        4096,
        1 << 20,
        2048,
    ),  # how to read the digit, number of values, weight, digit of 0
    (lambda key: (key >> 10) & 1023, 1024, 1 << 10, 0),
    (lambda key: key & 1023, 1024, 1, 0),
)


def _mark(scores: Sequence[Tensor], whole: Callable[[Tensor], Tensor], threshold: int, equal: int) -> list[Tensor]:
    """Mark all scores below the threshold, and the first `equal` of those that equal it."""
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
    """A parametrization of one matrix: dropped weights are zero and get no gradient.

    With `learned`, each weight has a score. Its gradient is that of the weight's factor in the forward pass, for
    dropped weights as well.
    """

    def __init__(self, weight: Tensor, learned: bool) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros_like(weight)) if learned else None
        # Not a buffer: every process computes it again at every step, so nothing has to be copied between them.
        self.dropped = torch.zeros_like(weight, dtype=torch.bool)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the sparse matrix, of the shape of `weight`."""
        if self.scores is None:
            return weight.masked_fill(self.dropped, 0.0)
        sparse: Tensor = _StraightThrough.apply(weight, self.scores, self.dropped)  # type: ignore[no-untyped-call]
        return sparse


class _StraightThrough(torch.autograd.Function):
    """Movement pruning (Sanh, Wolf, Rush 2020, arXiv 2005.07683): the scores get the gradient of the mask."""

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
        learned: whether learned scores decide which weights are dropped, instead of magnitudes.
        together: whether all matrices are ranked together, instead of each by itself.
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
        """Drop `share` of the weights for the next step; `then` is the share for an evaluation after it.

        Weights dropped by magnitude become zero at once; otherwise one near the threshold could return at the next
        step. Weights dropped by scores keep their values.
        """
        self._drop(share)
        if not self._learned:
            for weight, masked in zip(self._weights, self._masked, strict=True):
                weight.masked_fill_(masked.dropped, 0.0)
        self._share, self._fresh = then, False

    @torch.no_grad()
    def remove(self, share: float) -> None:
        """Drop `share` of the weights permanently and restore plain modules."""
        self._drop(share)
        self._hook.remove()
        for matrix in self._matrices:
            for holder in matrix.holders:
                parametrize.remove_parametrizations(holder, "weight", leave_parametrized=False)
                if "bias" in holder._parameters:  # a plain module, and its optimizer, have the weight first
                    holder._parameters["bias"] = holder._parameters.pop("bias")
        for weight, masked in zip(self._weights, self._masked, strict=True):
            weight.masked_fill_(masked.dropped, 0.0)

    def _before_forward(self, *_: Any) -> None:
        """Compute new masks before an evaluation, as the last step changed the weights."""
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
    """Return the share of zeros in each kind of matrix, and in `all` of them."""
    counts: dict[str, list[int]] = {}
    for each in matrices:
        for name in (each.kind, "all"):
            count = counts.setdefault(name, [0, 0])
            count[0] += each.weight.numel() - int(each.weight.count_nonzero())
            count[1] += each.weight.numel()
    return {name: zeros / max(1, total) for name, (zeros, total) in counts.items()}
