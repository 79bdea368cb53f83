"""Repair of a pruned model without training: its output projections are fitted, bottom-up, to the unpruned model.

After K-prune (Park, Choi, Kang 2024, arXiv 2308.03449). A sublayer adds X·W + b to the residual stream. Layer by layer,
attention before feed-forward, W and b of the pruned model are chosen such that its stream behind the sublayer comes as
near as it can to that of the unpruned model, on the same tokens, given all that is below and was fitted before. What
lower layers lost is thereby made good in higher ones.

The fit is ridge least squares around the weights that slicing left: with R the residual that these leave, the change is
(XᵀX + λI)⁻¹XᵀR, so that a direction the sample says nothing about stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plankwise.data.batching.inputs import Batch, model_inputs
from plankwise.encoder.anatomy import (
    anatomy_of,
    as_layer_output,
    hidden_of,
    layers_of,
    neuron_inputs_of,
    residual_outputs_of,
    set_layers,
)
from plankwise.encoder.surgery import frozen_twin


class _Reached(Exception):  # noqa: N818 - it says that a place was reached, not that something went wrong
    """Ends a forward pass where nothing behind it is wanted."""


class _Passing(nn.Module):
    """The place of a layer that was run before: it gives what that layer gave, and answers for it otherwise."""

    def __init__(self, layer: nn.Module, config: Any) -> None:
        super().__init__()
        self.layer, self._config = layer, config
        self.hidden: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        """Give the stored hidden states, [batch, tokens, width]; below the last layer run, whatever comes in."""
        return as_layer_output(self._config, hidden_states if self.hidden is None else self.hidden)


@dataclass
class _Seen:
    """What a pass through one layer showed of one sublayer, [tokens, width], padding left out.

    Attributes:
        before: the residual stream that the sublayer adds to.
        given: what its output projection was given.
        written: what that added.
    """

    before: Tensor
    given: Tensor
    written: Tensor


class _Climb:
    """One network, run layer by layer: each pass starts from what the layer below gave on the same batch."""

    def __init__(self, network: PreTrainedModel, batches: Sequence[Batch]) -> None:
        self.network, self.layers, self._batches = network, list(layers_of(network)), batches
        self._post_norm = not anatomy_of(network.config).pre_norm
        self._entering: list[Tensor | None] = [None] * len(batches)
        self._leaving: dict[int, Tensor] = {}

    def sublayers(self, index: int, number: int, until: int | None = None) -> list[_Seen]:
        """Run batch `number` through layer `index`, or until the output of attention (0) or feed-forward (1)."""
        stream: list[Tensor] = []
        seen: list[_Seen] = []
        layer, keep = self.layers[index], self._batches[number]["attention_mask"].bool()
        outputs = residual_outputs_of(self.network, layer)

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            stream.append(args[0] if args else kwargs["hidden_states"])

        def between(_: nn.Module, args: tuple[Any, ...]) -> None:
            stream.append(args[0])  # where norms stand behind the sums, it is what enters the feed-forward part

        def write(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            before = stream[-1]
            seen.append(_Seen(before[keep].float(), args[0][keep].float(), output[keep].float()))
            if len(seen) - 1 == until:
                raise _Reached
            if not self._post_norm:
                stream.append(before + output)

        handles = [layer.register_forward_pre_hook(enter, with_kwargs=True)]
        handles += [projection.register_forward_hook(write) for projection in outputs]
        if self._post_norm:
            handles.append(neuron_inputs_of(self.network, layer)[0][0].register_forward_pre_hook(between))
        self._run(index, number, handles)
        return seen

    def climb(self, index: int) -> None:
        """Run layer `index` on every batch that has not been through all of it, and go on from what it gives."""
        for number in range(len(self._batches)):
            if number not in self._leaving:
                self._run(index, number, [])
        self._entering = [self._leaving[number] for number in range(len(self._batches))]
        self._leaving = {}

    def _run(self, index: int, number: int, handles: Sequence[Any]) -> None:
        batch, config = self._batches[number], self.network.config

        def leave(_: nn.Module, __: Any, output: Any) -> None:
            self._leaving[number] = hidden_of(output)
            raise _Reached

        handles = [*handles, self.layers[index].register_forward_hook(leave)]
        below = [_Passing(layer, config) for layer in self.layers[:index]]
        if below:
            below[-1].hidden = self._entering[number]
        set_layers(self.network, nn.ModuleList([*below, *self.layers[index:]]))
        try:
            with suppress(_Reached):
                self.network.base_model(**model_inputs(self.network.base_model, batch))
        finally:
            set_layers(self.network, nn.ModuleList(self.layers))
            for handle in handles:
                handle.remove()


@torch.no_grad()
def reconstruct(
    pruned: PreTrainedModel,
    original: PreTrainedModel,
    batches: Sequence[Batch],
    ridge: float,
    on_layer: Callable[[int], None] = lambda done: None,
) -> list[float]:
    """Fit the output projections of `pruned` to the stream of `original`, in place.

    Args:
        pruned: by `shapes.prune` from `original`.
        original: unpruned; not changed.
        batches: inputs on the models' device, `input_ids` and `attention_mask` among them. Hidden states of one layer
            are held for all of them, of both models.
        ridge: λ, as a share of the mean of XᵀX's diagonal.
        on_layer: called with how many layers are done.

    Returns:
        For each sublayer, from below, the share of the squared error that the fit took away.
    """
    was_training = pruned.training
    pruned.eval()
    student, teacher = _Climb(pruned, batches), _Climb(frozen_twin(original).eval(), batches)
    gains = []
    for index in range(len(student.layers)):
        wanted = [[each.before + each.written for each in teacher.sublayers(index, n)] for n in range(len(batches))]
        for part in (0, 1):
            gains.append(_fit(student, index, part, [sums[part] for sums in wanted], ridge))
        for each in (student, teacher):
            each.climb(index)
        on_layer(index + 1)
    pruned.train(was_training)
    return gains


def _fit(student: _Climb, index: int, part: int, wanted: Sequence[Tensor], ridge: float) -> float:
    """Fit one output projection to the stream wanted behind it; give the share of the squared error this took away."""
    projection = residual_outputs_of(student.network, student.layers[index])[part]
    inputs = projection.in_features + (projection.bias is not None)
    if inputs == 0:
        return 0.0
    device = projection.weight.device
    gram = torch.zeros((inputs, inputs), dtype=torch.float64, device=device)
    target = torch.zeros((inputs, projection.out_features), dtype=torch.float64, device=device)
    error = 0.0
    for number, stream in enumerate(wanted):
        seen = student.sublayers(index, number, part)[part]
        residual, given = stream - (seen.before + seen.written), seen.given
        if projection.bias is not None:
            given = torch.cat([given, given.new_ones(len(given), 1)], dim=1)
        gram += given.T @ given
        target += given.T @ residual
        error += float(residual.double().square().sum())
    change, penalty = _ridge(gram, target, ridge)
    projection.weight.data += change[: projection.in_features].T.to(projection.weight.dtype)
    if projection.bias is not None:
        projection.bias.data += change[-1].to(projection.bias.dtype)
    # |R − XC|² = |R|² − 2⟨C, XᵀR⟩ + ⟨C, XᵀXC⟩, and XᵀXC is XᵀR − λC by the very equation that gave C.
    gained = float((change * target).sum()) + penalty * float(change.square().sum())
    return gained / error if error > 0 else 0.0


def _ridge(gram: Tensor, target: Tensor, ridge: float) -> tuple[Tensor, float]:
    """Solve (G + λI) change = target, [inputs, width], with λ relative to the mean of G's diagonal; also give λ."""
    penalty = ridge * max(float(gram.diagonal().mean()), torch.finfo(torch.float32).tiny)
    gram.diagonal().add_(penalty)
    factor, failed = torch.linalg.cholesky_ex(gram)  # it fails where λ is below the rounding of G
    solved: Tensor = torch.linalg.solve(gram, target) if failed else torch.cholesky_solve(target, factor)
    return solved, penalty
