"""Reconstruction of a pruned model without training: its output projections are fitted to the unpruned model.

After K-prune (Park, Choi, Kang 2024, arXiv 2308.03449). A sublayer adds X·W + b to the residual stream. Layer by layer
from the first, attention before feed-forward, W and b of the pruned model are chosen so that its stream after the
sublayer is as close as possible to that of the unpruned model on the same tokens. The sublayers below were fitted
before, so higher layers also compensate for what lower ones lost.

The fit is ridge regression around the weights that pruning left: with R the residual of these weights, the change is
(XᵀX + λI)⁻¹XᵀR. In directions that the sample does not contain, the weights stay as they are.
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


class _StopForward(Exception):  # noqa: N818 - not an error
    """Ends a forward pass early: the rest of the network is not needed."""


class _Replay(nn.Module):
    """Stands in for a layer that was run before and returns its stored output; other attributes are the layer's."""

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
        """Return the stored hidden states, [batch, tokens, width]; without any, the input itself."""
        return as_layer_output(self._config, hidden_states if self.hidden is None else self.hidden)


@dataclass
class _SublayerPass:
    """One sublayer's activations on one batch, [tokens, width], without padding.

    Attributes:
        stream: the residual stream that the sublayer adds to.
        inputs: X, the inputs of its output projection.
        outputs: X·W + b, the outputs of that projection.
    """

    stream: Tensor
    inputs: Tensor
    outputs: Tensor


class _LayerRunner:
    """Runs a network one layer at a time; each layer starts from the stored output of the one below on each batch."""

    def __init__(self, network: PreTrainedModel, batches: Sequence[Batch]) -> None:
        self.network, self.layers, self._batches = network, list(layers_of(network)), batches
        self._post_norm = not anatomy_of(network.config).pre_norm
        self._inputs: list[Tensor | None] = [None] * len(batches)  # of the current layer; the first has none stored
        self._outputs: dict[int, Tensor] = {}  # of the current layer, by batch

    def sublayers(self, index: int, number: int, until: int | None = None) -> list[_SublayerPass]:
        """Run batch `number` through layer `index`, or up to the output of attention (0) or feed-forward (1)."""
        stream: list[Tensor] = []
        passes: list[_SublayerPass] = []
        layer, keep = self.layers[index], self._batches[number]["attention_mask"].bool()
        outputs = residual_outputs_of(self.network, layer)

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            stream.append(args[0] if args else kwargs["hidden_states"])

        def between(_: nn.Module, args: tuple[Any, ...]) -> None:
            stream.append(args[0])  # after the norm: what enters the feed-forward part is what its output adds to

        def write(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            before = stream[-1]
            passes.append(_SublayerPass(before[keep].float(), args[0][keep].float(), output[keep].float()))
            if len(passes) - 1 == until:
                raise _StopForward
            if not self._post_norm:
                stream.append(before + output)

        handles = [layer.register_forward_pre_hook(enter, with_kwargs=True)]
        handles += [projection.register_forward_hook(write) for projection in outputs]
        if self._post_norm:
            handles.append(neuron_inputs_of(self.network, layer)[0][0].register_forward_pre_hook(between))
        self._run(index, number, handles)
        return passes

    def advance(self, index: int) -> None:
        """Run layer `index` on every batch that has not passed it, and make its outputs the next layer's inputs."""
        for number in range(len(self._batches)):
            if number not in self._outputs:
                self._run(index, number, [])
        self._inputs = [self._outputs[number] for number in range(len(self._batches))]
        self._outputs = {}

    def _run(self, index: int, number: int, handles: Sequence[Any]) -> None:
        batch, config = self._batches[number], self.network.config

        def leave(_: nn.Module, __: Any, output: Any) -> None:
            self._outputs[number] = hidden_of(output)
            raise _StopForward

        handles = [*handles, self.layers[index].register_forward_hook(leave)]
        # The loop of the encoder runs as usual, so masks and positions are prepared by its own code.
        below = [_Replay(layer, config) for layer in self.layers[:index]]
        if below:
            below[-1].hidden = self._inputs[number]
        set_layers(self.network, nn.ModuleList([*below, *self.layers[index:]]))
        try:
            with suppress(_StopForward):
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
    *,
    ridge: float,
    on_layer: Callable[[int], None] = lambda done: None,
) -> list[float]:
    """Fit the output projections of `pruned` to the stream of `original`, in place.

    Args:
        pruned: by `shapes.prune` from `original`.
        original: the unpruned model; not changed.
        batches: inputs on the models' device, among them `input_ids` and `attention_mask`. The hidden states of one
            layer are held in memory for all batches and both models.
        ridge: λ, as a share of the mean of XᵀX's diagonal.
        on_layer: called with the number of layers that are done.

    Returns:
        For each sublayer, from the first, the share of the squared error that the fit removed.
    """
    was_training = pruned.training
    pruned.eval()
    student, teacher = _LayerRunner(pruned, batches), _LayerRunner(frozen_twin(original).eval(), batches)
    gains = []
    for index in range(len(student.layers)):
        targets = [[each.stream + each.outputs for each in teacher.sublayers(index, n)] for n in range(len(batches))]
        for part in (0, 1):  # attention, feed-forward
            gains.append(_fit(student, index, part, [sums[part] for sums in targets], ridge=ridge))
        for each in (student, teacher):
            each.advance(index)
        on_layer(index + 1)
    pruned.train(was_training)
    return gains


def _fit(student: _LayerRunner, index: int, part: int, targets: Sequence[Tensor], *, ridge: float) -> float:
    """Fit one output projection to the stream wanted after it; return the share of the squared error it removed."""
    projection = residual_outputs_of(student.network, student.layers[index])[part]
    inputs = projection.in_features + (projection.bias is not None)  # the bias is the weight of a constant input
    if inputs == 0:
        return 0.0
    device = projection.weight.device
    # Sums over all tokens of all batches, in fp64: the normal equations square the condition number of X.
    gram = torch.zeros((inputs, inputs), dtype=torch.float64, device=device)
    moment = torch.zeros((inputs, projection.out_features), dtype=torch.float64, device=device)  # XᵀR
    error = 0.0
    for number, target in enumerate(targets):
        found = student.sublayers(index, number, part)[part]
        residual, features = target - (found.stream + found.outputs), found.inputs
        if projection.bias is not None:
            features = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
        gram += features.T @ features
        moment += features.T @ residual
        error += float(residual.double().square().sum())
    change, penalty = _ridge(gram, moment, ridge)
    projection.weight.data += change[: projection.in_features].T.to(projection.weight.dtype)
    if projection.bias is not None:
        projection.bias.data += change[-1].to(projection.bias.dtype)
    # |R − XC|² = |R|² − 2⟨C, XᵀR⟩ + ⟨C, XᵀXC⟩, and XᵀXC = XᵀR − λC by the equation that C solves.
    gained = float((change * moment).sum()) + penalty * float(change.square().sum())
    return gained / error if error > 0 else 0.0


def _ridge(gram: Tensor, moment: Tensor, ridge: float) -> tuple[Tensor, float]:
    """Solve (G + λI) C = XᵀR for C, [inputs, width], with λ = `ridge` times the mean of G's diagonal; return C and λ.

    λ is added to `gram` in place.
    """
    penalty = ridge * max(float(gram.diagonal().mean()), torch.finfo(torch.float32).tiny)
    gram.diagonal().add_(penalty)
    factor, failed = torch.linalg.cholesky_ex(gram)  # fails where λ is below the rounding error of G
    solved: Tensor = torch.linalg.solve(gram, moment) if failed else torch.cholesky_solve(moment, factor)
    return solved, penalty
