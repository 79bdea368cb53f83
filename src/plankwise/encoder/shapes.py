"""How many heads and neurons each layer has: kept in the configuration, cut for real, rebuilt on loading.

A configuration of Transformers knows one size for all layers. Where sizes differ, they stand beside it under the key
`plankwise`: for each layer the heads that are left, by their number in the layer as it was built, and how many neurons.
A model whose layers are all alike again, and have all their heads, needs no such key and loads plainly.
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
        heads: which heads are left, numbered as in an unpruned layer; groups of heads where they share keys.
        neurons: how many feed-forward neurons are left.
    """

    heads: tuple[int, ...]
    neurons: int


def full_shape(config: PreTrainedConfig) -> LayerShape:
    """Give the sizes of a layer as the plain configuration has it."""
    return LayerShape(tuple(range(head_units(config))), int(getattr(config, neurons_key(config))))


def shapes_of(config: PreTrainedConfig) -> tuple[LayerShape, ...]:
    """Give the sizes of each layer."""
    stored = (getattr(config, KEY, None) or {}).get("layers")
    if stored is None:
        return (full_shape(config),) * int(config.num_hidden_layers)
    return tuple(LayerShape(tuple(each["heads"]), each["neurons"]) for each in stored)


def check_shapes(config: PreTrainedConfig) -> None:
    """Make sure that layer sizes which were read from a file can be those of a model of this configuration.

    Raises:
        ModelError: if they cannot.
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
    """Say what is wrong with the stored sizes of one layer."""
    if not isinstance(stored, dict) or not {"heads", "neurons"} <= stored.keys():
        return f"needs heads and neurons, not {str(stored)[:60]}"
    heads, neurons, units = stored["heads"], stored["neurons"], len(full.heads)
    if not isinstance(heads, list) or any(type(each) is not int for each in heads) or not _ascends(heads, units):
        return f"heads {str(heads)[:60]}; allowed: numbers from 0 to {units - 1}, in ascending order"
    if type(neurons) is not int or not 0 <= neurons <= full.neurons:
        return f"neurons {str(neurons)[:60]}; allowed: 0 to {full.neurons}"
    return None


def is_plain(config: PreTrainedConfig) -> bool:
    """Tell whether plain Transformers can rebuild a model of this configuration."""
    return not getattr(config, KEY, None)


def with_shapes(config: PreTrainedConfig, shapes: Sequence[LayerShape]) -> PreTrainedConfig:
    """Copy `config` for a model of these layer sizes; the copy is plain where a plain configuration can hold them."""
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
    setattr(config, neurons_key(config), shape.neurons)
    if shape.heads != full.heads:
        queries = int(config.num_attention_heads) // len(full.heads)
        config.head_dim = head_size(config)
        config.num_attention_heads = queries * len(shape.heads)
        config.num_key_value_heads = len(shape.heads)


def new_model(kind: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """Build a model of this configuration with random weights from the current torch seed, whatever its layer sizes."""
    model = kind(copy.deepcopy(config))
    if not is_plain(config):
        for layer, shape in zip(layers_of(model), shapes_of(config), strict=True):
            cut_layer(model, layer, shape.heads, range(shape.neurons))
        install(model, ranks_of(config))
        install_quantized(model, quantized_of(config))
    return model


def prune(model: PreTrainedModel, heads: Sequence[Sequence[int]], neurons: Sequence[Sequence[int]]) -> PreTrainedModel:
    """Build a model of the heads and neurons named for each layer, and of all the rest; `model` is not changed.

    It computes what `model` would if the inputs that the other heads and neurons give to the two residual outputs of
    their layer were zero.

    Args:
        model: any supported encoder.
        heads: for each layer, positions among the heads that it has now, in ascending order.
        neurons: the same for neurons.

    Raises:
        MethodError: if a layer does not have what it should keep.
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
    """Tell whether numbers below `count` stand in ascending order, none twice."""
    return all(low < high for low, high in itertools.pairwise((-1, *numbers, count)))


def _adopt(model: PreTrainedModel, config: PreTrainedConfig) -> None:
    """Let the model, and all its parts that hold the configuration, hold the changed one."""
    old = model.config
    for module in model.modules():
        if getattr(module, "config", None) is old:
            module.config = config


def cut_layer(model: PreTrainedModel, layer: nn.Module, heads: Sequence[int], neurons: Sequence[int]) -> None:
    """Cut one layer of `model` down to the heads and neurons at these positions, in place."""
    attention, feed_forward = residual_outputs_of(model, layer)
    size = head_size(model.config)
    queries = int(model.config.num_attention_heads) // head_units(model.config)
    units = attention.in_features // (size * queries)
    if len(heads) < units:
        for linear, blocks in head_inputs_of(model, layer):
            _keep_rows(linear, _rows(linear.out_features, blocks, units, heads))
        _keep_columns(attention, _rows(attention.in_features, 1, units, heads))
        _tell_attention(model, layer, heads, queries)
    if len(neurons) < feed_forward.in_features:
        for linear, blocks in neuron_inputs_of(model, layer):
            _keep_rows(linear, _rows(linear.out_features, blocks, linear.out_features // blocks, neurons))
        _keep_columns(feed_forward, torch.as_tensor(list(neurons), dtype=torch.long))


def _rows(total: int, blocks: int, units: int, kept: Sequence[int]) -> Tensor:
    """List the rows of the kept units in a projection of `blocks` stacked parts, [kept rows]."""
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


def _tell_attention(model: PreTrainedModel, layer: nn.Module, heads: Sequence[int], queries: int) -> None:
    """Make a layer's attention fit the heads it has left."""
    anatomy = anatomy_of(model.config)
    module = layer.get_submodule(anatomy.attention)
    if not heads:
        layer.set_submodule(anatomy.attention, NoHeads(module, anatomy.attention, anatomy.residual_outputs[0]))
        return
    for name in ("num_attention_heads", "n_heads", "num_heads"):
        if hasattr(module, name):
            setattr(module, name, queries * len(heads))
    if hasattr(module, "all_head_size"):
        setattr(module, "all_head_size", queries * len(heads) * head_size(model.config))  # noqa: B010
    if anatomy.shared_head_bias:
        choose = functools.partial(_choose_head_bias, tuple(heads))
        module.register_forward_pre_hook(choose, with_kwargs=True)


def _choose_head_bias(
    heads: tuple[int, ...], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Leave of the shared scores [1, heads, tokens, tokens] those of the heads that this layer has."""
    bias = kwargs.get("position_bias")
    if bias is not None:
        return args, {**kwargs, "position_bias": bias[:, list(heads)]}
    if len(args) > 2 and args[2] is not None:
        return (*args[:2], args[2][:, list(heads)], *args[3:]), kwargs
    return args, kwargs


class NoHeads(nn.Module):
    """Stands for the attention of a layer that has no head left: all it writes is the bias of its output.

    Attributes:
        width: of the nothing that it gives to its output.
    """

    def __init__(self, attention: nn.Module, path: str, output_path: str) -> None:
        super().__init__()
        self.width = 0
        self._output = output_path.removeprefix(f"{path}.") if output_path.startswith(f"{path}.") else None
        if self._output is not None:
            self.add_module(self._output, attention.get_submodule(self._output))
        self.train(attention.training)

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        """Give nothing for each token, [batch, tokens, width], or where the output belongs here, its bias."""
        nothing = hidden_states.new_zeros(*hidden_states.shape[:-1], self.width)
        return (nothing if self._output is None else self.get_submodule(self._output)(nothing)), None
