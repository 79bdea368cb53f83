"""Where an architecture keeps its layers and embeddings. A new architecture is one entry here, and nowhere else.

The paths are those of the Transformers model classes, of which none is copied or changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.errors import MethodError, ModelError, suggest


@dataclass(frozen=True)
class Projection:
    """A linear layer with output rows that belong to heads or neurons.

    Attributes:
        path: inside a Transformer layer. It may be absent from some layers or models.
        blocks: number of projections of equal size that are stacked in it.
    """

    path: str
    blocks: int = 1


@dataclass(frozen=True)
class Anatomy:
    """Where the parts of one architecture are, as paths inside its base model.

    Attributes:
        layers: path of the `nn.ModuleList` of Transformer layers.
        residual_outputs: paths, inside a layer, of the two projections that write into the residual stream: of
            attention and of the feed-forward part.
        attention: path, inside a layer, of the attention module, which returns a tuple.
        head_inputs: projections with output rows that belong to heads: query, key, value (or one that fuses all three),
            then any others.
        neuron_inputs: projections with output rows that belong to feed-forward neurons.
        pre_norm: whether the norms come before both parts, and not after the residual sums.
        heads_are_configured: whether a plain configuration can hold fewer heads of the same size.
        shared_head_bias: whether all layers add one shared table of scores, a column for each head, to their own.
        embeddings: paths of everything before the first layer, and of position tables shared by all layers.
        layer_output: what one layer returns: the hidden states alone, or a tuple that begins with them.
        convolution: path of a module that the encoder runs between its first two layers, if it has one.
        positions_follow_padding: whether position ids begin at the padding id + 1, as in RoBERTa.
        counts_on_padding_id: padding id that the code of the architecture assumes, whatever a configuration says.
        size_aliases: further keys of its configuration that hold a common size, each with the name of that size.
    """

    layers: str
    residual_outputs: tuple[str, str] = ("attention.output.dense", "output.dense")
    attention: str = "attention.self"
    head_inputs: tuple[Projection, ...] = (
        Projection("attention.self.query"),
        Projection("attention.self.key"),
        Projection("attention.self.value"),
    )
    neuron_inputs: tuple[Projection, ...] = (Projection("intermediate.dense"),)
    pre_norm: bool = False
    heads_are_configured: bool = False
    shared_head_bias: bool = False
    embeddings: tuple[str, ...] = ("embeddings",)
    layer_output: Literal["tensor", "tuple", "pair"] = "tensor"
    convolution: str | None = None
    positions_follow_padding: bool = False
    counts_on_padding_id: int | None = None
    size_aliases: Mapping[str, str] = field(default_factory=dict)


_CLASSIC = Anatomy("encoder.layer")
_ROBERTA = Anatomy("encoder.layer", positions_follow_padding=True)
_ROTARY = Anatomy(  # rotary positions inside attention, and a gate beside the feed-forward neurons
    "layers",
    ("self_attn.o_proj", "mlp.down_proj"),
    attention="self_attn",
    head_inputs=tuple(Projection(f"self_attn.{name}_proj") for name in ("q", "k", "v")),
    neuron_inputs=(Projection("mlp.gate_proj"), Projection("mlp.up_proj")),
)
ANATOMIES: dict[str, Anatomy] = {
    "bert": _CLASSIC,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": Anatomy(
        "transformer.layer",
        ("attention.out_lin", "ffn.lin2"),
        attention="attention",
        head_inputs=(Projection("attention.q_lin"), Projection("attention.k_lin"), Projection("attention.v_lin")),
        neuron_inputs=(Projection("ffn.lin1"),),
        size_aliases={"hidden_dim": "intermediate_size"},
    ),
    "electra": Anatomy(
        "encoder.layer",
        embeddings=("embeddings", "embeddings_project"),
        size_aliases={"embedding_size": "hidden_size"},
    ),
    "mpnet": Anatomy(
        "encoder.layer",
        ("attention.attn.o", "output.dense"),
        attention="attention.attn",
        head_inputs=(Projection("attention.attn.q"), Projection("attention.attn.k"), Projection("attention.attn.v")),
        shared_head_bias=True,
        embeddings=("embeddings", "encoder.relative_attention_bias"),
        layer_output="tuple",
        positions_follow_padding=True,
        counts_on_padding_id=1,
    ),
    "deberta-v2": Anatomy(
        "encoder.layer",
        head_inputs=tuple(
            Projection(f"attention.self.{name}_proj") for name in ("query", "key", "value", "pos_key", "pos_query")
        ),
        embeddings=("embeddings", "encoder.rel_embeddings", "encoder.LayerNorm", "encoder.conv"),
        layer_output="pair",
        convolution="encoder.conv",
    ),
    "modernbert": Anatomy(
        "layers",
        ("attn.Wo", "mlp.Wo"),
        attention="attn",
        head_inputs=(Projection("attn.Wqkv", 3),),
        neuron_inputs=(Projection("mlp.Wi", 2),),
        pre_norm=True,
    ),
    "eurobert": replace(
        _ROTARY,
        pre_norm=True,
        heads_are_configured=True,  # groups of heads that share keys and values are pruned together
        embeddings=("embed_tokens",),
        size_aliases={"num_key_value_heads": "num_attention_heads"},
    ),
    "ernie": _CLASSIC,
    "gte": _ROTARY,
    "nomic_bert": _ROTARY,
    "jina_embeddings_v3": replace(
        _ROTARY, residual_outputs=("self_attn.o_proj", "mlp.fc2"), neuron_inputs=(Projection("mlp.fc1"),)
    ),
    "rembert": Anatomy(
        "encoder.layer",
        embeddings=("embeddings", "encoder.embedding_hidden_mapping_in"),
        layer_output="tuple",
        size_aliases={"input_embedding_size": "hidden_size", "output_embedding_size": "hidden_size"},
    ),
}

KIND = "model_type"  # key of a configuration with the name of its architecture
# Keys in which two models have to agree before layers of one run inside the other; an architecture may lack some.
KEYS_OF_ALL_LAYERS = (
    KIND,
    "hidden_size",
    "position_buckets",
    "max_relative_positions",
    "relative_attention_num_buckets",
    "rope_parameters",
    "conv_kernel_size",
)


def anatomy_of(config: PreTrainedConfig) -> Anatomy:
    """Return the anatomy for the configuration of an encoder.

    Raises:
        ModelError: for a decoder, or an architecture that is not listed; the message lists those that are.
    """
    kind = str(config.model_type)
    if getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"'{kind}' is set up as a decoder; plankwise compresses encoders: {', '.join(ANATOMIES)}")
    if kind not in ANATOMIES:
        raise ModelError(f"the architecture '{kind}' is not a supported encoder; {suggest(kind, ANATOMIES)}")
    return ANATOMIES[kind]


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the list of Transformer layers of `model`, whichever head it has."""
    layers = model.base_model.get_submodule(anatomy_of(model.config).layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def set_layers(model: PreTrainedModel, layers: nn.ModuleList) -> None:
    """Replace the list of layers of `model`, in place. The configuration does not change."""
    parent, _, name = anatomy_of(model.config).layers.rpartition(".")
    setattr(model.base_model.get_submodule(parent), name, layers)


def layers_prefix(model: PreTrainedModel) -> str:
    """Return the prefix of the names of layer parameters, such as `bert.encoder.layer.`."""
    layers = layers_of(model)
    names = (str(name) for name, module in model.named_modules() if module is layers)
    return next(names) + "."


def residual_outputs_of(model: PreTrainedModel, layer: nn.Module) -> tuple[nn.Linear, nn.Linear]:
    """Return the projections with which a layer writes into the residual stream: of attention and of feed-forward."""
    attention, feed_forward = anatomy_of(model.config).residual_outputs
    return _linear(layer, attention), _linear(layer, feed_forward)


def head_inputs_of(model: PreTrainedModel, layer: nn.Module) -> list[tuple[nn.Linear, int]]:
    """Return the projections of a layer with rows that belong to heads, each with its number of stacked blocks."""
    return _projections(layer, anatomy_of(model.config).head_inputs)


def neuron_inputs_of(model: PreTrainedModel, layer: nn.Module) -> list[tuple[nn.Linear, int]]:
    """Return the projections of a layer with rows that belong to neurons, each with its number of stacked blocks."""
    return _projections(layer, anatomy_of(model.config).neuron_inputs)


def query_key_value_of(model: PreTrainedModel, layer: nn.Module) -> list[tuple[nn.Linear, int, int]]:
    """Return the query, key and value projections of a layer, each with its block and the number of blocks in it."""
    found = head_inputs_of(model, layer)
    if found and found[0][1] == 3:  # one fused projection: its thirds are query, key and value
        return [(found[0][0], part, 3) for part in range(3)]
    return [(linear, 0, 1) for linear, _ in found[:3]]


def _projections(layer: nn.Module, wanted: tuple[Projection, ...]) -> list[tuple[nn.Linear, int]]:
    found = []
    for projection in wanted:
        try:
            linear = _linear(layer, projection.path)
        except AttributeError:  # DeBERTa-v2 may share its position projections; a layer may have lost all its heads
            continue
        found.append((linear, projection.blocks))
    return found


def _linear(layer: nn.Module, path: str) -> nn.Linear:
    linear = layer.get_submodule(path)
    if not isinstance(linear, nn.Linear):
        what = f"'{path}' is {type(linear).__name__}, not a plain linear layer"
        raise MethodError(f"{what}; prune and grow before low_rank and quantization")
    return linear


def embeddings_of(model: PreTrainedModel) -> Iterator[nn.Module]:
    """Yield the modules before the first layer, and the position tables that all layers share."""
    for path in anatomy_of(model.config).embeddings:
        try:
            module = model.base_model.get_submodule(path)
        except AttributeError:  # an optional part that this model does not have, such as ELECTRA's projection
            continue
        yield module


def layer_types(config: PreTrainedConfig) -> list[str]:
    """Return the attention type of each layer; all are equal where an architecture has only one."""
    types = getattr(config, "layer_types", None)
    return list(types) if types else ["full_attention"] * int(config.num_hidden_layers)


def attends_locally(config: PreTrainedConfig) -> bool:
    """Return whether some layer attends only to a window of tokens around each one (ModernBERT)."""
    return any("sliding" in kind for kind in layer_types(config))


def has_convolution(config: PreTrainedConfig) -> bool:
    """Return whether the encoder runs a convolution after its first layer (some DeBERTa-v2)."""
    return anatomy_of(config).convolution is not None and int(getattr(config, "conv_kernel_size", 0)) > 0


def as_layer_output(config: PreTrainedConfig, hidden: Tensor) -> Any:
    """Return hidden states, [batch, tokens, width], in the form that a layer of this architecture returns."""
    shape = anatomy_of(config).layer_output
    return {"tensor": hidden, "tuple": (hidden,), "pair": (hidden, None)}[shape]


def hidden_of(output: Any) -> Tensor:
    """Return the hidden states, [batch, tokens, width], from the output of a layer."""
    hidden = output[0] if isinstance(output, tuple) else output
    assert isinstance(hidden, Tensor)
    return hidden
