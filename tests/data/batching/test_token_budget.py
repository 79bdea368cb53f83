"""What the model sees is what training showed it, token by token; batches keep their budget."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import processors

import tiny
from plankwise.core.errors import ModelError
from plankwise.data.batching.examples import encode, flatten, pool
from plankwise.data.batching.inputs import bare_tokenizer, encode_texts
from plankwise.data.batching.token_budget import check_inputs, cut_batches, padded_batch, pooled, starts_of
from plankwise.data.truncation import Truncation, Windows

NAMES = ("input_ids", "token_type_ids", "attention_mask")
READINGS = {
    "head": Truncation(max_length=11),
    "tail": Truncation(max_length=11, truncation="tail"),
    "head_tail": Truncation(max_length=11, truncation="head_tail"),
    "windows": Truncation(max_length=11, windows=Windows(stride=3, most=4)),
}
CASES = [(name, pairs) for name, each in READINGS.items() for pairs in ((False,) if each.windows else (False, True))]


def tokenizer():
    made = tiny.tokenizer()
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.model_input_names = list(NAMES)
    return made


def texts(seed: int, count: int = 150) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices([*tiny.PLAIN, *tiny.GOOD, "[SEP]"], k=draw.randint(1, 40))) for _ in range(count)]


def inputs(encoded, number: int) -> dict[str, list[int]]:
    batch = padded_batch(encoded, starts_of(encoded.lengths), np.array([number]), dict.fromkeys(NAMES, 0))
    return {name: rows[0].tolist() for name, rows in batch.items()}


@pytest.mark.parametrize(("name", "pairs"), CASES)
def test_tokens_are_those_of_training(name, pairs):
    truncation = READINGS[name]
    first, second = texts(1), texts(2)
    columns = {"text": first, "label": [0] * len(first)} | ({"text_pair": second} if pairs else {})
    expected, window_of = flatten(encode(Dataset.from_dict(columns), tokenizer(), truncation))
    given = list(zip(first, second, strict=True)) if pairs else first
    found = encode_texts(given, bare_tokenizer(tokenizer()), NAMES, truncation)
    assert [inputs(found, number) for number in range(len(found.lengths))] == expected
    assert np.repeat(np.arange(len(first)), found.inputs_of).tolist() == window_of
    too_long = {
        n for n, each in enumerate(tokenizer()(first, second if pairs else None)["input_ids"]) if len(each) > 11
    }
    assert found.over_long.keys() == (set() if truncation.windows else too_long)
    assert 0 < len(too_long) < len(first)


def test_texts_that_may_not_be_cut_get_no_input():
    found = encode_texts(["the day", "the " * 30, "never"], bare_tokenizer(tokenizer()), NAMES, READINGS["head"], False)
    assert found.inputs_of.tolist() == [1, 0, 1]
    assert found.over_long == {1: 32}
    assert found.lengths.tolist() == [4, 3]


def test_batches_keep_their_budget_and_hold_every_input_once():
    lengths = np.array([random.Random(3).randint(1, 70) for _ in range(500)])
    batches = cut_batches(lengths, 64)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(each) * lengths[each].max() <= 64 or len(each) == 1 for each in batches)
    assert [lengths[each].max() for each in batches] == sorted((lengths[each].max() for each in batches), reverse=True)
    assert sum(len(each) * lengths[each].max() for each in batches) < 1.05 * lengths.sum()
    assert [each.tolist() for each in cut_batches(lengths[:3], None)] == [[0], [1], [2]]


def test_padding_is_that_of_the_slow_reference():
    found = encode_texts(texts(4, 9), bare_tokenizer(tokenizer()), NAMES, READINGS["windows"])
    chosen, padding = np.array([7, 2, 5]), {"input_ids": 9, "token_type_ids": 1, "attention_mask": 0}
    batch = padded_batch(found, starts_of(found.lengths), chosen, padding)
    rows = [inputs(found, int(number)) for number in chosen]
    longest = max(len(row["input_ids"]) for row in rows)
    expected = {
        name: [[*row[name], *[fill] * (longest - len(row[name]))] for row in rows] for name, fill in padding.items()
    }
    assert all(np.array_equal(batch[name], expected[name]) and batch[name].dtype == np.int64 for name in NAMES)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooling_is_that_of_training(pooling):
    logits = np.random.default_rng(0).normal(size=(7, 3))
    window_of = torch.tensor([0, 1, 1, 1, 2, 3, 3])
    expected = pool(torch.from_numpy(logits), window_of, pooling).numpy()
    assert np.allclose(pooled(logits, np.array([1, 0, 3, 1, 2]), pooling), expected, rtol=1e-14)


def test_an_input_that_no_tokenizer_makes_is_refused():
    with pytest.raises(ModelError, match="takes an input 'bbox'; allowed: input_ids"):
        check_inputs(("input_ids", "bbox"))
