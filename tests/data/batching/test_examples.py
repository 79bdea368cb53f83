from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
from datasets import Dataset

from plankwise.core.errors import ModelError
from plankwise.data.batching.examples import Collator, encode, lengths_of, token_budget_batches
from plankwise.data.truncation import Truncation
from tiny import tokenizer

SHORT = Truncation(max_length=16)
TEXTS = ["the day", "a fine house under the tree", "never", "the river " * 40]


def split(pairs: list[str] | None = None) -> Dataset:
    columns = {"id": list("abcd"), "text": TEXTS, "label": [0, 1, 1, 0]}
    return Dataset.from_dict(columns | ({"text_pair": pairs} if pairs else {}))


class TestEncode:
    def test_keeps_order_cuts_to_length_and_does_not_pad(self):
        examples = encode(split(), tokenizer(), SHORT)
        assert lengths_of(examples) == [4, 8, 3, 16]
        assert [each["labels"] for each in examples] == [0, 1, 1, 0]
        assert all(set(each) == {"input_ids", "attention_mask", "labels"} for each in examples)
        assert tokenizer().decode(examples[1]["input_ids"]) == "[CLS] a fine house under the tree [SEP]"

    def test_joins_pairs(self):
        examples = encode(split(["a stone", "a", "often", "the walk"]), tokenizer(), SHORT)
        assert tokenizer().decode(examples[0]["input_ids"]) == "[CLS] the day [SEP] a stone [SEP]"
        assert lengths_of(examples) == [7, 10, 5, 16]


class TestCollator:
    def test_pads_to_the_longest_of_the_batch(self):
        examples = encode(split(), tokenizer(), SHORT)
        batch = Collator(tokenizer())(examples[:3])
        assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 8)
        for row, example in enumerate(examples[:3]):
            length = len(example["input_ids"])
            assert batch["input_ids"][row].tolist() == example["input_ids"] + [0] * (8 - length)
            assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (8 - length)
        assert batch["labels"].tolist() == [0, 1, 1]
        assert batch["labels"].dtype == torch.int64

    def test_several_labels_stay_floating_point(self):
        examples = [{**each, "labels": [0.0, 1.0]} for each in encode(split(), tokenizer(), SHORT)]
        labels = Collator(tokenizer())(examples)["labels"]
        assert (labels.dtype, labels.shape) == (torch.float32, (4, 2))

    def test_works_without_labels_and_leaves_the_examples_alone(self):
        examples = [
            {"input_ids": [2, 5, 3], "attention_mask": [1, 1, 1]},
            {"input_ids": [2, 3], "attention_mask": [1, 1]},
        ]
        before = [dict(each) for each in examples]
        assert set(Collator(tokenizer())(examples)) == {"input_ids", "attention_mask"}
        assert examples == before

    def test_refuses_a_tokenizer_that_cannot_pad(self):
        bare = tokenizer()
        bare.pad_token = None
        with pytest.raises(ModelError, match="padding token"):
            Collator(bare)


class TestTokenBudget:
    @pytest.mark.parametrize("budget", [1, 40, 64, 500, 10**6])
    @pytest.mark.parametrize("seed", range(3))
    def test_covers_every_index_once_within_the_budget(self, budget, seed):
        draw = random.Random(seed)
        lengths = [draw.randint(1, 60) for _ in range(97)]
        batches = token_budget_batches(lengths, budget)
        assert sorted(index for batch in batches for index in batch) == list(range(97))
        for batch in batches:
            assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget
        flat = [lengths[index] for batch in batches for index in batch]
        assert flat == sorted(flat)
        for batch, following in pairwise(batches):  # no batch could have held one more
            assert (len(batch) + 1) * lengths[following[0]] > budget

    def test_by_hand(self):
        assert token_budget_batches([5, 2, 9, 2, 4], 8) == [[1, 3], [4], [0], [2]]
        assert token_budget_batches([5, 2, 9, 2, 4], 12) == [[1, 3, 4], [0], [2]]
        assert token_budget_batches([], 8) == []
