"""Texts to token ids, and token ids to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
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
from plankwise.data.truncation import Truncation, check_truncation

Example = dict[str, Any]
NOT_IN_A_WINDOW = frozenset({"labels", "window_of", "example"})
TEXTS_AT_ONCE = 1000


def check_fits(truncation: Truncation, task: Task, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Refuse settings that do not fit the tokenizer or the task's texts; blocks of a corpus are never truncated.

    Args:
        truncation: settings.
        task: whose texts are to be read.
        tokenizer: None where one will be trained, which adds as many special tokens as BERT's.

    Raises:
        RecipeError: naming the key and what is allowed.
    """
    if not task.has_labels:
        return
    pairs = "text_pair" in task.splits[TRAIN].column_names
    new = 3 if pairs else 2  # special tokens of the tokenizers that are trained here
    check_truncation(truncation, new if tokenizer is None else tokenizer.num_special_tokens_to_add(pair=pairs), pairs)


def encode(split: Dataset, tokenizer: PreTrainedTokenizerBase, truncation: Truncation) -> list[Example]:
    """Return the examples of `encode_and_count` alone."""
    return encode_and_count(split, tokenizer, truncation)[0]


def encode_and_count(
    split: Dataset, tokenizer: PreTrainedTokenizerBase, truncation: Truncation
) -> tuple[list[Example], TextsRead]:
    """Tokenize and truncate one split; padding waits until a batch is known.

    Returns:
        One dict per row with the tokenizer's inputs as lists of ints and `labels`. With windows these inputs are in a
        list `windows` of such dicts, one for each window. And how much of the texts the model sees.

    Raises:
        RecipeError: if the truncation does not fit the tokenizer or the task.
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
    inputs = [
        {name: [1] * (end - start) if name == MASK else encoded.tokens[name][start:end].tolist() for name in names}
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    ends = encoded.inputs_of.cumsum().tolist()
    return [inputs[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def flatten(examples: Sequence[Example]) -> tuple[list[Example], list[int]]:
    """Return the inputs of all examples, windows one by one, and the index of the example of each input."""
    inputs: list[Example] = []
    window_of: list[int] = []
    for number, example in enumerate(examples):
        windows = example.get("windows", [example])
        inputs += [{name: value for name, value in each.items() if name not in NOT_IN_A_WINDOW} for each in windows]
        window_of += [number] * len(windows)
    return inputs, window_of


def lengths_of(examples: Sequence[Example]) -> list[int]:
    """Count the tokens of each example, over all its windows."""
    return [sum(len(each["input_ids"]) for each in example.get("windows", [example])) for example in examples]


class Collator:
    """Pads examples on the right to the longest of their batch, whatever side their tokenizer would pad on."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._padding = padding_of(tokenizer, made_by(tokenizer))

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Return tensors [batch, longest] of the examples, with `labels` as int64 indices or float32 flags.

        The index of an example in its split, `example`, is passed through, [batch]. Where examples have windows, the
        batch holds all windows, [windows, longest], and `window_of`, the row of each window's text, [windows].
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
