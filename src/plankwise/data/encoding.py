"""Texts to token ids, and token ids to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from plankwise.core.errors import ModelError

Batch = dict[str, Tensor]


def encode(split: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[dict[str, Any]]:
    """Tokenize one split, truncated to `max_length` tokens; padding waits until a batch is known.

    Returns:
        One dict per row with the tokenizer's inputs as lists of ints and `labels`.
    """
    pairs = split["text_pair"][:] if "text_pair" in split.column_names else None
    encoded = tokenizer(split["text"][:], pairs, truncation=True, max_length=max_length)
    names = [name for name in tokenizer.model_input_names if name in encoded]
    labels = split["label"][:]
    return [{**{name: encoded[name][row] for name in names}, "labels": labels[row]} for row in range(len(labels))]


def lengths_of(examples: Sequence[dict[str, Any]]) -> list[int]:
    """Count the tokens of each example."""
    return [len(example["input_ids"]) for example in examples]


class Collator:
    """Pads examples to the longest of their batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.pad_token_id is None:
            raise ModelError("the tokenizer has no padding token; texts of different lengths cannot share a batch")
        self._tokenizer = tokenizer

    def __call__(self, examples: Sequence[dict[str, Any]]) -> Batch:
        """Make tensors [batch, longest] of the examples; labels become int64 indices or float32 flags."""
        inputs = [{name: value for name, value in each.items() if name != "labels"} for each in examples]
        # The fast tokenizer's advice to call it directly does not apply: texts were tokenized once, beforehand.
        self._tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
        batch = dict(self._tokenizer.pad(inputs, return_tensors="pt"))
        if "labels" in examples[0]:
            batch["labels"] = torch.tensor([each["labels"] for each in examples])
        return batch


def token_budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group indices, sorted by length, into batches of at most `budget` padded tokens (at least one text each)."""
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[index] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
