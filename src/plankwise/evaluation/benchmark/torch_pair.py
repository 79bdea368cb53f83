"""Two models timed in torch, eager fp32, taking turns."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.hardware import fixed_threads
from plankwise.core.records import TORCH
from plankwise.core.timing import FEWEST_ROUNDS, Run, ratio, take_turns
from plankwise.data.batching.examples import Collator, flatten, lengths_of
from plankwise.data.batching.inputs import model_inputs
from plankwise.data.batching.token_budget import token_budget_batches
from plankwise.encoder.configuration import usable_positions
from plankwise.evaluation.benchmark.workload import evenly

logger = logging.getLogger(__name__)
LATENCY_TOKENS = (32, 128, 512)
LATENCY_REPEATS = 5
THROUGHPUT_TEXTS = 256
TOKENS_PER_BATCH = 2048
BOUND_S = 60.0  # of a measurement: a run is not to wait for its timing
LONGEST_S = 300.0
PROBED_TEXTS = 4
BASELINE, COMPRESSED = "baseline", "compressed"


@dataclass(frozen=True)
class Variant:
    """One of the two models to time.

    Attributes:
        model: with its head.
        tokenizer: its own; the two may have different ones.
        examples: the texts, tokenized by it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    examples: Sequence[dict[str, Any]]


def benchmark(baseline: Variant, compressed: Variant, rounds: int, threads: int | None = None) -> dict[str, Any]:
    """Time both models in torch, eager fp32, taking turns.

    Latency is that of one text of 32, 128 and 512 tokens (as far as the model has positions), p50 and p95 in
    milliseconds. Throughput is over up to 256 of the given texts with their own lengths, sorted into batches of at
    most 2,048 padded tokens; a text in windows is one text, and takes the time of them all. A speed-up is the median
    over rounds of baseline time / compressed time in that round; `spread` gives the smallest and largest round.

    Args:
        baseline: the model before.
        compressed: the model after, with the same texts in the same order.
        rounds: how often both are timed.
        threads: of torch; as many as it has, by default.
    """
    variants = {BASELINE: baseline, COMPRESSED: compressed}
    models = {name: variant.model.eval() for name, variant in variants.items()}
    with torch.inference_mode(), fixed_threads(threads) as used:
        latency = {
            str(tokens): _latency(models, tokens, rounds)
            for tokens in LATENCY_TOKENS
            if tokens <= min(usable_positions(model.config) for model in models.values())
        }
        throughput = _throughput(variants, rounds)
    return {
        "runtime": TORCH,
        "runtimes": {BASELINE: TORCH, COMPRESSED: TORCH},
        "device": str(baseline.model.device),
        "threads": used,
        "rounds": rounds,
        "latency": latency,
        "throughput": throughput,
    }


def _latency(models: dict[str, PreTrainedModel], tokens: int, rounds: int) -> dict[str, Any]:
    smallest = min(model.config.vocab_size for model in models.values())
    ids = torch.randint(min(5, smallest - 1), smallest, (1, tokens), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    repeats = rounds * LATENCY_REPEATS
    seconds = take_turns({name: _runner(model, [batch]) for name, model in models.items()}, repeats, bound_s=BOUND_S)
    percentiles = {
        name: dict(zip(("p50_ms", "p95_ms"), (1000 * np.percentile(values, [50, 95])).tolist(), strict=True))
        for name, values in seconds.items()
    }
    return {**percentiles, **ratio(seconds[BASELINE], seconds[COMPRESSED])}


def _throughput(variants: dict[str, Variant], rounds: int) -> dict[str, Any]:
    chosen = evenly(len(variants[BASELINE].examples), _affordable(variants))
    seconds = take_turns(_runs(variants, chosen), rounds, bound_s=BOUND_S)
    per_text = {
        name: {"ms_per_text": 1000 * statistics.median(values) / len(chosen)} for name, values in seconds.items()
    }
    return {**per_text, **ratio(seconds[BASELINE], seconds[COMPRESSED]), "texts": len(chosen)}


def _affordable(variants: dict[str, Variant]) -> int:
    """Count the texts, at least 8, that both models can run in the fewest rounds within `LONGEST_S`."""
    few = evenly(len(variants[BASELINE].examples), PROBED_TEXTS)
    seconds = sum(sum(each) for each in take_turns(_runs(variants, few), 1).values()) / len(few)
    number = int(LONGEST_S / ((FEWEST_ROUNDS + 1) * max(seconds, 1e-9)))
    if number < THROUGHPUT_TEXTS and number < len(variants[BASELINE].examples):
        logger.warning("timed on %d texts: more take longer than %.0f s", max(8, number), LONGEST_S)
    return max(8, min(THROUGHPUT_TEXTS, number))


def _runs(variants: dict[str, Variant], chosen: Sequence[int]) -> dict[str, Run]:
    return {name: _runner(variant.model, _batches(variant, chosen)) for name, variant in variants.items()}


def _batches(variant: Variant, chosen: Sequence[int]) -> list[dict[str, Tensor]]:
    inputs, _ = flatten([variant.examples[index] for index in chosen])  # all windows of a text, as it is predicted
    collate = Collator(variant.tokenizer)
    groups = token_budget_batches(lengths_of(inputs), TOKENS_PER_BATCH)
    return [collate([inputs[index] for index in group]) for group in groups]


def _runner(model: PreTrainedModel, batches: Sequence[dict[str, Tensor]]) -> Run:
    placed = [{name: value.to(model.device) for name, value in model_inputs(model, batch).items()} for batch in batches]

    def run() -> None:
        for batch in placed:
            model(**batch)
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    return run
