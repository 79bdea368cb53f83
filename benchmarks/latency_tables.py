"""Whether a table of layer times adds up to the time of a whole model, in the runtime and precision it will run in.

The table of `measure: latency` is measured for an encoder, and models of other sizes are made of it: with all heads and
neurons, with half, with a quarter, and with sizes that alternate between layers. Each is exported whole and timed, all
in turns, as prediction runs them in throughput mode. Weights are random, which times do not depend on, and the
vocabulary has a few hundred tokens. The last line is one JSON object:

- seconds: that the table took
- models: by name, what the table says (predicted_ms) and what one call of the whole model took (measured_ms)
- off: the largest relative difference of the two, and off_relative that of their ratios to the uncut model, which is
  what pruning uses

Usage: python benchmarks/latency_tables.py [--model FOLDER] [--runtime openvino] [--precision int8] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.hardware import environment
from plankwise.core.timing import Run, take_turns
from plankwise.encoder.checkpoint import load_config
from plankwise.encoder.shapes import prune, shapes_of
from plankwise.evaluation.benchmark.stream_pool import StreamPool
from plankwise.methods.exported_layers import opened, random_model, timed_batch, write_model
from plankwise.methods.latency import latency_costs
from plankwise.methods.layer_sizes import LatencyTarget, TimedCall
from results import parser_of
from workbench import bert_classifier

# The shares of heads and of neurons that stay, in layers that take turns.
CUTS = {
    "all": ((1.0, 1.0),),
    "half": ((0.5, 0.5),),
    "a quarter": ((0.25, 0.25),),
    "in turns": ((1.0, 0.25), (0.25, 1.0)),
}


def sizes(config: PreTrainedConfig, cut: Sequence[tuple[float, float]]) -> tuple[list[int], list[int]]:
    """Return the heads and the neurons that layers keep."""
    kept = [cut[index % len(cut)] for index in range(config.num_hidden_layers)]
    shapes = shapes_of(config)
    heads = [max(1, round(share * len(shape.heads))) for shape, (share, _) in zip(shapes, kept, strict=True)]
    return heads, [max(1, round(share * shape.neurons)) for shape, (_, share) in zip(shapes, kept, strict=True)]


def measured_ms(
    models: Mapping[str, PreTrainedModel], call: TimedCall, target: LatencyTarget, rounds: int
) -> dict[str, float]:
    """Export models and time them in turns; return milliseconds of one call, the median of the rounds."""
    runs: dict[str, Run] = {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, model in models.items():
            batch, folder = timed_batch(model.config, call), scratch / name
            folder.mkdir()
            runtime = opened(write_model(model, target, folder, batch), target, call.threads)
            pool = stack.enter_context(StreamPool(runtime))
            pool.warm_up([batch])
            runs[name] = partial(pool.run, [batch] * runtime.streams)
        seconds = take_turns(runs, rounds)
    return {name: 1000 * statistics.median(each) / call.threads for name, each in seconds.items()}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    config = load_config(str(arguments.model)) if arguments.model else bert_classifier().config
    whole, target = random_model(config), LatencyTarget(arguments.runtime, arguments.precision)
    call = TimedCall(arguments.texts, arguments.tokens, arguments.threads)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:  # so that it is measured again
        costs = latency_costs(
            whole,
            batch_size=call.batch_size,
            tokens=call.tokens,
            threads=call.threads,
            target=target,
            cache=Path(cache) / "latency",
        )
    seconds = time.perf_counter() - begun
    cuts = {name: sizes(config, cut) for name, cut in CUTS.items()}
    models = {
        name: prune(whole, [range(each) for each in heads], [range(each) for each in neurons])
        for name, (heads, neurons) in cuts.items()
    }
    measured = measured_ms(models, call, target, arguments.rounds)
    predicted = {name: costs.of(heads, neurons) for name, (heads, neurons) in cuts.items()}
    shares = {name: (predicted[name] / predicted["all"]) / (measured[name] / measured["all"]) for name in cuts}
    return {
        "runtime": arguments.runtime,
        "precision": arguments.precision,
        "shape": [call.batch_size, call.tokens],
        "seconds": seconds,
        "models": {name: {"predicted_ms": predicted[name], "measured_ms": measured[name]} for name in cuts},
        "off": max(abs(predicted[name] / measured[name] - 1) for name in cuts),
        "off_relative": max(abs(each - 1) for each in shares.values()),
        "threads": call.threads,
        "environment": environment(),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--runtime", choices=["openvino", "onnx"], default="openvino")
    parser.add_argument("--precision", choices=["fp32", "int8"], default="int8")
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
