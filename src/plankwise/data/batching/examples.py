"""Texts to token ids, and token ids to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from plankwise.core.records import TextsRead
from plankwise.data.batching.inputs import (
    MASK,
    Batch,
    Encoded,
    Text,
    bare_tokenizer,
    encode_texts,
    made_by,
    padded_tensors,
    padding_of,
)
from plankwise.data.task import TRAIN, Task
from plankwise.data.truncation import Pooling, Truncation, check_truncation

Example = dict[str, Any]
NOT_IN_A_WINDOW = frozenset({"labels", "window_of", "example"})
TEXTS_AT_ONCE = 1000


def check_fits(truncation: Truncation, task: Task, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Refuse a reading that the tokenizer, or one yet to be trained, or a task with labels does not allow.

    Raises:
        RecipeError: naming the key and what is allowed.
    """
    if task.kind == "masked_lm":
        return
    pairs = "text_pair" in task.splits[TRAIN].column_names
    own = 3 if pairs else 2  # special tokens of the tokenizers that are trained here
    check_truncation(truncation, own if tokenizer is None else tokenizer.num_special_tokens_to_add(pair=pairs), pairs)


def encode(split: Dataset, tokenizer: PreTrainedTokenizerBase, truncation: Truncation) -> list[Example]:
    """Do what `encode_and_count` does without counting."""
    return encode_and_count(split, tokenizer, truncation)[0]


def encode_and_count(
    split: Dataset, tokenizer: PreTrainedTokenizerBase, truncation: Truncation
) -> tuple[list[Example], TextsRead]:
    """Tokenize one split and keep of each text what `truncation` says; padding waits until a batch is known.

    Returns:
        One dict per row with the tokenizer's inputs as lists of ints and `labels`. With windows these inputs are in a
        list `windows` of such dicts, one for each window. And how much of the texts that is.

    Raises:
        RecipeError: if the reading does not fit the tokenizer or the task.
    """
    pairs = "text_pair" in split.column_names
    bare, names = bare_tokenizer(tokenizer), made_by(tokenizer)
    check_truncation(truncation, bare.num_special_tokens_to_add(pairs), pairs)
    examples: list[Example] = []
    read = TextsRead()
    for start in range(0, len(split), TEXTS_AT_ONCE):
        rows = split[start : start + TEXTS_AT_ONCE]
        texts: list[Text] = list(zip(rows["text"], rows["text_pair"], strict=True)) if pairs else rows["text"]
        encoded = encode_texts(texts, bare, names, truncation)
        read += encoded.read
        for inputs, label in zip(_inputs(encoded, names), rows["label"], strict=True):
            parts = inputs[0] if truncation.windows is None else {"windows": inputs}
            examples.append({**parts, "labels": label})
    return examples, read


def _inputs(encoded: Encoded, names: Sequence[str]) -> list[list[Example]]:
    """List the inputs of each text."""
    ends = encoded.lengths.cumsum().tolist()
    stretches = list(zip([0, *ends], ends, strict=False))
    inputs = [
        {name: [1] * (end - start) if name == MASK else encoded.tokens[name][start:end].tolist() for name in names}
        for start, end in stretches
    ]
    ends = encoded.inputs_of.cumsum().tolist()
    return [inputs[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def flatten(examples: Sequence[Example]) -> tuple[list[Example], list[int]]:
    """List what the model sees of all examples, and the number of the example behind each input."""
    inputs: list[Example] = []
    window_of: list[int] = []
    for number, example in enumerate(examples):
        windows = example.get("windows", [example])
        inputs += [{name: value for name, value in each.items() if name not in NOT_IN_A_WINDOW} for each in windows]
        window_of += [number] * len(windows)
    return inputs, window_of


def pool(logits: Tensor, window_of: Tensor, pooling: Pooling) -> Tensor:
    """Pool the logits of windows, [windows, labels], into those of texts, [texts, labels].

    Args:
        logits: a text's windows stand together, texts are in order and none is without a window.
        window_of: number of each window's text, [windows].
        pooling: mean or maximum; one window alone gives its own logits, bit by bit, either way.
    """
    # Not index_add: on GPUs that adds in any order, and a resumed training would end at other weights.
    parts = torch.split(logits, torch.bincount(window_of).tolist())
    return torch.stack([part.mean(dim=0) if pooling == "mean" else part.amax(dim=0) for part in parts])


def lengths_of(examples: Sequence[Example]) -> list[int]:
    """Count the tokens of each example, over all its windows."""
    return [sum(len(each["input_ids"]) for each in example.get("windows", [example])) for example in examples]


class Collator:
    """Pads examples on the right to the longest of their batch, whatever side their tokenizer would pad on."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._padding = padding_of(tokenizer, made_by(tokenizer))

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Make tensors [batch, longest] of the examples; labels become int64 indices or float32 flags.

        A number that an example has in its split, `example`, comes along, [batch].

        Where examples have windows, the batch holds all of these, [windows, longest], and `window_of`, [windows].
        """
        inputs, window_of = flatten(examples)
        batch = padded_tensors(inputs, {name: fill for name, fill in self._padding.items() if name in inputs[0]})
        if "windows" in examples[0]:
            batch["window_of"] = torch.tensor(window_of)
        if "example" in examples[0]:
            batch["example"] = torch.tensor([each["example"] for each in examples])
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
