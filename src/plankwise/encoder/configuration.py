"""Sizes in the configurations of Transformers, which every architecture names in its own way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from plankwise.encoder.anatomy import ANATOMIES, anatomy_of

OWN = "plankwise"  # the key of a configuration that holds what a plain one cannot


def usable_positions(config: PreTrainedConfig) -> int:
    """Give the largest number of tokens that the position table of an architecture can take."""
    positions = int(config.max_position_embeddings)
    offset = anatomy_of(config).positions_start_behind_padding
    return positions - (config.pad_token_id or 0) - 1 if offset else positions


def head_size(config: PreTrainedConfig) -> int:
    """Give the width of one attention head; pruning never changes it."""
    own = getattr(config, "head_dim", None) or getattr(config, "attention_head_size", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def head_units(config: PreTrainedConfig) -> int:
    """Count the heads of an unpruned layer; where keys and values are shared, the groups of heads that share them."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def neurons_key(config: PreTrainedConfig) -> str:
    """Name the key of a configuration that holds the number of feed-forward neurons."""
    also = anatomy_of(config).also_sized.items()
    return next((own for own, common in also if common == "intermediate_size"), "intermediate_size")


def depth_key(config: PreTrainedConfig) -> str:
    """Name the key of a stored configuration that holds the number of layers."""
    return str(type(config).attribute_map.get("num_hidden_layers", "num_hidden_layers"))


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
