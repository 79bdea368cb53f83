"""Export to OpenVINO: conversion, static int8 and compression of weights by NNCF.

A model that plankwise quantized is converted with its own quantizers, which OpenVINO runs as int8. Any other model is
quantized after training: the ranges of activations are the smallest and largest values on calibration texts
(percentiles destroy BERT: F1 5.8 instead of 92.1), weights are int8 with a scale per output channel, and SmoothQuant
moves outliers of activations into the weights. Portable weights have 7 bits (the reason is in `encoder/quantized.py`).
Products of two activations stay in fp32: with 8 bits on both sides, a probability of e5-small changed by up to 0.015
with the other texts of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from plankwise.core.progress import muted
from plankwise.data.batching.inputs import Inputs
from plankwise.deploy.export.tracing import example, traceable

MODEL = "openvino/openvino_model.xml"  # where other tools look for it
HALF = ("bf16", "fp16")
WEIGHTS_PER_SCALE = 64  # in int4


def to_openvino(
    model: PreTrainedModel,
    inputs: Sequence[str],
    folder: Path,
    precision: str,
    *,
    calibration: Sequence[Inputs],
    portable: bool,
) -> str:
    """Convert a model, quantize it to `precision`, write it into `folder` and return the name of its file.

    Args:
        model: a classifier in fp32, with plankwise's quantizers or without.
        inputs: names of its inputs.
        folder: exists.
        precision: fp32; bf16 or fp16 (weights in fp16); int8; int8-weights or int4-weights (with VNNI, OpenVINO also
            rounds activations, in groups of 32 of a token; on other processors they stay fp32).
        calibration: batches of inputs, for int8 of a model that is not quantized yet; else empty.
        portable: whether the weights that NNCF quantizes get 7 bits.
    """
    import openvino

    converted = _converted(model, inputs)
    if precision == "int8" and calibration:
        converted = _quantized(converted, inputs, calibration, portable)
    elif precision.endswith("-weights"):
        converted = _compressed(converted, precision)
    (folder / MODEL).parent.mkdir()
    openvino.save_model(converted, str(folder / MODEL), compress_to_fp16=precision in HALF)
    return MODEL


def _converted(model: PreTrainedModel, inputs: Sequence[str]) -> Any:
    import openvino

    free = openvino.PartialShape([-1, -1])
    with traceable(model, inputs) as classifier, muted("openvino", "transformers"):  # torch.jit warns: it is deprecated
        made = openvino.convert_model(
            classifier, example_input=example(inputs), input=[(free, openvino.Type.i64) for _ in inputs]
        )
    for port, name in zip(made.inputs, inputs, strict=True):
        port.get_tensor().set_names({name})
    made.outputs[0].get_tensor().set_names({"logits"})
    return made


def _quantized(converted: Any, inputs: Sequence[str], calibration: Sequence[Inputs], portable: bool) -> Any:
    import nncf

    overflow_fix = nncf.OverflowFix.ENABLE if portable else nncf.OverflowFix.DISABLE
    batches = nncf.Dataset(list(calibration), lambda batch: [batch[name] for name in inputs])
    with muted("nncf"):
        return nncf.quantize(
            converted,
            batches,
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(names=_products_of_activations(converted)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow_fix),
        )


def _products_of_activations(converted: Any) -> list[str]:
    """Name the products of which both sides depend on the inputs: those of attention."""
    constant = {op.get_friendly_name() for op in converted.get_ops() if op.get_type_name() == "Constant"}
    found = []
    for op in converted.get_ordered_ops():
        sides = [each.get_node().get_friendly_name() for each in op.input_values()]
        if sides and constant.issuperset(sides):
            constant.add(op.get_friendly_name())
        elif op.get_type_name() in ("MatMul", "ScaledDotProductAttention") and constant.isdisjoint(sides[:2]):
            found.append(op.get_friendly_name())
    return found


def _compressed(converted: Any, precision: str) -> Any:
    import nncf

    with muted("nncf"):
        if precision == "int8-weights":
            return nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM)
        return nncf.compress_weights(
            converted,
            mode=nncf.CompressWeightsMode.INT4_SYM,
            group_size=WEIGHTS_PER_SCALE,
            advanced_parameters=nncf.AdvancedCompressionParameters(
                group_size_fallback_mode=nncf.GroupSizeFallbackMode.IGNORE  # matrices it does not divide get int8
            ),
        )
