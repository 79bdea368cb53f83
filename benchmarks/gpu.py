"""How fast models of BERT-base geometry predict on a GPU: 12 and 6 layers, whole and pruned, eager and compiled.

Random weights. Tweets are lognormal in length (median 35 tokens, p95 80, cut at 128), notes have 512 tokens; texts are
sorted by length into batches of 1, 32 or 256, padded to a multiple of 32 tokens, so that a compiled model meets few
shapes. workbench.py says what pruned models keep. Precisions are fp32, bf16 and fp16, and with torchao int8 and
fp8, with activations quantized dynamically, compiled. All variants of one batch size and text take turns. Runs
unattended; the last line is one JSON document, and without CUDA it says so:

- ran: false and why, or true
- cases.<text>.<batch>.<model>.<variant>: ms_per_text, texts_per_second, over_bert12 (time of bert12 in the same
  variant / its own) and over_eager_fp32 (of bert12 in eager fp32), medians of the rounds' ratios, and spreads
- half_depth: over_bert12 of bert6 in each case, beside the 1.73 of the thesis that the method comes from
- not_run: variants that could not be run, and why; first_call_seconds of each, compiling included

Compilation takes most of the time; allow an hour or more.

Usage: python benchmarks/gpu.py [--device cuda] [--rounds 7] [--only 'tweets.*.bert12.*' ...] [--quick]
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from plankwise.core.hardware import environment
from plankwise.core.timing import Run, ratio, take_turns
from results import parser_of
from workbench import MODELS, base_model, tweet_lengths

THESIS = 1.73
VOCABULARY = 30_000
BATCHES, TEXTS = (1, 32, 256), {"tweets": 512, "notes": 256}
MAX_CALLS = 32  # batches of one run; single texts would take too long otherwise
NOTE_TOKENS, MULTIPLE = 512, 32
FLOATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TORCHAO = {"int8": "Int8DynamicActivationInt8WeightConfig", "fp8": "Float8DynamicActivationFloat8WeightConfig"}
VARIANTS = (*itertools.product(FLOATS, ("eager", "compiled")), *((name, "compiled") for name in TORCHAO))
BASELINE = "bert12.fp32-eager"


class NotRunnableError(Exception):
    """A variant that this machine or installation cannot run."""


def variant(model: PreTrainedModel, precision: str, how: str, device: torch.device) -> Callable[..., Any]:
    """Return a copy of a model on the device, in one precision, eager or compiled.

    Raises:
        NotRunnableError: if this installation or device lacks the precision.
    """
    placed = copy.deepcopy(model).to(device=device, dtype=FLOATS.get(precision, torch.bfloat16))
    if precision in TORCHAO:
        quantize(placed, precision, device)
    return torch.compile(placed) if how == "compiled" else placed


def quantize(model: PreTrainedModel, precision: str, device: torch.device) -> None:
    try:
        from torchao import quantization
    except ImportError as error:
        raise NotRunnableError(f"torchao cannot be imported: {error}") from None
    if precision == "fp8" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9)):
        raise NotRunnableError("fp8 needs CUDA of compute capability 8.9 or more")
    if not hasattr(quantization, TORCHAO[precision]):
        raise NotRunnableError(f"this torchao has no {TORCHAO[precision]}")
    quantization.quantize_(model, getattr(quantization, TORCHAO[precision])())


def batches_of(text: str, size: int, texts: int, device: torch.device) -> tuple[list[dict[str, Tensor]], int]:
    """Return batches of random ids, longest first, and the number of texts in them."""
    lengths = tweet_lengths(texts) if text == "tweets" else [NOTE_TOKENS] * texts
    lengths = lengths[: MAX_CALLS * size] if size > 1 else lengths[:MAX_CALLS]
    ordered = sorted(lengths, reverse=True)
    draw, batches = np.random.default_rng(0), []
    for start in range(0, len(ordered), size):
        group = ordered[start : start + size]
        width = -(-group[0] // MULTIPLE) * MULTIPLE
        ids = torch.from_numpy(draw.integers(10, VOCABULARY, (len(group), width)))
        mask = (torch.arange(width) < torch.tensor(group)[:, None]).long()
        batches.append({"input_ids": (ids * mask).to(device), "attention_mask": mask.to(device)})
    return batches, len(ordered)


def runner(model: Callable[..., Any], batches: Sequence[Mapping[str, Tensor]], device: torch.device) -> Run:
    @torch.inference_mode()
    def run() -> None:
        for batch in batches:
            model(**batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def case(
    text: str, size: int, arguments: argparse.Namespace, device: torch.device, notes: dict[str, Any]
) -> dict[str, Any]:
    """Time all models in all variants on one kind of text and one batch size."""
    torch.compiler.reset()  # shapes of the previous case would otherwise make this one dynamic
    batches, texts = batches_of(text, size, 8 if arguments.quick else max(TEXTS[text], size), device)
    runs: dict[str, Run] = {}
    for name in MODELS:
        model = base_model(name, VOCABULARY, arguments.quick)
        for precision, how in VARIANTS:
            label = f"{name}.{precision}-{how}"
            if not any(fnmatch.fnmatch(f"{text}.{size}.{label}", pattern) for pattern in arguments.only):
                continue
            try:
                run = runner(variant(model, precision, how, device), batches, device)
                start = time.perf_counter()
                run()
            except Exception as error:  # one variant that fails must not end an unattended run
                notes["not_run"][f"{text}.{size}.{label}"] = (
                    f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                )
                continue
            notes["first_call_seconds"][f"{text}.{size}.{label}"] = time.perf_counter() - start
            runs[label] = run
    return figures(take_turns(runs, arguments.rounds), texts)


def figures(seconds: Mapping[str, Sequence[float]], texts: int) -> dict[str, Any]:
    found: dict[str, Any] = {name: {} for name in MODELS}
    for label, rounds in seconds.items():
        name, form = label.split(".")
        middle = statistics.median(rounds)
        found[name][form] = {"ms_per_text": 1000 * middle / texts, "texts_per_second": texts / middle}
        for key, other in {"over_bert12": f"bert12.{form}", "over_eager_fp32": BASELINE}.items():
            if other in seconds:
                over = ratio(seconds[other], rounds)
                found[name][form] |= {key: over["speedup"], f"{key}_spread": over["spread"]}
    return found


def half_depth(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the speed-up of half the layers in each case, with the one that the thesis reports."""
    gained = {
        f"{text}.{size}.{form}": figure["over_bert12"]
        for text, sizes in cases.items()
        for size, found in sizes.items()
        for form, figure in found["bert6"].items()
        if "over_bert12" in figure
    }
    return {"thesis": THESIS, "over_bert12": gained, "more_than_thesis": {k: v > THESIS for k, v in gained.items()}}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(arguments.device)
    notes: dict[str, Any] = {"not_run": {}, "first_call_seconds": {}}
    torch.set_float32_matmul_precision("highest")
    torch._dynamo.config.recompile_limit = 64  # one shape for each multiple of 32 tokens
    sizes = BATCHES[:2] if arguments.quick else BATCHES
    cases = {
        text: {str(size): case(text, size, arguments, device, notes) for size in sizes}
        for text in TEXTS
        if text == "tweets" or not arguments.quick
    }
    return {
        "ran": True,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "quick": arguments.quick,
        "rounds": arguments.rounds,
        "cases": cases,
        "half_depth": half_depth(cases),
        **notes,
        "environment": environment(),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="TEXT.BATCH.MODEL.VARIANT", help="patterns")
    parser.add_argument("--quick", action="store_true", help="small models, few tweets: the figures mean nothing")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        result: dict[str, Any] = {"ran": False, "why": "torch sees no CUDA device on this machine"}
    else:
        if arguments.quick:
            arguments.rounds = min(arguments.rounds, 3)
        result = measure(arguments)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
