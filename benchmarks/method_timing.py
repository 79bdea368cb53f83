"""Times saved models against their baseline in one process and in turns, each right after its own baseline run."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.hardware import fixed_threads
from plankwise.core.timing import ratio, take_turns
from plankwise.data.batching.examples import Collator, encode, flatten, lengths_of
from plankwise.data.batching.inputs import model_inputs
from plankwise.data.batching.token_budget import token_budget_batches
from plankwise.data.truncation import Truncation
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.tokenizer import load_tokenizer

TEXTS, TOKENS_PER_BATCH = 256, 2048
BESIDE = "baseline beside "


def time_models(
    baseline: Path, models: dict[str, Path], texts: Dataset, truncation: Truncation, rounds: int, threads: int
) -> dict[str, Any]:
    """Measure the speed-up of each model over the baseline on texts of the task.

    A round runs the baseline and one model right after each other, then the next pair; every other round runs
    backwards, so that neither comes first more often. Other load on the machine then affects both of a pair alike.

    Args:
        baseline: folder of the uncompressed model.
        models: folders of the others, by name.
        texts: of the task; at most 256 are used, evenly spaced.
        truncation: how texts are cut.
        rounds: number of timed rounds.
        threads: threads of torch.

    Returns:
        For each name the median of the rounds' ratios, the smallest and the largest, and the median time per text.
    """
    chosen = texts.select(np.linspace(0, len(texts) - 1, min(TEXTS, len(texts)), dtype=int).tolist())
    with torch.inference_mode(), fixed_threads(threads):
        runs: dict[str, Callable[[], None]] = {}
        for name, folder in models.items():
            runs[BESIDE + name] = predicting(baseline, chosen, truncation)
            runs[name] = predicting(folder, chosen, truncation)
        seconds = take_turns(runs, rounds)
    return {
        name: {
            **ratio(seconds[BESIDE + name], seconds[name]),
            "ms_per_text": 1000 * statistics.median(seconds[name]) / len(chosen),
            "baseline_ms_per_text": 1000 * statistics.median(seconds[BESIDE + name]) / len(chosen),
        }
        for name in models
    }


def predicting(folder: Path, texts: Dataset, truncation: Truncation) -> Callable[[], None]:
    """Load a model and return a function that predicts all texts once, with its own tokenizer."""
    return predicting_by(load_trained(str(folder)), load_tokenizer(str(folder)), texts, truncation)


def predicting_by(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Dataset, truncation: Truncation
) -> Callable[[], None]:
    """Return a function that predicts all texts once, sorted by length into batches of at most 2,048 padded tokens."""
    inputs, _ = flatten(encode(texts, tokenizer, truncation))
    collate = Collator(tokenizer)
    groups = token_budget_batches(lengths_of(inputs), TOKENS_PER_BATCH)
    batches = [collate([inputs[index] for index in group]) for group in groups]

    def run() -> None:
        for batch in batches:
            model(**model_inputs(model, batch))

    return run
