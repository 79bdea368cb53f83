"""Where an architecture keeps its layers and embeddings. The only module that knows; a new architecture is one entry.

Everything here is read off the Transformers model classes; none of them is copied or changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from plankwise.core.errors import ModelError, suggest


@dataclass(frozen=True)
class Anatomy:
    """Where the parts of one architecture are, as paths inside its base model.

    Attributes:
        layers: path of the `nn.ModuleList` of Transformer layers.
        residual_outputs: paths, inside a layer, of the two projections that write into the residual stream: that of
            attention and that of the feed-forward part.
        embeddings: paths of everything in front of the first layer, and of position tables shared by all layers.
        layer_output: what one layer returns: the hidden states alone, or a tuple that begins with them.
        convolution: path of a module that the encoder itself runs between its first two layers, if it has one.
        positions_start_behind_padding: whether position numbers begin at the padding id + 1, as RoBERTa's do.
        counts_on_padding_id: the padding id that its code takes for granted, whatever a configuration says.
        also_sized: further keys of its configuration that hold one of the common sizes, by the name of that size.
    """

    layers: str
    residual_outputs: tuple[str, str] = ("attention.output.dense", "output.dense")
    embeddings: tuple[str, ...] = ("embeddings",)
    layer_output: Literal["tensor", "tuple", "pair"] = "tensor"
    convolution: str | None = None
    positions_start_behind_padding: bool = False
    counts_on_padding_id: int | None = None
    also_sized: Mapping[str, str] = field(default_factory=dict)


_CLASSIC = Anatomy("encoder.layer")
_ROBERTA = Anatomy("encoder.layer", positions_start_behind_padding=True)
ANATOMIES: dict[str, Anatomy] = {
    "bert": _CLASSIC,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": Anatomy(
        "transformer.layer", ("attention.out_lin", "ffn.lin2"), also_sized={"hidden_dim": "intermediate_size"}
    ),
    "electra": Anatomy(
        "encoder.layer",
        embeddings=("embeddings", "embeddings_project"),
        also_sized={"embedding_size": "hidden_size"},
    ),
    "mpnet": Anatomy(
        "encoder.layer",
        ("attention.attn.o", "output.dense"),
        ("embeddings", "encoder.relative_attention_bias"),
        "tuple",
        positions_start_behind_padding=True,
        counts_on_padding_id=1,
    ),
    "deberta-v2": Anatomy(
        "encoder.layer",
        embeddings=("embeddings", "encoder.rel_embeddings", "encoder.LayerNorm", "encoder.conv"),
        layer_output="pair",
        convolution="encoder.conv",
    ),
    "modernbert": Anatomy("layers", ("attn.Wo", "mlp.Wo")),
    "eurobert": Anatomy(
        "layers",
        ("self_attn.o_proj", "mlp.down_proj"),
        ("embed_tokens",),
        also_sized={"num_key_value_heads": "num_attention_heads"},
    ),
}


def anatomy_of(config: PreTrainedConfig) -> Anatomy:
    """Look up the anatomy of an encoder's configuration.

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
    """Give the list of Transformer layers of `model`, whatever head it carries."""
    layers = model.base_model.get_submodule(anatomy_of(model.config).layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def set_layers(model: PreTrainedModel, layers: nn.ModuleList) -> None:
    """Put another list of layers in the place of the model's own. The configuration stays as it is."""
    parent, _, name = anatomy_of(model.config).layers.rpartition(".")
    setattr(model.base_model.get_submodule(parent), name, layers)


def layers_prefix(model: PreTrainedModel) -> str:
    """Give the prefix that the names of layer parameters share, such as `bert.encoder.layer.`."""
    layers = layers_of(model)
    names = (str(name) for name, module in model.named_modules() if module is layers)
    return next(names) + "."


def residual_outputs_of(model: PreTrainedModel, layer: nn.Module) -> tuple[nn.Linear, nn.Linear]:
    """Give the projections by which one layer writes into the residual stream: of attention, of feed-forward."""
    attention, feed_forward = (layer.get_submodule(path) for path in anatomy_of(model.config).residual_outputs)
    assert isinstance(attention, nn.Linear)
    assert isinstance(feed_forward, nn.Linear)
    return attention, feed_forward


def embeddings_of(model: PreTrainedModel) -> Iterator[nn.Module]:
    """Give each module in front of the first layer, and the position tables that all layers share."""
    for path in anatomy_of(model.config).embeddings:
        try:
            module = model.base_model.get_submodule(path)
        except AttributeError:  # an optional part, such as ELECTRA's projection, that this model does not have
            continue
        yield module


def layer_types(config: PreTrainedConfig) -> list[str]:
    """Name the attention type of each layer; all the same where an architecture has but one."""
    types = getattr(config, "layer_types", None)
    return list(types) if types else ["full_attention"] * int(config.num_hidden_layers)


def has_convolution(model: PreTrainedModel) -> bool:
    """Tell whether the encoder runs a convolution of its own behind its first layer (some DeBERTa-v2)."""
    path = anatomy_of(model.config).convolution
    if path is None:
        return False
    parent, _, name = path.rpartition(".")
    return getattr(model.base_model.get_submodule(parent), name, None) is not None


def as_layer_output(config: PreTrainedConfig, hidden: Tensor) -> Any:
    """Wrap hidden states, [batch, tokens, width], the way a layer of this architecture returns them."""
    shape = anatomy_of(config).layer_output
    return {"tensor": hidden, "tuple": (hidden,), "pair": (hidden, None)}[shape]


def hidden_of(output: Any) -> Tensor:
    """Take the hidden states, [batch, tokens, width], out of what a layer returned."""
    hidden = output[0] if isinstance(output, tuple) else output
    assert isinstance(hidden, Tensor)
    return hidden


def usable_positions(config: PreTrainedConfig) -> int:
    """Give the largest number of tokens that the position table of an architecture can take."""
    positions = int(config.max_position_embeddings)
    offset = anatomy_of(config).positions_start_behind_padding
    return positions - (config.pad_token_id or 0) - 1 if offset else positions


def new_config(kind: str, positions: int, **sizes: Any) -> PreTrainedConfig:
    """Make the configuration of a new model of one architecture.

    Args:
        kind: of `ANATOMIES`.
        positions: longest input in tokens.
        **sizes: by their common names: `hidden_size`, `num_hidden_layers`, `num_attention_heads`,
            `intermediate_size`, `vocab_size`, and whatever else all configurations share.
    """
    anatomy = ANATOMIES[kind]
    own_names: Mapping[str, str] = type(AutoConfig.for_model(kind)).attribute_map
    keys = {own_names.get(name, name): value for name, value in sizes.items()}
    keys |= {own: sizes[common] for own, common in anatomy.also_sized.items()}
    offset = sizes["pad_token_id"] + 1 if anatomy.positions_start_behind_padding else 0
    return AutoConfig.for_model(kind, **keys, max_position_embeddings=positions + offset)
