"""What one Theseus step costs: against a plain 12-layer step, and a step of the reference implementation.

BERT-base geometry, random weights, 8 texts of 64 tokens, AdamW, 12 → 6 layers at replacement rate 0.5. All variants
take turns in every round; a round runs the same draws each time. The last line is one JSON object of medians:

- theseus_over_plain_fp32: a Theseus step / a plain fine-tuning step of the predecessor, both fp32
- theseus_over_plain_bf16: a Theseus step under bf16 autocast / the same plain fp32 step
- theseus_bf16_over_plain_bf16: both under bf16 autocast
- theseus_over_reference_fp32: against a step that computes and stores the frozen gradients and keeps the predecessor's
  dropout, as the reference implementation does
- peak_memory_ratio: peak memory of Theseus / of plain fine-tuning, each in its own process, less what the process
  held before it built a model

Usage: python benchmarks/theseus_step.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from plankwise.core.hardware import bf16_is_fast, environment
from plankwise.core.schedules import constant
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.surgery import rebuild
from plankwise.methods.layer_init import contiguous_modules, sources_of
from plankwise.methods.module_replacing import Gate, Replacing
from plankwise.methods.theseus import Theseus
from results import parser_of
from workbench import (
    Seconds,
    Step,
    bert_classifier,
    high_water_mark,
    medians,
    repeated,
    seconds_per_step,
    step_ratio,
    training_step,
    with_draws,
)

BATCH, TOKENS, RATE, MODULES = 8, 64, 0.5, 6
DRAWS = 6  # Theseus steps in a round; each has a draw of its own
PLAIN = 2  # plain steps in a round
LABELS = torch.zeros(BATCH, dtype=torch.long)


def theseus_network(as_reference: bool) -> tuple[PreTrainedModel, list[Gate]]:
    model = bert_classifier().train()
    settings = Theseus(modules=MODULES, predecessor_dropout=as_reference)
    sources = sources_of(contiguous_modules(len(layers_of(model)), MODULES), settings.initialization)
    network, gates = settings.assemble(model, rebuild(model, sources))
    return network.train(), gates


def plain_round(batch: dict[str, Tensor], bf16: bool) -> Step:
    model = bert_classifier().train()
    return repeated(training_step(model, batch, LABELS, bf16), PLAIN)


def theseus_round(batch: dict[str, Tensor], bf16: bool, as_reference: bool = False) -> Step:
    network, gates = theseus_network(as_reference)
    trained = [value for value in network.parameters() if value.requires_grad]
    if as_reference:
        network.requires_grad_(True)
    step = training_step(network, batch, LABELS, bf16, trained)
    replacing = Replacing(constant(RATE, 1.0), gates, seed=0, mode="replace")
    return with_draws(step, replacing, DRAWS)


def measure(rounds: int) -> Seconds:
    """Time all variants in turns; each runs once untimed first."""
    ids = torch.randint(1000, 30000, (BATCH, TOKENS), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    variants: dict[str, tuple[Step, int]] = {
        "plain_fp32": (plain_round(batch, bf16=False), PLAIN),
        "theseus_fp32": (theseus_round(batch, bf16=False), DRAWS),
        "reference_fp32": (theseus_round(batch, bf16=False, as_reference=True), DRAWS),
        "plain_bf16": (plain_round(batch, bf16=True), PLAIN),
        "theseus_bf16": (theseus_round(batch, bf16=True), DRAWS),
    }
    return seconds_per_step(variants, rounds)


def peak_bytes(variant: str) -> int:
    """Measure the peak memory of a few steps of one variant in its own process, less the memory before the model."""
    output = subprocess.run(
        [sys.executable, __file__, "--peak-of", variant], capture_output=True, text=True, check=True
    ).stdout
    return int(output.splitlines()[-1])


def report_peak(variant: str) -> None:
    ids = torch.randint(1000, 30000, (BATCH, TOKENS))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    before = high_water_mark()
    {"plain": plain_round, "theseus": theseus_round}[variant](batch, bf16=False)()
    print(high_water_mark() - before)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak-of", choices=["plain", "theseus"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        report_peak(arguments.peak_of)
        return
    peaks = {name: peak_bytes(name) for name in ("plain", "theseus")}
    seconds = measure(arguments.rounds)

    result: dict[str, Any] = {
        "theseus_over_plain_fp32": step_ratio(seconds, "theseus_fp32", "plain_fp32"),
        "theseus_over_plain_bf16": step_ratio(seconds, "theseus_bf16", "plain_fp32"),
        "theseus_bf16_over_plain_bf16": step_ratio(seconds, "theseus_bf16", "plain_bf16"),
        "theseus_over_reference_fp32": step_ratio(seconds, "theseus_fp32", "reference_fp32"),
        "peak_memory_ratio": peaks["theseus"] / peaks["plain"],
        "peak_bytes": peaks,
        "seconds_per_step": medians(seconds),
        "rounds": arguments.rounds,
        "bf16_is_native": bf16_is_fast(torch.device("cpu")),
        "environment": environment(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
