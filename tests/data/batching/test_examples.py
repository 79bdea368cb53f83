from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from plankwise.core.errors import ModelError
from plankwise.data.batching.examples import Collator, encode, lengths_of
from plankwise.data.truncation import Truncation
from tiny import tokenizer

SHORT = Truncation(max_length=16)
TEXTS = ["the day", "a fine house under the tree", "never", "the river " * 40]


def split(pairs: list[str] | None = None) -> Dataset:
    columns = {"id": list("abcd"), "text": TEXTS, "label": [0, 1, 1, 0]}
    return Dataset.from_dict(columns | ({"text_pair": pairs} if pairs else {}))


class TestEncode:
    def test_keeps_order_cuts_to_length_and_does_not_pad(self) -> None:
        examples = encode(split(), tokenizer(), SHORT)
        assert lengths_of(examples) == [4, 8, 3, 16]
        assert [each["labels"] for each in examples] == [0, 1, 1, 0]
        assert all(set(each) == {"input_ids", "attention_mask", "labels"} for each in examples)
        assert tokenizer().decode(examples[1]["input_ids"]) == "[CLS] a fine house under the tree [SEP]"

    def test_joins_pairs(self) -> None:
        examples = encode(split(["a stone", "a", "often", "the walk"]), tokenizer(), SHORT)
        assert tokenizer().decode(examples[0]["input_ids"]) == "[CLS] the day [SEP] a stone [SEP]"
        assert lengths_of(examples) == [7, 10, 5, 16]


class TestCollator:
    def test_pads_to_the_longest_of_the_batch(self) -> None:
        examples = encode(split(), tokenizer(), SHORT)
        batch = Collator(tokenizer())(examples[:3])
        assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 8)
        for row, example in enumerate(examples[:3]):
            length = len(example["input_ids"])
            assert batch["input_ids"][row].tolist() == example["input_ids"] + [0] * (8 - length)
            assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (8 - length)
        assert batch["labels"].tolist() == [0, 1, 1]
        assert batch["labels"].dtype == torch.int64

    def test_several_labels_stay_floating_point(self) -> None:
        examples = [{**each, "labels": [0.0, 1.0]} for each in encode(split(), tokenizer(), SHORT)]
        labels = Collator(tokenizer())(examples)["labels"]
        assert (labels.dtype, labels.shape) == (torch.float32, (4, 2))

    def test_works_without_labels_and_leaves_the_examples_alone(self) -> None:
        examples = [
            {"input_ids": [2, 5, 3], "attention_mask": [1, 1, 1]},
            {"input_ids": [2, 3], "attention_mask": [1, 1]},
        ]
        before = [dict(each) for each in examples]
        assert set(Collator(tokenizer())(examples)) == {"input_ids", "attention_mask"}
        assert examples == before

    def test_refuses_a_tokenizer_that_cannot_pad(self) -> None:
        bare = tokenizer()
        bare.pad_token = None
        with pytest.raises(ModelError, match="padding token"):
            Collator(bare)
