"""Layers of several sizes, each exported inside a small model of the same kind, to be timed where it will run.

A size is a classifier of one layer with random weights: time does not depend on them. It has the widths, the pooler and
the head of the model that is pruned, but a few hundred tokens, as a vocabulary of 250,000 would be written thirty times
over. Int8 is made by plankwise's own quantizers, which both runtimes multiply as integers: the same kernels as those of
an export, at a fraction of NNCF's time.

Prediction runs as many batches at once as there are cores, each on one. So do these calls, and the time of one is that
of a round of all of them, divided by their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from plankwise.core.errors import MethodError
from plankwise.core.progress import bar
from plankwise.core.seeds import mix_seed
from plankwise.core.timing import Run
from plankwise.data.batching.inputs import Inputs
from plankwise.deploy.export.calibrated import calibrated
from plankwise.deploy.export.onnx import to_onnx
from plankwise.deploy.export.openvino import to_openvino
from plankwise.deploy.runtimes import OnnxRuntime, OpenVino, Runtime
from plankwise.encoder.anatomy import attends_locally
from plankwise.encoder.embeddings import fixed_rows, with_tokens
from plankwise.encoder.shapes import new_model, prune
from plankwise.encoder.surgery import with_depth
from plankwise.evaluation.benchmark.stream_pool import StreamPool
from plankwise.methods.layer_sizes import LatencyTarget, Size, TimedCall, largest_layers

TOKENS = 512  # of the vocabulary that is left
INPUTS = ("input_ids", "attention_mask")


@contextmanager
def exported_layers(
    config: PreTrainedConfig, sizes: Sequence[Size], call: TimedCall, target: LatencyTarget, *, progress: bool = False
) -> Iterator[Mapping[Size, Run]]:
    """Export a model for each size and yield its runs: one call from each of `call.threads` threads at once.

    Args:
        config: of the model that is pruned, in fp32.
        sizes: to export.
        call: batch and cores.
        target: runtime and precision.
        progress: whether to show a progress bar.

    Raises:
        MethodError: if the runtime's converter fails on such a model.
    """
    batch = timed_batch(config, call)
    runs: dict[Size, Run] = {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True)))
        with bar(f"exporting layers to {target.runtime} {target.precision}", len(sizes), progress) as shown:
            for number, size in enumerate(sizes):
                folder = scratch / str(number)
                folder.mkdir()
                runtime = opened(write_model(sized_model(config, size), target, folder, batch), target, call.threads)
                pool = stack.enter_context(StreamPool(runtime))
                pool.warm_up([batch])
                runs[size] = partial(pool.run, [batch] * runtime.streams)
                shown(number + 1)
        yield runs


def write_model(model: PreTrainedModel, target: LatencyTarget, folder: Path, batch: Inputs) -> Path:
    """Export a classifier into `folder`, calibrated on `batch` if it is to be int8; return the path of its file.

    Raises:
        MethodError: if the runtime's converter fails on such a model.
    """
    try:
        if target.precision == "int8":
            model = calibrated(model, [batch], portable=True)
        if target.runtime == "onnx":
            return folder / to_onnx(model, INPUTS, folder, target.precision, portable=True)
        return folder / to_openvino(model, INPUTS, folder, target.precision, calibration=(), portable=True)
    except Exception as error:  # converters raise errors of any kind
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MethodError(
            f"latency_runtime {target.runtime}, latency_precision {target.precision}: a layer cannot be exported, so "
            f"it cannot be timed: {first}; allowed: another runtime, such as torch"
        ) from error


def sized_model(config: PreTrainedConfig, size: Size) -> PreTrainedModel:
    """Build a classifier with random weights whose layers have this size."""
    kind, part, count = size
    largest = largest_layers(config)[kind]
    layers, heads, neurons = {
        "empty": ([largest.head_layer] * count, 0, 0),
        "attention": ([largest.head_layer], count, 0),
        "feed_forward": ([largest.neuron_layer], 0, count),
    }[part]
    whole = random_model(with_depth(config, [(layer,) for layer in layers]))
    model = prune(whole, [range(heads)] * len(layers), [range(neurons)] * len(layers)).eval()
    if attends_locally(config):  # as exports of the whole model do, whatever the type of this layer
        model.set_attn_implementation("eager")
    return model


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a classifier of this configuration with random weights and a few hundred tokens."""
    kept = sorted({*range(min(TOKENS, config.vocab_size)), *fixed_rows(config)})
    classifier = AutoModelForSequenceClassification._model_mapping[type(config)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seed("latency"))
        return new_model(classifier, with_tokens(config, kept)).eval()


def timed_batch(config: PreTrainedConfig, call: TimedCall) -> Inputs:
    """Draw token ids without padding, [texts, tokens]."""
    draw, words = np.random.default_rng(mix_seed("latency")), min(TOKENS, int(config.vocab_size))
    # From 5 on, as lower ids are often special tokens: RoBERTa counts positions from the padding id.
    ids = draw.integers(min(5, words - 1), words, (call.batch_size, call.tokens), dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def opened(path: Path, target: LatencyTarget, threads: int) -> Runtime:
    """Open an export as prediction does in throughput mode: as many streams as threads, each of one thread."""
    if target.runtime == "onnx":
        return OnnxRuntime(path, threads, "throughput")
    return OpenVino(path, threads, "throughput", "fp32")
