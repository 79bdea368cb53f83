"""What one Theseus step costs: against a plain 12-layer step, and against the reference's way of freezing.

BERT-base geometry, random weights, 8 texts of 64 tokens, AdamW, 12 → 6 layers at replacement rate 0.5. All variants
take turns in every round; a round runs the same draws each time. The last line is one JSON object of medians:

- theseus_over_plain_fp32: a Theseus step / a plain fine-tuning step of the predecessor, both fp32
- theseus_over_plain_bf16: a Theseus step under bf16 autocast / the same plain fp32 step
- theseus_bf16_over_plain_bf16: both under bf16 autocast
- theseus_over_reference_fp32: against a step that computes and stores the frozen gradients and keeps the predecessor's
  dropout, as the reference implementation does
- peak_memory_ratio: peak memory of Theseus / of plain fine-tuning, each in a process of its own, less what the process
  held before it built a model

Usage: python benchmarks/theseus_step.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel

from plankwise.core.hardware import bf16_is_fast, environment
from plankwise.core.schedules import constant
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.surgery import rebuild
from plankwise.methods.layer_init import contiguous_modules, sources_of
from plankwise.methods.module_replacing import Gate, Replacing
from plankwise.methods.theseus import Theseus
from steps import Seconds, Step, medians, over, repeated, take_turns, training_step, with_draws

BATCH, TOKENS, RATE, MODULES = 8, 64, 0.5, 6
DRAWS = 6  # Theseus steps in a round; each has a draw of its own
PLAIN = 2  # plain steps in a round
LABELS = torch.zeros(BATCH, dtype=torch.long)


def bert_base() -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(BertConfig(num_labels=2))
    return model.train()


def theseus_network(as_reference: bool) -> tuple[PreTrainedModel, list[Gate]]:
    model = bert_base()
    settings = Theseus(modules=MODULES, predecessor_dropout=as_reference)
    sources = sources_of(contiguous_modules(len(layers_of(model)), MODULES), settings.initialization)
    network, gates = settings.assemble(model, rebuild(model, sources))
    return network.train(), gates


def plain_round(batch: dict[str, Tensor], bf16: bool) -> Step:
    model = bert_base()
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
    """Seconds of one step, for each variant and round; each variant runs once untimed first."""
    ids = torch.randint(1000, 30000, (BATCH, TOKENS), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    variants: dict[str, tuple[Step, int]] = {
        "plain_fp32": (plain_round(batch, bf16=False), PLAIN),
        "theseus_fp32": (theseus_round(batch, bf16=False), DRAWS),
        "reference_fp32": (theseus_round(batch, bf16=False, as_reference=True), DRAWS),
        "plain_bf16": (plain_round(batch, bf16=True), PLAIN),
        "theseus_bf16": (theseus_round(batch, bf16=True), DRAWS),
    }
    return take_turns(variants, rounds)


def peak_bytes(variant: str) -> int:
    """Peak memory of a few steps of one variant in a process of its own, less what it held before."""
    output = subprocess.run(
        [sys.executable, __file__, "--peak-of", variant], capture_output=True, text=True, check=True
    ).stdout
    return int(output.splitlines()[-1])


def high_water_mark() -> int:
    """Largest resident size of this process so far, in bytes; getrusage would count that of the parent too."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def report_peak(variant: str) -> None:
    ids = torch.randint(1000, 30000, (BATCH, TOKENS))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    before = high_water_mark()
    {"plain": plain_round, "theseus": theseus_round}[variant](batch, bf16=False)()
    print(high_water_mark() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak-of", choices=["plain", "theseus"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        report_peak(arguments.peak_of)
        return
    peaks = {name: peak_bytes(name) for name in ("plain", "theseus")}
    seconds = measure(arguments.rounds)

    result: dict[str, Any] = {
        "theseus_over_plain_fp32": over(seconds, "theseus_fp32", "plain_fp32"),
        "theseus_over_plain_bf16": over(seconds, "theseus_bf16", "plain_fp32"),
        "theseus_bf16_over_plain_bf16": over(seconds, "theseus_bf16", "plain_bf16"),
        "theseus_over_reference_fp32": over(seconds, "theseus_fp32", "reference_fp32"),
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
