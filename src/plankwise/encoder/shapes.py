"""The heads and neurons of each layer: stored in the configuration, removed physically, rebuilt on loading.

A configuration of Transformers has one size for all layers. Where sizes differ, they are stored under the key
`plankwise`: for each layer the remaining heads, by their number in the original layer, and the number of neurons.
A model with equal layers that have all their heads needs no such key and loads plainly.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.errors import MethodError, ModelError
from plankwise.encoder.anatomy import anatomy_of, head_inputs_of, layers_of, neuron_inputs_of, residual_outputs_of
from plankwise.encoder.configuration import OWN, head_size, head_units, neurons_key
from plankwise.encoder.low_rank import install, ranks_of
from plankwise.encoder.quantized import install as install_quantized
from plankwise.encoder.quantized import quantized_of

KEY = OWN


@dataclass(frozen=True)
class LayerShape:
    """The sizes of one layer.

    Attributes:
        heads: remaining heads, numbered as in the unpruned layer; groups of heads where they share keys and values.
        neurons: number of remaining feed-forward neurons.
    """

    heads: tuple[int, ...]
    neurons: int


def full_shape(config: PreTrainedConfig) -> LayerShape:
    """Return the sizes of a layer according to the plain configuration."""
    return LayerShape(tuple(range(head_units(config))), int(getattr(config, neurons_key(config))))


def shapes_of(config: PreTrainedConfig) -> tuple[LayerShape, ...]:
    """Return the sizes of each layer."""
    stored = (getattr(config, KEY, None) or {}).get("layers")
    if stored is None:
        return (full_shape(config),) * int(config.num_hidden_layers)
    return tuple(LayerShape(tuple(each["heads"]), each["neurons"]) for each in stored)


def check_shapes(config: PreTrainedConfig) -> None:
    """Check layer sizes that were read from a file against the rest of the configuration.

    Raises:
        ModelError: if they are malformed, or no model of this configuration can have them.
    """
    own = getattr(config, KEY, None) or {}
    if "layers" not in own:
        return
    stored, depth, full = own["layers"], int(config.num_hidden_layers), full_shape(config)
    if not isinstance(stored, list) or len(stored) != depth:
        has = len(stored) if isinstance(stored, list) else f"'{stored}'"
        raise ModelError(f"'{KEY}' in the configuration: layers: the model has {depth}, sizes are given for {has}")
    for index, each in enumerate(stored):
        fault = _fault(each, full)
        if fault:
            raise ModelError(f"'{KEY}' in the configuration: layer {index}: {fault}")


def _fault(stored: Any, full: LayerShape) -> str | None:
    """Return what is wrong with the stored sizes of one layer, or `None`."""
    if not isinstance(stored, dict) or not {"heads", "neurons"} <= stored.keys():
        return f"needs heads and neurons, not {str(stored)[:60]}"
    heads, neurons, units = stored["heads"], stored["neurons"], len(full.heads)
    if not isinstance(heads, list) or any(type(each) is not int for each in heads) or not _ascends(heads, units):
        return f"heads {str(heads)[:60]}; allowed: numbers from 0 to {units - 1}, in ascending order"
    if type(neurons) is not int or not 0 <= neurons <= full.neurons:
        return f"neurons {str(neurons)[:60]}; allowed: 0 to {full.neurons}"
    return None


def is_plain(config: PreTrainedConfig) -> bool:
    """Return whether plain Transformers can rebuild a model of this configuration."""
    return not getattr(config, KEY, None)


def with_shapes(config: PreTrainedConfig, shapes: Sequence[LayerShape]) -> PreTrainedConfig:
    """Return a copy of `config` for these layer sizes, which is plain where a plain configuration can hold them."""
    changed = copy.deepcopy(config)
    own = dict(getattr(config, KEY, None) or {})
    own.pop("layers", None)
    first, full = shapes[0], full_shape(config)
    alike = all(shape.neurons == first.neurons and len(shape.heads) == len(first.heads) for shape in shapes)
    whole = first.heads == full.heads or (anatomy_of(config).heads_are_configured and bool(first.heads))
    if alike and whole and first.neurons:
        _set_sizes(changed, first, full)
    else:
        own["layers"] = [{"heads": list(shape.heads), "neurons": shape.neurons} for shape in shapes]
    if own:
        setattr(changed, KEY, own)
    elif hasattr(changed, KEY):
        delattr(changed, KEY)
    return changed


def _set_sizes(config: PreTrainedConfig, shape: LayerShape, full: LayerShape) -> None:
    """Set the plain keys of a configuration with equal layers."""
    setattr(config, neurons_key(config), shape.neurons)
    if shape.heads != full.heads:
        queries = int(config.num_attention_heads) // len(full.heads)
        config.head_dim = head_size(config)  # first: by default it follows from the number of heads
        config.num_attention_heads = queries * len(shape.heads)
        config.num_key_value_heads = len(shape.heads)


def new_model(kind: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """Return a model with any layer sizes and with random weights from the current torch seed."""
    model = kind(copy.deepcopy(config))
    if not is_plain(config):
        for layer, shape in zip(layers_of(model), shapes_of(config), strict=True):
            cut_layer(model, layer, shape.heads, range(shape.neurons))
        # In this order: factors have the sizes of pruned matrices, and int8 matrices those of the factors.
        install(model, ranks_of(config))
        install_quantized(model, quantized_of(config))
    return model


def prune(model: PreTrainedModel, heads: Sequence[Sequence[int]], neurons: Sequence[Sequence[int]]) -> PreTrainedModel:
    """Return a model with only these heads and neurons in each layer; `model` is not changed.

    It computes what `model` computes when the inputs of both residual outputs that come from the other heads and
    neurons are zero.

    Args:
        model: any supported encoder.
        heads: to keep in each layer, as positions among its current heads, in ascending order.
        neurons: the same for neurons.

    Raises:
        MethodError: if a layer lacks a head or neuron that it should keep.
    """
    smaller = copy.deepcopy(model)
    before, after = shapes_of(model.config), list[LayerShape]()
    for layer, shape, kept, stay in zip(layers_of(smaller), before, heads, neurons, strict=True):
        _check_kept(len(after), "heads", kept, len(shape.heads))
        _check_kept(len(after), "neurons", stay, shape.neurons)
        cut_layer(smaller, layer, kept, stay)
        after.append(LayerShape(tuple(shape.heads[each] for each in kept), len(stay)))
    _adopt(smaller, with_shapes(model.config, after))
    return smaller


def _check_kept(layer: int, what: str, kept: Sequence[int], count: int) -> None:
    if not _ascends(kept, count):
        allowed = f"name positions from 0 to {count - 1}, in ascending order" if count else "it has none"
        raise MethodError(f"layer {layer} cannot keep {what} {str(list(kept))[:60]}: {allowed}")


def _ascends(numbers: Sequence[int], count: int) -> bool:
    """Return whether the numbers are from 0 to `count` - 1 and strictly ascending."""
    return all(low < high for low, high in itertools.pairwise((-1, *numbers, count)))


def _adopt(model: PreTrainedModel, config: PreTrainedConfig) -> None:
    """Set the configuration of the model and of all modules that share it."""
    old = model.config  # attention modules hold a reference to it
    for module in model.modules():
        if getattr(module, "config", None) is old:
            module.config = config


def cut_layer(model: PreTrainedModel, layer: nn.Module, heads: Sequence[int], neurons: Sequence[int]) -> None:
    """Remove all heads and neurons of one layer but those at these positions, in place."""
    attention, feed_forward = residual_outputs_of(model, layer)
    size = head_size(model.config)
    queries = int(model.config.num_attention_heads) // head_units(model.config)
    units = attention.in_features // (size * queries)  # of this layer, which may be pruned already
    if len(heads) < units:
        for linear, blocks in head_inputs_of(model, layer):
            _keep_rows(linear, _rows(linear.out_features, blocks, units, heads))
        _keep_columns(attention, _rows(attention.in_features, 1, units, heads))
        _resize_attention(model, layer, heads, queries)
    if len(neurons) < feed_forward.in_features:
        for linear, blocks in neuron_inputs_of(model, layer):
            _keep_rows(linear, _rows(linear.out_features, blocks, linear.out_features // blocks, neurons))
        _keep_columns(feed_forward, torch.as_tensor(list(neurons), dtype=torch.long))


def _rows(total: int, blocks: int, units: int, kept: Sequence[int]) -> Tensor:
    """Return the rows of the kept units in a projection of `blocks` stacked parts, [kept rows]."""
    grid = torch.arange(total).view(blocks, units, -1)
    return grid[:, list(kept)].reshape(-1)


def _keep_rows(linear: nn.Linear, rows: Tensor) -> None:
    rows = rows.to(linear.weight.device)
    linear.weight = nn.Parameter(linear.weight.detach()[rows].clone(), linear.weight.requires_grad)
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[rows].clone(), linear.bias.requires_grad)
    linear.out_features = len(rows)


def _keep_columns(linear: nn.Linear, columns: Tensor) -> None:
    columns = columns.to(linear.weight.device)
    linear.weight = nn.Parameter(linear.weight.detach()[:, columns].clone(), linear.weight.requires_grad)
    linear.in_features = len(columns)


def _resize_attention(model: PreTrainedModel, layer: nn.Module, heads: Sequence[int], queries: int) -> None:
    """Adapt the attention module of a layer to its remaining heads."""
    anatomy = anatomy_of(model.config)
    module = layer.get_submodule(anatomy.attention)
    if not heads:
        layer.set_submodule(anatomy.attention, NoHeads(module, anatomy.attention, anatomy.residual_outputs[0]))
        return
    for name in ("num_attention_heads", "n_heads", "num_heads"):
        if hasattr(module, name):
            setattr(module, name, queries * len(heads))
    if hasattr(module, "all_head_size"):
        setattr(module, "all_head_size", queries * len(heads) * head_size(model.config))  # noqa: B010, mypy
    if anatomy.shared_head_bias:
        choose = functools.partial(_choose_head_bias, tuple(heads))
        module.register_forward_pre_hook(choose, with_kwargs=True)


def _choose_head_bias(
    heads: tuple[int, ...], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Select, before the forward pass, the shared scores of the layer's own heads: [1, heads, tokens, tokens]."""
    bias = kwargs.get("position_bias")
    if bias is not None:
        return args, {**kwargs, "position_bias": bias[:, list(heads)]}
    if len(args) > 2 and args[2] is not None:  # MPNet passes it as the third positional argument
        return (*args[:2], args[2][:, list(heads)], *args[3:]), kwargs
    return args, kwargs


class NoHeads(nn.Module):
    """Replaces the attention of a layer without heads, of which only the bias of the output is left.

    Attributes:
        width: of the zeros that it passes to the output projection; 0, or 1 for an export.
    """

    def __init__(self, attention: nn.Module, path: str, output_path: str) -> None:
        super().__init__()
        self.width = 0
        self._output = output_path.removeprefix(f"{path}.") if output_path.startswith(f"{path}.") else None
        if self._output is not None:
            self.add_module(self._output, attention.get_submodule(self._output))
        self.train(attention.training)

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        """Return zeros, [batch, tokens, width], or the projection of them if the output is part of this module."""
        zeros = hidden_states.new_zeros(*hidden_states.shape[:-1], self.width)
        return (zeros if self._output is None else self.get_submodule(self._output)(zeros)), None
