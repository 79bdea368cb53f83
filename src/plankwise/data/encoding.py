"""Texts to token ids, and token ids to padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from plankwise.core.errors import ModelError
from plankwise.data.reading import Pooling, Reading, check_reading, positions_read
from plankwise.data.task import TRAIN, Task

Batch = dict[str, Tensor]
Example = dict[str, Any]
NOT_FOR_THE_MODEL = frozenset({"labels", "window_of", "example"})
TEXTS_AT_ONCE = 1000


def check_fits(reading: Reading, task: Task, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Refuse a reading that the tokenizer, or one yet to be trained, or a task with labels does not allow.

    Raises:
        RecipeError: naming the key and what is allowed.
    """
    if task.kind == "masked_lm":
        return
    pairs = "text_pair" in task.splits[TRAIN].column_names
    own = 3 if pairs else 2  # special tokens of the tokenizers that are trained here
    check_reading(reading, own if tokenizer is None else tokenizer.num_special_tokens_to_add(pair=pairs), pairs)


def encode(split: Dataset, tokenizer: PreTrainedTokenizerBase, reading: Reading) -> list[Example]:
    """Tokenize one split and keep of each text what `reading` says; padding waits until a batch is known.

    Returns:
        One dict per row with the tokenizer's inputs as lists of ints and `labels`. With windows these inputs stand in
        a list `windows` of such dicts, one for each window.

    Raises:
        RecipeError: if the reading does not fit the tokenizer or the task.
    """
    pairs = "text_pair" in split.column_names
    check_reading(reading, tokenizer.num_special_tokens_to_add(pair=pairs), pairs)
    examples = []
    for inputs, label in zip(_inputs(split, tokenizer, reading), split["label"][:], strict=True):
        parts = inputs[0] if reading.windows is None else {"windows": inputs}
        examples.append({**parts, "labels": label})
    return examples


def _inputs(split: Dataset, tokenizer: PreTrainedTokenizerBase, reading: Reading) -> Iterator[list[Example]]:
    """Give each row's inputs; texts are cut soon after they are tokenized, so that long ones do not pile up."""
    for start in range(0, len(split), TEXTS_AT_ONCE):
        rows = split[start : start + TEXTS_AT_ONCE]
        encoded = tokenizer(
            rows["text"], rows.get("text_pair"), truncation=False, return_special_tokens_mask=True, verbose=False
        )
        names = [name for name in tokenizer.model_input_names if name in encoded]
        for row, special in enumerate(encoded["special_tokens_mask"]):
            chosen = positions_read(special, reading)
            yield [{name: [encoded[name][row][at] for at in positions] for name in names} for positions in chosen]


def flatten(examples: Sequence[Example]) -> tuple[list[Example], list[int]]:
    """List what the model sees of all examples, and the number of the example behind each input."""
    inputs: list[Example] = []
    window_of: list[int] = []
    for number, example in enumerate(examples):
        windows = example.get("windows", [example])
        inputs += [{name: value for name, value in each.items() if name not in NOT_FOR_THE_MODEL} for each in windows]
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
    """Pads examples to the longest of their batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.pad_token_id is None:
            raise ModelError("the tokenizer has no padding token; texts of different lengths cannot share a batch")
        self._tokenizer = tokenizer

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Make tensors [batch, longest] of the examples; labels become int64 indices or float32 flags.

        A number that an example has in its split, `example`, comes along, [batch].

        Where examples have windows, the batch holds all of these, [windows, longest], and `window_of`, [windows].
        """
        inputs, window_of = flatten(examples)
        # The fast tokenizer's advice to call it directly does not apply: texts were tokenized once, beforehand.
        self._tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
        batch = dict(self._tokenizer.pad(inputs, return_tensors="pt"))
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
