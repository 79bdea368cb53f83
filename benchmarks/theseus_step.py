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
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel

from plankwise.core.runtime import bf16_is_fast, environment
from plankwise.core.schedules import constant
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.surgery import rebuild
from plankwise.methods.successors import contiguous_modules, sources_of
from plankwise.methods.theseus import Gate, Replacing, Theseus

BATCH, TOKENS, RATE, MODULES = 8, 64, 0.5, 6
DRAWS = 6  # Theseus steps in a round; each has a draw of its own
PLAIN = 2  # plain steps in a round
Step = Callable[[], None]


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


def training_step(network: nn.Module, batch: dict[str, Tensor], bf16: bool, trained: Sequence[nn.Parameter]) -> Step:
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    labels = torch.zeros(BATCH, dtype=torch.long)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            logits = network(**batch).logits
        torch.autograd.backward(nn.functional.cross_entropy(logits.float(), labels))
        nn.utils.clip_grad_norm_([value for value in network.parameters() if value.grad is not None], 1.0)
        optimizer.step()
        network.zero_grad()

    return step


def plain_round(batch: dict[str, Tensor], bf16: bool) -> Step:
    model = bert_base()
    step = training_step(model, batch, bf16, list(model.parameters()))

    def run() -> None:
        for _ in range(PLAIN):
            step()

    return run


def theseus_round(batch: dict[str, Tensor], bf16: bool, as_reference: bool = False) -> Step:
    network, gates = theseus_network(as_reference)
    trained = [value for value in network.parameters() if value.requires_grad]
    if as_reference:
        network.requires_grad_(True)
    step = training_step(network, batch, bf16, trained)
    replacing = Replacing(constant(RATE, 1.0), gates, seed=0, mode="replace")

    def run() -> None:
        for number in range(DRAWS):
            replacing(number, DRAWS)
            step()

    return run


def measure(rounds: int) -> dict[str, list[float]]:
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
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, (run, steps) in variants.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append((time.perf_counter() - start) / steps)
        if number:
            print(f"round {number}: " + ", ".join(f"{name} {values[-1]:.3f} s" for name, values in seconds.items()))
    return seconds


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

    def over(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))

    result: dict[str, Any] = {
        "theseus_over_plain_fp32": over("theseus_fp32", "plain_fp32"),
        "theseus_over_plain_bf16": over("theseus_bf16", "plain_fp32"),
        "theseus_bf16_over_plain_bf16": over("theseus_bf16", "plain_bf16"),
        "theseus_over_reference_fp32": over("theseus_fp32", "reference_fp32"),
        "peak_memory_ratio": peaks["theseus"] / peaks["plain"],
        "peak_bytes": peaks,
        "seconds_per_step": {name: statistics.median(values) for name, values in seconds.items()},
        "rounds": arguments.rounds,
        "bf16_is_native": bf16_is_fast(torch.device("cpu")),
        "environment": environment(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
