"""Prediction sees the tokens that training sees; batches keep their budget; both kinds of pooling agree."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

import tiny
from plankwise.core.errors import ModelError
from plankwise.data.batching.examples import encode, flatten
from plankwise.data.batching.inputs import Encoded, bare_tokenizer, encode_texts, padded_tensors
from plankwise.data.batching.pooling import pool, pooled
from plankwise.data.batching.token_budget import check_inputs, padded_batch, starts_of, token_budget_batches
from plankwise.data.truncation import Pooling, Truncation, Windows

NAMES = ("input_ids", "token_type_ids", "attention_mask")
TRUNCATIONS = {
    "head": Truncation(max_length=11),
    "tail": Truncation(max_length=11, truncation="tail"),
    "head_tail": Truncation(max_length=11, truncation="head_tail"),
    "windows": Truncation(max_length=11, windows=Windows(stride=3, max_windows=4)),
}
CASES = [(name, pairs) for name, each in TRUNCATIONS.items() for pairs in ((False,) if each.windows else (False, True))]


def tokenizer() -> PreTrainedTokenizerFast:
    made = tiny.tokenizer()
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.model_input_names = list(NAMES)
    return made


def texts(seed: int, count: int = 150) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices([*tiny.PLAIN, *tiny.GOOD, "[SEP]"], k=draw.randint(1, 40))) for _ in range(count)]


def inputs(encoded: Encoded, number: int) -> dict[str, list[int]]:
    batch = padded_batch(encoded, starts_of(encoded.lengths), np.array([number]), dict.fromkeys(NAMES, 0))
    return {name: rows[0].tolist() for name, rows in batch.items()}


@pytest.mark.parametrize(("name", "pairs"), CASES)
def test_tokens_are_those_of_training(name: str, pairs: bool) -> None:
    truncation = TRUNCATIONS[name]
    first, second = texts(1), texts(2)
    columns: dict[str, Any] = {"text": first, "label": [0] * len(first)} | ({"text_pair": second} if pairs else {})
    expected, window_of = flatten(encode(Dataset.from_dict(columns), tokenizer(), truncation))
    given: list[Any] = list(zip(first, second, strict=True)) if pairs else first
    found = encode_texts(given, bare_tokenizer(tokenizer()), NAMES, truncation)
    assert [inputs(found, number) for number in range(len(found.lengths))] == expected
    assert np.repeat(np.arange(len(first)), found.inputs_of).tolist() == window_of
    too_long = {
        n for n, each in enumerate(tokenizer()(first, second if pairs else None)["input_ids"]) if len(each) > 11
    }
    assert found.over_long.keys() == (set() if truncation.windows else too_long)
    assert 0 < len(too_long) < len(first)


def test_texts_that_may_not_be_cut_get_no_input() -> None:
    found = encode_texts(
        ["the day", "the " * 30, "never"], bare_tokenizer(tokenizer()), NAMES, TRUNCATIONS["head"], False
    )
    assert found.inputs_of.tolist() == [1, 0, 1]
    assert found.over_long == {1: 32}
    assert found.lengths.tolist() == [4, 3]


@pytest.mark.parametrize("budget", [1, 64, 500, 10**6])
def test_batches_keep_their_budget_and_hold_every_input_once(budget: int) -> None:
    draw = random.Random(budget)
    lengths = np.array([draw.randint(1, 70) for _ in range(500)])
    batches = token_budget_batches(lengths, budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(each) * lengths[each].max() <= budget or len(each) == 1 for each in batches)
    ordered = lengths[np.concatenate(batches)].tolist()
    assert ordered == sorted(ordered, reverse=True)
    for batch, _ in pairwise(batches):  # no batch could have held one more
        assert (len(batch) + 1) * lengths[batch[0]] > budget


def test_batches_by_hand() -> None:
    def batches(lengths: list[int], budget: int | None) -> list[list[int]]:
        return [each.tolist() for each in token_budget_batches(lengths, budget)]

    assert batches([5, 2, 9, 2, 4], 8) == [[2], [0], [4, 1], [3]]
    assert batches([5, 2, 9, 2, 4], 12) == [[2], [0, 4], [1, 3]]
    assert batches([5, 2, 9], None) == [[0], [1], [2]]
    assert batches([], 8) == batches([], None) == []


def test_padding_is_that_of_a_slow_reference_for_training_and_prediction() -> None:
    found = encode_texts(texts(4, 9), bare_tokenizer(tokenizer()), NAMES, TRUNCATIONS["windows"])
    chosen, padding = np.array([7, 2, 5]), {"input_ids": 9, "token_type_ids": 1, "attention_mask": 0}
    batch = padded_batch(found, starts_of(found.lengths), chosen, padding)
    rows = [inputs(found, int(number)) for number in chosen]
    longest = max(len(row["input_ids"]) for row in rows)
    expected = {
        name: [[*row[name], *[fill] * (longest - len(row[name]))] for row in rows] for name, fill in padding.items()
    }
    assert all(np.array_equal(batch[name], expected[name]) and batch[name].dtype == np.int64 for name in NAMES)
    tensors = padded_tensors(rows, padding)
    assert all(np.array_equal(tensors[name].numpy(), batch[name]) for name in NAMES)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooling_in_numpy_is_that_of_training(pooling: Pooling) -> None:
    logits = np.random.default_rng(0).normal(size=(7, 3))
    expected = pool(torch.from_numpy(logits), torch.tensor([0, 1, 1, 1, 2, 3, 3]), pooling).numpy()
    found = pooled(logits, np.array([1, 0, 3, 1, 2]), pooling)  # the second text has no input
    assert np.allclose(found, expected, rtol=1e-14)
    assert np.array_equal(found[[0, 2]], logits[[0, 4]])  # a single window keeps its very bits
    assert pooled(logits[:0], np.array([0, 0]), pooling).shape == (0, 3)


def test_an_input_that_no_tokenizer_makes_is_refused() -> None:
    with pytest.raises(ModelError, match="takes an input 'bbox'; allowed: input_ids"):
        check_inputs(("input_ids", "bbox"))
