"""Export: a trained model becomes an artefact, a folder that predicts without torch and without plankwise.

An artefact is compared with the torch model, on real texts if there are any, before it is written. Its tokenizer is
the fast tokenizer's own file, its `predict.py` a copy of this package's `standalone.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.errors import ModelError, OutputError, one_of, suggest
from plankwise.core.files import atomic_folder, contents, make_writable_folder
from plankwise.core.hardware import INT8_FLAGS, environment, saturates, version_of
from plankwise.core.packages import missing, require
from plankwise.core.paths import check_folder, tidy
from plankwise.data.batching.inputs import Inputs, Text, bare_tokenizer, encode_texts, inputs_of
from plankwise.data.batching.token_budget import TOKENS_PER_BATCH, padded_batch, starts_of, token_budget_batches
from plankwise.data.tokenizer.unknown_tokens import check_unknown
from plankwise.data.truncation import Truncation, check_truncation
from plankwise.deploy.deployed import open_runtime, truncation_of
from plankwise.deploy.export.calibrated import calibrated
from plankwise.deploy.export.files_beside import write_files_beside
from plankwise.deploy.export.onnx import to_onnx
from plankwise.deploy.export.openvino import to_openvino
from plankwise.deploy.export.parity import check_of, limits_of, measure, neighbour_caveats, random_inputs, real_rows
from plankwise.deploy.export.torch_program import to_torch
from plankwise.deploy.manifest import (
    DYNAMIC,
    RUNTIMES,
    Manifest,
    RuntimeName,
    describe,
    geometry_of,
    write_manifest,
)
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.quantized import quantized_of
from plankwise.encoder.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)
PRECISIONS: dict[RuntimeName, tuple[str, ...]] = {
    "openvino": ("fp32", "bf16", "fp16", "int8", "int8-weights", "int4-weights"),
    "onnx": ("fp32", "int8", DYNAMIC),
    "torch": ("fp32", "bf16", "fp16"),
}
PACKAGES: dict[RuntimeName, tuple[str, ...]] = {
    "openvino": ("openvino", "nncf"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "torch": (),
}
INTEGERS = ("int8", DYNAMIC)  # precisions that multiply integers
RANDOM_LENGTHS = (3, 12, 48)  # tokens of the random inputs that stand in for texts
DYNAMIC_CAVEAT = (
    "int8-dynamic takes the ranges of each batch: a text's answer changes with the other texts of its batch, so no "
    "comparison can vouch for it; with int8 it does not"
)


@dataclass(frozen=True)
class _Original:
    """A model that is to be exported.

    Attributes:
        model: in torch, in fp32 or quantized by plankwise.
        tokenizer: of the model.
        manifest: what is known of the artefact before it is written.
        portable: whether int8 weights have 7 bits.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    manifest: Manifest
    portable: bool

    @property
    def quantized(self) -> bool:
        """Whether plankwise has quantized the model; an export then keeps its numbers."""
        return quantized_of(self.model.config) is not None

    def batches(self, texts: Sequence[Text]) -> list[Inputs]:
        """Cut texts into the batches that prediction makes."""
        encoded = encode_texts(texts, bare_tokenizer(self.tokenizer), self.manifest.inputs, self.manifest.truncation)
        starts = starts_of(encoded.lengths)
        groups = token_budget_batches(encoded.lengths, TOKENS_PER_BATCH)
        return [padded_batch(encoded, starts, group, self.manifest.padding) for group in groups]


def export(
    model_folder: Path | str,
    out: Path,
    *,
    to: str,
    precision: str,
    truncation: Truncation | None = None,
    calibration: Sequence[Text] | None = None,
    texts: Sequence[Text] | None = None,
    tolerance: float | None = None,
    portable: bool | None = None,
    keep_rows: bool = False,
) -> Manifest:
    """Export a fine-tuned classifier as an artefact.

    Args:
        model_folder: of Transformers or plankwise, or a Hub id.
        out: folder of the artefact; new, or empty.
        to: openvino, onnx or torch.
        precision: one of `PRECISIONS[to]`. For int8, ranges are measured on `calibration`, except of a model that
            plankwise quantized, which keeps its own.
        truncation: how much of a text the model sees; by default as it was trained, and if that is not known as many
            tokens as it has positions, up to 512.
        calibration: training texts, or pairs.
        texts: to compare the artefact with torch on; random token ids by default.
        tolerance: largest change of a probability that is accepted; by default `parity.limits_of` decides.
        portable: whether int8 weights get 7 bits, so that sums saturate on no processor: the default for a model in
            fp32. A model that plankwise quantized has the bits it was quantized with.
        keep_rows: whether a few of `texts` go into the manifest as token ids, with the artefact's answers to them, to
            test it on another class of processor. Anyone with the artefact can read them; without them it is tested on
            random token ids alone.

    Raises:
        ModelError: if the model cannot be exported this way, or the artefact differs too much; nothing is written then.
        OutputError: if `out` exists already.
    """
    runtime = check_request(to, precision, out)
    original = _opened(str(model_folder), runtime, precision, truncation=truncation, portable=portable)
    _check_model(original, has_calibration=bool(calibration))
    check_unknown([*(calibration or ()), *(texts or ())], original.tokenizer, str(model_folder))
    with atomic_folder(out) as folder:  # a model that fails the comparison leaves no folder
        manifest = original.manifest.model_copy(update={"model": _write_model(original, folder, calibration or ())})
        manifest = _compared(original, folder, manifest, texts or (), tolerance=tolerance, keep_rows=keep_rows)
        hashes = write_files_beside(original.model.config, original.tokenizer, manifest.truncation, folder)
        manifest = manifest.model_copy(update={"hashes": hashes})
        write_manifest(folder, manifest)
    return manifest


def check_request(to: str, precision: str, out: Path) -> RuntimeName:
    """Refuse what can be refused before texts or a model are loaded, and return the runtime.

    Raises:
        ModelError: if there is no such runtime or precision, or the runtime is not installed.
        OutputError: if `out` exists already or cannot be written to.
    """
    runtime = one_of(to, RUNTIMES, "runtime")
    if precision not in PRECISIONS[runtime]:
        raise ModelError(f"no precision '{precision}' for {runtime}; {suggest(precision, PRECISIONS[runtime])}")
    require(f"--to {runtime}", *PACKAGES[runtime], error=ModelError)
    check_folder(out)
    tidy(out.absolute().parent)
    if out.exists() and (not out.is_dir() or contents(out)):
        raise OutputError(f"{out} exists already; choose a new or an empty folder")
    make_writable_folder(out.absolute().parent)
    return runtime


def missing_packages(runtime: RuntimeName) -> list[str]:
    """Return the packages that an export to a runtime needs and that are not installed."""
    return missing(*PACKAGES[runtime])


def warn_of_limits(precision: str, portable: bool, *, saturating: bool) -> dict[str, tuple[str, ...]]:
    """Return the `needs` and `caveats` of an artefact's manifest, and log those that matter here.

    Args:
        precision: of the artefact.
        portable: whether int8 weights have 7 bits.
        saturating: whether sums of 8-bit products saturate on this processor.
    """
    needs = INT8_FLAGS if precision in INTEGERS and not portable else ()
    caveats = (DYNAMIC_CAVEAT,) if precision == DYNAMIC else ()
    if needs and saturating:
        logger.warning("weights are not portable, and this processor has none of %s: sums saturate", ", ".join(needs))
    for each in caveats:
        logger.warning(each)
    return {"needs": needs, "caveats": caveats}


def _opened(
    source: str, runtime: RuntimeName, precision: str, *, truncation: Truncation | None, portable: bool | None
) -> _Original:
    model, tokenizer = load_trained(source), load_tokenizer(source)
    described = describe(model.config, tokenizer, inputs_of(model, tokenizer), truncation or truncation_of(model))
    seven_bits, machine = _portable(model, precision, portable), environment()
    update = {
        "runtime": runtime,
        "precision": precision,
        "versions": {**machine["versions"], **{name: version_of(name) for name in PACKAGES[runtime]}},
        "cpu": machine["cpu"],
        "geometry": geometry_of(model),
        **warn_of_limits(precision, seven_bits, saturating=saturates()),
    }
    return _Original(model, tokenizer, described.model_copy(update=update), seven_bits)


def _check_model(original: _Original, has_calibration: bool) -> None:
    manifest, positions = original.manifest, usable_positions(original.model.config)
    precision = manifest.precision
    if manifest.truncation.max_length > positions:
        raise ModelError(f"max_length {manifest.truncation.max_length} is more than the model's {positions} positions")
    check_truncation(manifest.truncation, original.tokenizer.num_special_tokens_to_add(), pairs=False)
    if original.quantized and precision != "int8":
        raise ModelError(f"the model is quantized already; allowed: int8 for openvino or onnx, not {precision}")
    if precision == "int8" and not original.quantized and not has_calibration:
        raise ModelError(f"int8 for {manifest.runtime} needs training texts to calibrate on: give --recipe or --texts")


def _portable(model: PreTrainedModel, precision: str, wanted: bool | None) -> bool:
    """Return whether int8 weights have 7 bits."""
    if wanted is not None and precision not in INTEGERS:
        raise ModelError(f"--portable and --no-portable are for {' and '.join(INTEGERS)}, not for {precision}")
    quantized = quantized_of(model.config)
    if quantized is None:
        return wanted is not False
    if wanted not in (None, quantized.portable):
        own = str(quantized.portable).lower()
        raise ModelError(
            f"the model was quantized with portable: {own}, and an export keeps its numbers; quantize it again"
        )
    return quantized.portable


def _write_model(original: _Original, folder: Path, calibration: Sequence[Text]) -> str:
    """Write the model in its runtime's format and return the name of its file."""
    model, manifest, portable = original.model, original.manifest, original.portable
    inputs, precision = manifest.inputs, manifest.precision
    calibrating = precision == "int8" and not original.quantized
    ranges = original.batches(calibration) if calibrating else []  # empty: to_openvino keeps a quantized model as it is
    if manifest.runtime == "openvino":
        return to_openvino(model, inputs, folder, precision, calibration=ranges, portable=portable)
    if manifest.runtime == "torch":
        return to_torch(model, inputs, folder, precision)
    if calibrating:
        model = calibrated(model, ranges, portable)
    return to_onnx(model, inputs, folder, precision, portable=portable)


def _compared(
    original: _Original,
    folder: Path,
    manifest: Manifest,
    texts: Sequence[Text],
    *,
    tolerance: float | None,
    keep_rows: bool,
) -> Manifest:
    """Compare the artefact with the model, and add the result and inputs for other machines to the manifest."""
    runtime = open_runtime(folder, manifest, "latency", None)
    vocabulary, longest = int(original.model.config.vocab_size), manifest.truncation.max_length
    batches, source = original.batches(texts), "the given texts"
    if not batches:
        batches = [random_inputs(manifest, vocabulary, min(each, longest)) for each in RANDOM_LENGTHS]
        source = "random token ids"
    parity = measure(
        original.model,
        runtime,
        batches,
        manifest,
        source=source,
        limits=limits_of(manifest.precision, tolerance, original.quantized),
    )
    check = check_of(runtime, random_inputs(manifest, vocabulary, min(12, longest)))
    kept = keep_rows and bool(texts)
    rows = check_of(runtime, real_rows(batches, manifest)) if kept else None
    caveats = (*manifest.caveats, *neighbour_caveats(parity, manifest.precision))
    return manifest.model_copy(update={"parity": parity, "check": check, "rows": rows, "caveats": caveats})
