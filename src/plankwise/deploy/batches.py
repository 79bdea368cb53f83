"""Texts to token ids, and token ids to batches of like length: in Rust and numpy, a few calls for many texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from plankwise.core.errors import ModelError
from plankwise.data.reading import Pooling, Reading, positions_read
from plankwise.deploy.runtimes import Inputs

Text = str | tuple[str, str]  # or a pair of texts
Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
TOKENS_PER_BATCH = 512  # padded ones; 256 to 512 are best for int8 on two streams
TEXTS_AT_ONCE = 64  # long texts are cut soon after they are tokenized, so that they do not pile up
MASK = "attention_mask"
_PARTS = {"input_ids": "ids", "token_type_ids": "type_ids"}  # how the tokenizer names what the model takes


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What the model sees of some texts: one input for each, or several windows.

    Attributes:
        lengths: tokens of each input, [inputs].
        tokens: by the name of the model's input those of all inputs, one behind the other, [tokens].
        inputs_of: how many inputs each text has, [texts]; one that is too long and not to be cut has none.
        over_long: tokens of the texts that are longer than the model reads, by their numbers; windows read them whole.
    """

    lengths: Numbers
    tokens: Mapping[str, npt.NDArray[np.int32]]
    inputs_of: Numbers
    over_long: Mapping[int, int]


def check_inputs(names: Sequence[str]) -> None:
    """Refuse a model that takes something else than a tokenizer gives.

    Raises:
        ModelError: naming it.
    """
    for name in names:
        if name not in (*_PARTS, MASK):
            raise ModelError(f"the model takes an input '{name}'; allowed: {', '.join((*_PARTS, MASK))}")


def encode_texts(
    texts: Sequence[Text], tokenizer: Tokenizer, names: Sequence[str], reading: Reading, truncate: bool = True
) -> Encoded:
    """Tokenize texts and keep of each what `reading` says, token by token what training keeps.

    Args:
        texts: single ones or pairs.
        tokenizer: that neither cuts nor pads.
        names: of the model's inputs.
        reading: settings that passed `check_reading`.
        truncate: cut texts that are too long; otherwise they get no input.
    """
    parts = {name: _PARTS[name] for name in names if name != MASK}
    stored: dict[str, list[npt.NDArray[np.int32]]] = {name: [np.empty(0, np.int32)] for name in parts}
    lengths: list[int] = []
    inputs_of = np.ones(len(texts), dtype=np.int64)
    over_long: dict[int, int] = {}
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        seen: dict[str, list[Sequence[int]]] = {name: [] for name in parts}
        for number, each in enumerate(tokenizer.encode_batch_fast(list(texts[start : start + TEXTS_AT_ONCE])), start):
            if len(each) <= reading.max_length:
                for name, part in parts.items():
                    seen[name].append(getattr(each, part))
                continue
            if reading.windows is None:
                over_long[number] = len(each)
            inputs_of[number] = _cut(each, reading, parts, seen) if truncate or reading.windows is not None else 0
        lengths += map(len, seen["input_ids"])
        for name, rows in seen.items():
            stored[name].append(np.fromiter(chain.from_iterable(rows), np.int32, count=sum(map(len, rows))))
    tokens = {name: np.concatenate(rows) for name, rows in stored.items()}
    return Encoded(np.array(lengths, dtype=np.int64), tokens, inputs_of, over_long)


def _cut(encoding: Encoding, reading: Reading, parts: Mapping[str, str], seen: dict[str, list[Sequence[int]]]) -> int:
    """Add the inputs of a text that is longer than one of them, and count them."""
    chosen = positions_read(encoding.special_tokens_mask, reading)
    for name, part in parts.items():
        values = getattr(encoding, part)
        seen[name] += [itemgetter(*positions)(values) for positions in chosen]
    return len(chosen)


def cut_batches(lengths: Numbers, budget: int | None) -> list[Numbers]:
    """Group the numbers of inputs, longest first, into batches of at most `budget` padded tokens, at least one input.

    Without a budget each input is a batch by itself, in order. Long ones come first so that streams end together.
    """
    if budget is None:
        return [np.array([number]) for number in range(len(lengths))]
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        end = start + max(1, budget // max(1, int(lengths[order[start]])))
        batches.append(order[start:end])
        start = end
    return batches


def padded_batch(encoded: Encoded, starts: Numbers, chosen: Numbers, padding: Mapping[str, int]) -> Inputs:
    """Pad the chosen inputs on the right to the longest of them, [chosen, longest].

    Args:
        encoded: all inputs.
        starts: where each begins among the tokens, [inputs].
        chosen: numbers of inputs.
        padding: the value that fills up each of the model's inputs, by its name.
    """
    lengths = encoded.lengths[chosen]
    columns = np.arange(lengths.max())
    filled = columns < lengths[:, None]
    where = (starts[chosen][:, None] + columns)[filled]
    made: dict[str, Numbers] = {}
    for name, fill in padding.items():
        made[name] = np.full(filled.shape, fill, dtype=np.int64)
        made[name][filled] = 1 if name == MASK else encoded.tokens[name][where]
    return made


def starts_of(lengths: Numbers) -> Numbers:
    """Say where each of some stretches begins that lie one behind the other."""
    starts: Numbers = np.cumsum(lengths) - lengths
    return starts


def pooled(logits: Floats, inputs_of: Numbers, pooling: Pooling | None) -> Floats:
    """Pool the logits of inputs, [inputs, labels], into those of the texts that have any, [texts, labels].

    Without pooling, each text has one input, or none.
    """
    counts = inputs_of[inputs_of > 0]
    if pooling is None or not len(counts):
        return logits
    if pooling == "max":
        largest: Floats = np.maximum.reduceat(logits, starts_of(counts), axis=0)
        return largest
    means: Floats = np.add.reduceat(logits, starts_of(counts), axis=0) / counts[:, None]
    return means
