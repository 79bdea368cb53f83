"""Export: a trained model becomes an artefact, a folder that predicts without torch and without plankwise.

What is handed out was run against the torch model on real texts first. The tokenizer is the fast tokenizer's own file;
`predict.py` beside it is `standalone.py` of this package.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.errors import ModelError, OutputError, one_of, suggest
from plankwise.core.files import atomic_folder, contents, make_writable_folder, sha256
from plankwise.core.hardware import INT8_FLAGS, environment, saturates, version_of
from plankwise.core.packages import missing, require
from plankwise.core.paths import check_folder, tidy
from plankwise.data.batching.inputs import Inputs, Text, bare_tokenizer, encode_texts, inputs_of
from plankwise.data.batching.token_budget import padded_batch, starts_of, token_budget_batches
from plankwise.data.tokenizer.unknown_tokens import check_unknown
from plankwise.data.truncation import Truncation, check_truncation
from plankwise.deploy import standalone
from plankwise.deploy.deployed import reading_of, runtime_of
from plankwise.deploy.export.calibrated import calibrated
from plankwise.deploy.export.onnx import to_onnx
from plankwise.deploy.export.openvino import to_openvino
from plankwise.deploy.export.parity import OWN_NUMBERS, TOKENS_PER_BATCH, TOLERANCES, check_of, measure, random_inputs
from plankwise.deploy.export.torch_program import to_torch
from plankwise.deploy.manifest import RUNTIMES, TOKENIZER, Manifest, RuntimeName, describe, geometry_of, write_manifest
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.quantized import quantized_of
from plankwise.encoder.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)
PRECISIONS: dict[RuntimeName, tuple[str, ...]] = {
    "openvino": ("fp32", "bf16", "fp16", "int8", "int8-weights", "int4-weights"),
    "onnx": ("fp32", "int8", "int8-dynamic"),
    "torch": ("fp32", "bf16", "fp16"),
}
PACKAGES: dict[RuntimeName, tuple[str, ...]] = {
    "openvino": ("openvino", "nncf"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "torch": (),
}
INTEGERS = ("int8", "int8-dynamic")  # precisions whose products are of integers
TOKENS_PER_CALIBRATION = 512
DYNAMIC = (
    "int8-dynamic takes the ranges of each batch: a text's answer changes with the texts beside it; int8's does not"
)


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
) -> Manifest:
    """Make an artefact of a fine-tuned classifier.

    Args:
        model_folder: of Transformers or plankwise, or a Hub id.
        out: the artefact's folder; new, or empty.
        to: openvino, onnx or torch.
        precision: one of `PRECISIONS[to]`. For int8, ranges are read off `calibration`; a model that plankwise
            quantized keeps its own numbers.
        truncation: how much of a text the model sees; by default as it was trained, and where that is not known as many
            tokens as it has positions, up to 512.
        calibration: training texts, or pairs.
        texts: to compare the artefact with torch on; random token ids otherwise.
        tolerance: largest change of a probability that is handed out; by `TOLERANCES` otherwise, and of a model that
            is quantized already, whose numbers the artefact has to repeat, by `OWN_NUMBERS` on average.
        portable: whether int8 weights get 7 bits, so that sums saturate on no processor: the default for a model in
            fp32. One that plankwise quantized is what it is.

    Raises:
        ModelError: if the model cannot be exported so, or the artefact is too far from it; nothing is written then.
        OutputError: if `out` is taken.
    """
    runtime = check_request(to, precision, out)
    model, tokenizer = load_trained(str(model_folder)), load_tokenizer(str(model_folder))
    described = describe(model.config, tokenizer, inputs_of(model, tokenizer), truncation or reading_of(model))
    _check_model(model, tokenizer, described.truncation, runtime, precision, calibration)
    check_unknown([*(calibration or ()), *(texts or ())], tokenizer, str(model_folder))
    portable = _portable(model, precision, portable)
    versions = {**environment()["versions"], **{name: version_of(name) for name in PACKAGES[runtime]}}
    update = {"runtime": runtime, "precision": precision, "versions": versions, "cpu": environment()["cpu"]}
    update["geometry"] = geometry_of(model)
    with atomic_folder(out) as folder:
        ranges = _batches(calibration or (), tokenizer, described, TOKENS_PER_CALIBRATION)
        name = _write(model, described.inputs, folder, runtime, precision, ranges, portable)
        manifest = described.model_copy(update={**update, **_limits(precision, portable), "model": name})
        manifest = _proven(model, tokenizer, folder, manifest, texts, tolerance)
        bare_tokenizer(tokenizer).save(str(folder / TOKENIZER))
        shutil.copyfile(standalone.__file__, folder / "predict.py")
        hashes = {each.name: sha256(each) for each in sorted(folder.iterdir())}
        manifest = manifest.model_copy(update={"hashes": hashes})
        write_manifest(folder, manifest)
    return manifest


def check_request(to: str, precision: str, out: Path) -> RuntimeName:
    """Refuse what can be refused before texts or a model are loaded; give the runtime.

    Raises:
        ModelError: if there is no such runtime or precision, or the runtime is not installed.
        OutputError: if `out` is taken or cannot be written to.
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
    """Name what is not installed of the packages that an export to a runtime needs."""
    return missing(*PACKAGES[runtime])


def _check_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    truncation: Truncation,
    runtime: RuntimeName,
    precision: str,
    calibration: Sequence[Text] | None,
) -> None:
    longest, quantized = usable_positions(model.config), quantized_of(model.config) is not None
    if truncation.max_length > longest:
        raise ModelError(f"max_length {truncation.max_length} is more than the model's {longest} positions")
    check_truncation(truncation, tokenizer.num_special_tokens_to_add(), pairs=False)
    if quantized and precision != "int8":
        raise ModelError(f"the model is quantized already; allowed: int8 for openvino or onnx, not {precision}")
    if precision == "int8" and not quantized and not calibration:
        raise ModelError(f"int8 for {runtime} needs training texts to calibrate on: give --recipe or --texts")


def _portable(model: PreTrainedModel, precision: str, wanted: bool | None) -> bool:
    """Return whether no processor's sums saturate, which a model that is quantized already has settled."""
    if wanted is not None and precision not in INTEGERS:
        raise ModelError(f"--portable and --no-portable are for {' and '.join(INTEGERS)}, not for {precision}")
    quantized = quantized_of(model.config)
    if quantized is None:
        return wanted is not False
    if wanted not in (None, quantized.portable):
        said = str(quantized.portable).lower()
        raise ModelError(
            f"the model was quantized with portable: {said}, and an export keeps its numbers; quantize again"
        )
    return quantized.portable


def _limits(precision: str, portable: bool) -> dict[str, tuple[str, ...]]:
    """Record in the manifest, and log, where an artefact's answers change: on other processors, in other batches."""
    needs = INT8_FLAGS if precision in INTEGERS and not portable else ()
    caveats = (DYNAMIC,) if precision == "int8-dynamic" else ()
    if needs and saturates():
        logger.warning("weights are not portable, and this processor has none of %s: sums saturate", ", ".join(needs))
    for each in caveats:
        logger.warning(each)
    return {"needs": needs, "caveats": caveats}


def _write(
    model: PreTrainedModel,
    inputs: tuple[str, ...],
    folder: Path,
    runtime: RuntimeName,
    precision: str,
    calibration: Sequence[Inputs],
    portable: bool,
) -> str:
    quantized = quantized_of(model.config) is not None
    if runtime == "openvino":
        return to_openvino(model, inputs, folder, precision, () if quantized else calibration, portable)
    if runtime == "onnx":
        if precision == "int8" and not quantized:
            model = calibrated(model, calibration, portable)
        return to_onnx(model, inputs, folder, precision, portable)
    return to_torch(model, inputs, folder, precision)


def _proven(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    manifest: Manifest,
    texts: Sequence[Text] | None,
    tolerance: float | None,
) -> Manifest:
    """Add to the manifest how far the artefact is from the model."""
    runtime = runtime_of(folder, manifest, "latency", None)
    vocabulary, longest = int(model.config.vocab_size), manifest.truncation.max_length
    batches = _batches(texts or (), tokenizer, manifest, TOKENS_PER_BATCH)
    drawn = [random_inputs(manifest, vocabulary, min(size, longest)) for size in (3, 12, 48)]
    allowed = TOLERANCES[manifest.precision] if tolerance is None else tolerance
    repeats = quantized_of(model.config) is not None and tolerance is None
    source = "the given texts" if batches else "random token ids"
    parity = measure(model, runtime, batches or drawn, manifest, source, allowed, OWN_NUMBERS if repeats else 1.0)
    check = check_of(runtime, random_inputs(manifest, vocabulary, min(12, longest)))
    return manifest.model_copy(update={"parity": parity, "check": check})


def _batches(
    texts: Sequence[Text], tokenizer: PreTrainedTokenizerBase, manifest: Manifest, budget: int
) -> list[Inputs]:
    """Make the batches that prediction makes."""
    encoded = encode_texts(texts, bare_tokenizer(tokenizer), manifest.inputs, manifest.truncation)
    starts = starts_of(encoded.lengths)
    groups = token_budget_batches(encoded.lengths, budget)
    return [padded_batch(encoded, starts, group, manifest.padding) for group in groups]
