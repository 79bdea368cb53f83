"""Building models of another depth or size from a given one, with weights copied or averaged from its layers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.errors import MethodError
from plankwise.encoder.anatomy import anatomy_of, layer_types, layers_of, layers_prefix, residual_outputs_of
from plankwise.encoder.low_rank import has_low_rank
from plankwise.encoder.shapes import KEY, LayerShape, full_shape, new_model, shapes_of, with_shapes

# Keys that follow from other sizes: sizes of single layers, of a head, of the pooler.
_DERIVED = (KEY, "head_dim", "attention_head_size", "pooler_hidden_size")
Source = tuple[int, ...]  # layers to average for a new one; empty for a random one


def with_depth(
    config: PreTrainedConfig, sources: Sequence[Source], types: Sequence[str] | None = None
) -> PreTrainedConfig:
    """Return a copy of `config` for a model in which layer i is the mean of the layers in `sources[i]`.

    Args:
        config: of the model with the source layers.
        sources: for each new layer, the layers to average; an empty tuple means a new layer of full size.
        types: attention type of each new layer; by default that of its first source.

    Raises:
        MethodError: if layers to average have different sizes or are of low rank.
    """
    if types is None:
        own = layer_types(config)
        types = [own[source[0]] if source else own[0] for source in sources]
    smaller = copy.deepcopy(config)
    smaller.num_hidden_layers = len(sources)
    if getattr(config, "layer_types", None):
        smaller.layer_types = list(types)
    return with_shapes(smaller, _shapes(config, sources))


def _shapes(config: PreTrainedConfig, sources: Sequence[Source]) -> list[LayerShape]:
    shapes, factorized = shapes_of(config), has_low_rank(config, "feed_forward")
    for source in sources:
        if factorized and len(source) > 1:
            raise MethodError(f"layers {list(source)} cannot be averaged: their feed-forward parts are of low rank")
        if len({shapes[layer] for layer in source}) > 1:
            raise MethodError(f"layers {list(source)} cannot be averaged: they have different heads or neurons")
    return [shapes[source[0]] if source else full_shape(config) for source in sources]


def resized(config: PreTrainedConfig, **sizes: int) -> PreTrainedConfig:
    """Return a copy of `config` with other sizes and the same vocabulary, positions and labels.

    Args:
        config: of any supported encoder.
        **sizes: by their common names, as in `new_config`.

    Raises:
        MethodError: if the width is not a multiple of the number of heads.
    """
    anatomy, names = anatomy_of(config), type(config).attribute_map
    stored = config.to_dict()
    for derived in (*_DERIVED, *(["layer_types"] if "num_hidden_layers" in sizes else [])):
        stored.pop(derived, None)  # otherwise the old size would be kept, as of a head
    chosen = {names.get(name, name): value for name, value in sizes.items()}
    chosen |= {own: sizes[common] for own, common in anatomy.size_aliases.items() if common in sizes}
    stored |= {name: value for name, value in chosen.items() if name in stored}
    changed = type(config).from_dict(stored)
    width, heads = int(changed.hidden_size), int(changed.num_attention_heads)
    if width % heads:
        raise MethodError(f"num_attention_heads {heads} do not divide hidden_size {width}")
    return changed


def rebuild(model: PreTrainedModel, sources: Sequence[Source], types: Sequence[str] | None = None) -> PreTrainedModel:
    """Return a model of `len(sources)` layers in which layer i is the mean of the layers in `sources[i]`.

    Everything outside the layers is copied. `model` is not changed. Random layers use the initialization of the
    architecture and the current torch seed.

    Args:
        model: any supported encoder, with any head.
        sources: for each new layer, the layers of `model` to average; an empty tuple leaves it random.
        types: attention type of each new layer; by default that of its first source.

    Raises:
        MethodError: if `model` lacks a source layer, or layers to average have different sizes or are of low rank.
    """
    anatomy_of(model.config)
    depth = len(layers_of(model))
    wrong = [index for source in sources for index in source if not 0 <= index < depth]
    if wrong:
        raise MethodError(f"layer {wrong[0]} does not exist: the model has layers 0 to {depth - 1}")
    smaller = new_model(type(model), with_depth(model.config, sources, types)).to(model.device, model.dtype)
    copy_outside_layers(model, smaller)
    for index, source in enumerate(sources):
        if source:
            copy_layer(model, source, smaller, index)
    return smaller.train(model.training)


def grow(model: PreTrainedModel, depth: int) -> PreTrainedModel:
    """Return a deeper model that computes nearly what `model` does, as its new layers add nothing yet.

    Each layer is followed by copies of it with zeros in both residual projections. In pre-norm architectures such a
    copy returns its input exactly; in post-norm ones it normalizes it a second time, with the same norm.

    Raises:
        MethodError: if `depth` is less than the depth of `model`.
    """
    own = len(layers_of(model))
    if depth < own:
        raise MethodError(f"cannot grow a model of {own} layers to {depth}")
    sources = [index * own // depth for index in range(depth)]
    deeper = rebuild(model, [(source,) for source in sources])
    for index, layer in enumerate(layers_of(deeper)):
        if index and sources[index] == sources[index - 1]:  # a copy, not the layer itself
            for projection in residual_outputs_of(deeper, layer):
                nn.init.zeros_(projection.weight)
                if projection.bias is not None:
                    nn.init.zeros_(projection.bias)
    return deeper


def copy_outside_layers(source: PreTrainedModel, target: PreTrainedModel) -> None:
    """Copy everything but the layers (embeddings, norms, heads) from `source` into `target`, in place.

    Raises:
        MethodError: if the models differ outside their layers.
    """
    prefix = layers_prefix(source)
    state = {name: value for name, value in source.state_dict().items() if not name.startswith(prefix)}
    missing, unexpected = target.load_state_dict(state, strict=False)
    lost = [name for name in missing if not name.startswith(prefix)]
    if lost or unexpected:
        raise MethodError(f"the models differ outside their layers: {', '.join([*lost, *unexpected][:5])}")


def share_outside_layers(source: PreTrainedModel, target: PreTrainedModel) -> None:
    """Replace what is outside the layers of `target` (embeddings, norms, heads) by the modules of `source`, in place.

    Both models hold these modules then: training one trains the other. Modules without parameters stay as they are,
    since they belong to the layers of `target`: ModernBERT's rotary tables depend on the types of its layers.

    Args:
        source: the model with the modules to share; its vocabulary may be another than that of `target`.
        target: of the same architecture and width, and of any depth.
    """
    own, given = target, source
    for part in layers_prefix(target).rstrip(".").split("."):
        for name, module in list(own.named_children()):
            if name != part and any(True for _ in module.parameters()):
                delattr(own, name)
        for name, module in given.named_children():
            if name != part and any(True for _ in module.parameters()):
                setattr(own, name, module)
        own, given = own.get_submodule(part), given.get_submodule(part)


def copy_layer(source: PreTrainedModel, indices: Source, target: PreTrainedModel, index: int) -> None:
    """Set layer `index` of `target` to the mean of the layers `indices` of `source`, in place.

    A tensor that only some layers have (the first layer of ModernBERT has no attention norm) is averaged over those
    that have it, and left as it is if none has.
    """
    layer = layers_of(target)[index]
    states = [layers_of(source)[each].state_dict() for each in indices]
    with torch.no_grad():
        for name, value in layer.state_dict().items():
            given = [state[name] for state in states if name in state]
            if given:
                value.copy_(given[0] if len(given) == 1 else torch.stack(given).mean(dim=0))


def frozen_twin(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of the modules of `model` with frozen parameters that share the memory of its weights.

    Before parts of it are trained, `thaw` has to give them memory of their own.
    """
    shared = {id(value): nn.Parameter(value.data, requires_grad=False) for value in model.parameters()}
    return copy.deepcopy(model, memo=dict(shared))  # deepcopy takes what is in its memo for already copied


def thaw(parameters: Iterable[nn.Parameter]) -> None:
    """Move frozen, shared parameters into memory of their own and make them trainable, in place."""
    for parameter in parameters:
        parameter.data = parameter.data.clone()
        parameter.requires_grad_(True)
