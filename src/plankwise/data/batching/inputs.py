"""Texts to model inputs: token ids, the inputs that a model takes, and padding.

Training, scoring and prediction share this one path. What a tokenizer's files say about padding, truncation and their
sides has no effect: inputs are padded on the right, so that the positions of a text's tokens, and with them the model's
output, do not depend on the texts that share its batch.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from plankwise.core.errors import ModelError
from plankwise.core.records import TextsRead
from plankwise.data.truncation import Truncation, is_thinned, positions_read

logger = logging.getLogger(__name__)
Text = str | tuple[str, str]  # or a pair of texts
Numbers = npt.NDArray[np.int64]
Batch = dict[str, Tensor]
Inputs = Mapping[str, npt.NDArray[np.int64]]  # of a runtime: padded, each [inputs, longest]
Value = TypeVar("Value")
TEXTS_AT_ONCE = 64  # few, so that the encodings of long texts are cut before they pile up in memory
MASK = "attention_mask"
_BARE: WeakKeyDictionary[PreTrainedTokenizerBase, Tokenizer] = WeakKeyDictionary()
PARTS = {"input_ids": "ids", "token_type_ids": "type_ids"}  # how the tokenizer names what the model takes


@dataclass(frozen=True)
class Encoded:
    """What the model sees of some texts: one input for each, or several windows.

    Attributes:
        lengths: tokens of each input, [inputs].
        tokens: by the name of the model's input those of all inputs, one after the other, [tokens].
        inputs_of: how many inputs each text has, [texts]; one that is too long and not to be cut has none.
        over_long: tokens of each text that is too long, by its index; none with windows, which cover whole texts.
        read: how much of the texts that have an input is read.
    """

    lengths: Numbers
    tokens: Mapping[str, npt.NDArray[np.int32]]
    inputs_of: Numbers
    over_long: Mapping[int, int]
    read: TextsRead = field(default_factory=TextsRead)


def bare_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Return a copy of the underlying fast tokenizer, without the truncation and padding of its file or its last use.

    The copy is cached and shared, because copying 250,000 tokens takes seconds: callers must not change it.

    Raises:
        ModelError: if the tokenizer is not a fast one.
    """
    if not tokenizer.is_fast:
        raise ModelError(f"{type(tokenizer).__name__} is not a fast tokenizer; allowed: one with a tokenizer.json")
    known = _BARE.get(tokenizer)
    if known is None or known.get_vocab_size() != len(tokenizer):  # tokens were added since
        known = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        known.no_padding()
        known.no_truncation()
        _BARE[tokenizer] = known
    return known


def made_by(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the names of the inputs that this tokenizer makes: ids and mask always, token types where it has them."""
    named = [name for name in tokenizer.model_input_names if name in (*PARTS, MASK)]
    return tuple(dict.fromkeys([*named, "input_ids", MASK]))


def inputs_of(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the names of the inputs that the tokenizer makes and the model takes."""
    return tuple(model_inputs(model, dict.fromkeys(made_by(tokenizer))))


def model_inputs(model: nn.Module, batch: Mapping[str, Value]) -> dict[str, Value]:
    """Return the part of a batch that the model takes, without labels and indices."""
    taken = _taken(type(model).forward)  # of the class: on the instance, Accelerate wraps it during training
    return {name: value for name, value in batch.items() if name in taken}


@functools.cache
def _taken(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters) & {*PARTS, MASK}


def padding_of(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> dict[str, int]:
    """Return the value that fills up each of the named inputs.

    Raises:
        ModelError: if the tokenizer has no padding token.
    """
    if tokenizer.pad_token_id is None:
        raise ModelError("the tokenizer has no padding token; texts of different lengths cannot share a batch")
    fills = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    return {name: fills.get(name, 0) for name in names}


def pad_right(
    lengths: Numbers, tokens: Mapping[str, npt.NDArray[np.integer]], padding: Mapping[str, int]
) -> dict[str, Numbers]:
    """Pad inputs on the right to the longest of them, [inputs, longest].

    Args:
        lengths: tokens of each input, [inputs].
        tokens: by the name of the model's input those of all inputs, one after the other, [tokens].
        padding: the value that fills up each of the model's inputs, by its name; the mask is made here.
    """
    filled = np.arange(lengths.max()) < lengths[:, None]
    made: dict[str, Numbers] = {}
    for name, fill in padding.items():
        made[name] = np.full(filled.shape, fill, dtype=np.int64)
        made[name][filled] = 1 if name == MASK else tokens[name]
    return made


def padded_tensors(inputs: Sequence[Mapping[str, Sequence[int]]], padding: Mapping[str, int]) -> Batch:
    """Pad inputs that are lists of ints, or arrays, with `pad_right`, as tensors [inputs, longest]."""
    lengths = np.array([len(each["input_ids"]) for each in inputs])
    tokens = {name: np.concatenate([np.asarray(each[name]) for each in inputs]) for name in padding if name != MASK}
    return {name: torch.from_numpy(value) for name, value in pad_right(lengths, tokens, padding).items()}


def encode_texts(
    texts: Sequence[Text], tokenizer: Tokenizer, names: Sequence[str], truncation: Truncation, truncate: bool = True
) -> Encoded:
    """Tokenize and truncate texts.

    Args:
        texts: single ones or pairs.
        tokenizer: without truncation and padding, by `bare_tokenizer`.
        names: of the model's inputs.
        truncation: settings that passed `check_truncation`.
        truncate: whether texts that are too long are cut; otherwise they get no input.
    """
    parts = {name: PARTS[name] for name in names if name != MASK}
    stored: dict[str, list[npt.NDArray[np.int32]]] = {name: [np.empty(0, np.int32)] for name in parts}
    lengths: list[int] = []
    short: list[int] = []
    inputs_of = np.ones(len(texts), dtype=np.int64)
    over_long: dict[int, int] = {}
    read = TextsRead()
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        seen: dict[str, list[Sequence[int]]] = {name: [] for name in parts}
        for number, each in enumerate(tokenizer.encode_batch_fast(list(texts[start : start + TEXTS_AT_ONCE])), start):
            if len(each) <= truncation.max_length:
                for name, part in parts.items():
                    seen[name].append(getattr(each, part))
                short.append(len(each))
                continue
            if truncation.windows is None:
                over_long[number] = len(each)
            inputs_of[number] = 0
            if truncate or truncation.windows is not None:
                inputs_of[number], counted = _cut(each, truncation, parts, seen)
                read += counted
        lengths += map(len, seen["input_ids"])
        for name, rows in seen.items():
            stored[name].append(np.fromiter(chain.from_iterable(rows), np.int32, count=sum(map(len, rows))))
    tokens = {name: np.concatenate(rows) for name, rows in stored.items()}
    read += TextsRead(texts=len(short), tokens=sum(short))
    return Encoded(np.array(lengths, dtype=np.int64), tokens, inputs_of, over_long, read)


def _cut(
    encoding: Encoding, truncation: Truncation, parts: Mapping[str, str], seen: dict[str, list[Sequence[int]]]
) -> tuple[int, TextsRead]:
    """Append the inputs of a text that is too long for one; return their number and how much they hold of the text."""
    special = encoding.special_tokens_mask
    chosen = positions_read(special, truncation)
    for name, part in parts.items():
        values = getattr(encoding, part)
        seen[name] += [itemgetter(*positions)(values) for positions in chosen]
    return len(chosen), TextsRead(
        texts=1,
        tokens=len(encoding),
        truncated=int(truncation.windows is None),
        thinned=int(is_thinned(special, truncation)),
        unread_tokens=len(encoding) - len(set(chain.from_iterable(chosen))),
    )


def log_texts_read(what: str, read: TextsRead) -> None:
    """Log in one line how many texts of `what` are truncated or thinned, if any are."""
    if read.truncated or read.thinned:
        logger.info("%s: %s", what, read)
