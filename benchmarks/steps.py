"""Timing of training steps that take turns, for the scripts beside this file."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from plankwise.methods.module_replacing import Replacing

Step = Callable[[], None]
Seconds = dict[str, list[float]]


def training_step(
    network: nn.Module,
    inputs: dict[str, Tensor],
    labels: Tensor,
    bf16: bool,
    trained: Sequence[nn.Parameter] | None = None,
) -> Step:
    """Make a step of AdamW on one batch; it trains what wants gradients, or what is named."""
    if trained is None:
        trained = [value for value in network.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(**inputs).logits
        torch.autograd.backward(nn.functional.cross_entropy(logits.float(), labels))
        nn.utils.clip_grad_norm_([value for value in network.parameters() if value.grad is not None], 1.0)
        optimizer.step()
        network.zero_grad()

    return step


def repeated(step: Step, times: int) -> Step:
    def run() -> None:
        for _ in range(times):
            step()

    return run


def with_draws(step: Step, replacing: Replacing, draws: int) -> Step:
    """Run a Theseus step once for each of the draws, spread over the whole schedule."""

    def run() -> None:
        for number in range(draws):
            replacing(number, draws)
            step()

    return run


def take_turns(variants: Mapping[str, tuple[Step, int]], rounds: int) -> Seconds:
    """Seconds of one step, for each variant and round; one round goes untimed first.

    Args:
        variants: by name, what a round runs and how many steps that is.
        rounds: how many are timed.
    """
    seconds: Seconds = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, (run, steps) in variants.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append((time.perf_counter() - start) / steps)
        if number:
            print(f"round {number}: " + ", ".join(f"{name} {values[-1]:.3f} s" for name, values in seconds.items()))
    return seconds


def over(seconds: Seconds, one: str, other: str) -> float:
    """Median over rounds of how many times as long as `other` a step of `one` takes."""
    return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


def medians(seconds: Seconds) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}
