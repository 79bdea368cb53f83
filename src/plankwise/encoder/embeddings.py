"""Models of fewer tokens: the rows of the tokens that stay, wherever a model has a row for each token."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.encoder.anatomy import anatomy_of
from plankwise.encoder.shapes import new_model

_NAMES_A_TOKEN = "_token_id"  # how the keys of a configuration end that hold the id of a token


def fixed_rows(config: PreTrainedConfig) -> set[int]:
    """List the rows that have to stay: those that the configuration names, and those that position numbers lean on.

    Where positions are counted from the padding id on, that id may not change, so that all rows in front of it stay.
    """
    named = {each for value in _named(config).values() for each in (value if isinstance(value, list) else [value])}
    anatomy = anatomy_of(config)
    if anatomy.positions_follow_padding:
        named |= set(range(max(config.pad_token_id or 0, anatomy.counts_on_padding_id or 0) + 1))
    return {row for row in named if 0 <= row < config.vocab_size}


def with_tokens(config: PreTrainedConfig, kept: Sequence[int]) -> PreTrainedConfig:
    """Copy `config` for a model whose row i is row `kept[i]` of this one; ids that it names move along."""
    new = {old: row for row, old in enumerate(kept)}
    smaller = copy.deepcopy(config)
    for key, value in _named(config).items():
        moved = [new.get(each, each) for each in value] if isinstance(value, list) else new.get(value, value)
        setattr(smaller, key, moved)  # an id behind the table's end named no row before either
    smaller.vocab_size = len(kept)
    return smaller


def keep_tokens(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """Build a model whose row i for tokens is row `kept[i]` of `model`, which is not changed.

    Sliced are the embeddings and, where there is a masked-LM head, its decoder and bias: every tensor that has a row
    for each token.

    Args:
        model: any supported encoder, with any head.
        kept: rows to keep, in ascending order; among them all `fixed_rows`.
    """
    with torch.random.fork_rng(devices=[]):  # the random start is overwritten whole
        smaller = new_model(type(model), with_tokens(model.config, kept)).to(model.device, model.dtype)
    rows = torch.as_tensor(list(kept), device=model.device)
    wanted = smaller.state_dict()
    state = {name: _sliced(value, wanted[name], rows) for name, value in model.state_dict().items()}
    smaller.load_state_dict(state)
    return smaller.train(model.training)


def _sliced(value: Tensor, wanted: Tensor, rows: Tensor) -> Tensor:
    return value if value.shape == wanted.shape else value[rows]


def _named(config: PreTrainedConfig) -> dict[str, Any]:
    """List the keys of a configuration that name a token, with one id or several."""
    return {
        key: value
        for key, value in config.to_dict().items()
        if key.endswith(_NAMES_A_TOKEN) and isinstance(value, int | list)
    }
