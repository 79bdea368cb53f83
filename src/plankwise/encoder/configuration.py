"""Sizes in the configurations of Transformers, for which every architecture has its own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from plankwise.encoder.anatomy import ANATOMIES, anatomy_of

OWN = "plankwise"  # key of a configuration for what a plain one cannot hold


def usable_positions(config: PreTrainedConfig) -> int:
    """Return the largest number of tokens for which the model has positions."""
    positions = int(config.max_position_embeddings)
    offset = anatomy_of(config).positions_follow_padding
    return positions - (config.pad_token_id or 0) - 1 if offset else positions


def head_size(config: PreTrainedConfig) -> int:
    """Return the width of one attention head, which pruning never changes."""
    own = getattr(config, "head_dim", None) or getattr(config, "attention_head_size", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def head_units(config: PreTrainedConfig) -> int:
    """Return the number of heads of an unpruned layer, or of groups of heads that share keys and values."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def neurons_key(config: PreTrainedConfig) -> str:
    """Return the key of the number of feed-forward neurons in a configuration."""
    also = anatomy_of(config).size_aliases.items()
    return next((own for own, common in also if common == "intermediate_size"), "intermediate_size")


def depth_key(config: PreTrainedConfig) -> str:
    """Return the key of the number of layers in a stored configuration."""
    return str(type(config).attribute_map.get("num_hidden_layers", "num_hidden_layers"))


def new_config(kind: str, positions: int, **sizes: Any) -> PreTrainedConfig:
    """Return the configuration of a new model.

    Args:
        kind: architecture, a key of `ANATOMIES`.
        positions: longest input in tokens.
        **sizes: by their common names: `hidden_size`, `num_hidden_layers`, `num_attention_heads`,
            `intermediate_size`, `vocab_size`, `pad_token_id` and any other key that all configurations share.
    """
    anatomy = ANATOMIES[kind]
    own_names: Mapping[str, str] = type(AutoConfig.for_model(kind)).attribute_map
    keys = {own_names.get(name, name): value for name, value in sizes.items()}
    keys |= {own: sizes[common] for own, common in anatomy.size_aliases.items()}
    # RoBERTa counts positions from the padding id + 1, so its table has rows that are never used.
    offset = sizes["pad_token_id"] + 1 if anatomy.positions_follow_padding else 0
    return AutoConfig.for_model(kind, **keys, max_position_embeddings=positions + offset)
