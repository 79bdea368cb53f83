"""Opens models for prediction: artefacts, and folders of Transformers or plankwise."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from plankwise.core.errors import ModelError
from plankwise.core.hardware import cpu_flags
from plankwise.core.packages import require
from plankwise.data.batching.inputs import bare_tokenizer, inputs_of
from plankwise.data.truncation import Truncation
from plankwise.deploy.manifest import TOKENIZER, Manifest, describe, geometry_of, is_artefact, read_manifest
from plankwise.deploy.runtimes import Mode, OnnxRuntime, OpenVino, Runtime, Torch, TorchProgram
from plankwise.encoder.checkpoint import load_config, load_trained
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.encoder.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Deployed:
    """A model that is ready to predict.

    Attributes:
        manifest: its inputs, truncation and kind of answer.
        tokenizer: without truncation and padding.
        runtime: runs the model.
        own: the truncation it was trained or exported with, which may differ from the manifest's; None if unknown.
    """

    manifest: Manifest
    tokenizer: Tokenizer
    runtime: Runtime
    own: Truncation | None = None


def open_model(
    folder: Path | str, mode: Mode = "throughput", threads: int | None = None, truncation: Truncation | None = None
) -> Deployed:
    """Open an artefact in the runtime it was exported for, or a fine-tuned model in torch fp32.

    Args:
        folder: an artefact, or a local folder or Hub id of a fine-tuned model.
        mode: `throughput` for many texts at once, `latency` for one as soon as possible.
        threads: cores to use; by default all, and in torch as many as torch is set to.
        truncation: how much of a text the model sees; by default as it was exported or trained, and if that is not
            known as many tokens as the model has positions, up to 512.

    Raises:
        ModelError: if the model cannot be read, or its answers on this machine differ from those it was exported with.
    """
    if not is_artefact(Path(folder)):
        model, tokenizer = load_trained(str(folder)), load_tokenizer(str(folder))
        manifest = describe(model.config, tokenizer, inputs_of(model, tokenizer), truncation or truncation_of(model))
        manifest = manifest.model_copy(update={"geometry": geometry_of(model)})
        runtime = Torch(model, threads=threads)
        return Deployed(manifest, bare_tokenizer(tokenizer), runtime, stored_truncation(model.config))
    manifest = read_manifest(Path(folder))
    manifest.answer.check_labels(manifest.labels, str(folder))
    own = manifest.truncation
    if truncation is not None:
        manifest = manifest.model_copy(update={"truncation": truncation})
    tokenizer_file = Path(folder) / TOKENIZER
    try:
        own_tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # the library raises no narrower kind
        raise ModelError(f"cannot read {tokenizer_file}: {error}") from None
    deployed = Deployed(manifest, own_tokenizer, open_runtime(Path(folder), manifest, mode, threads), own)
    check_machine(deployed, cpu_flags())
    return deployed


def check_machine(deployed: Deployed, flags: Collection[str]) -> None:
    """Warn if a processor lacks the int8 instructions that an artefact needs, and check the artefact's answers on it.

    Without these instructions u8·s8 products are added in 16 bits and saturate, so that an intact artefact may choose
    other labels. Portable int8 needs none.

    Args:
        deployed: an open artefact.
        flags: instructions of the processor.

    Raises:
        ModelError: if a probability differs by more than the tolerance of the export.
    """
    manifest = deployed.manifest
    # Any one of `needs` will do: each of them adds products of 8-bit numbers in 32 bits.
    if not manifest.needs or set(manifest.needs) & set(flags) or manifest.check is None or not manifest.parity:
        return
    inputs = {name: np.array(rows, dtype=np.int64) for name, rows in manifest.check.inputs.items()}
    found = manifest.answer.probabilities(deployed.runtime(inputs))
    expected = manifest.answer.probabilities(np.array(manifest.check.logits, dtype=np.float32))
    change = float(np.abs(found - expected).max())
    lacking = ", ".join(manifest.needs)
    if not change <= manifest.parity.tolerance:  # true of NaN, too
        raise ModelError(
            f"this processor has none of {lacking}, and the model's probabilities differ by {change:.3f} from those it "
            f"was exported with; allowed: {manifest.parity.tolerance}. Export it again with portable weights"
        )
    logger.warning(
        "this processor has none of %s, which the model was exported for: its sums saturate, and it is slower; on "
        "random input its probabilities differ by at most %.4f from those it was exported with",
        lacking,
        change,
    )


def truncation_of(model: PreTrainedModel) -> Truncation:
    """Return the truncation a model was trained with, or, if unknown, as many tokens as it has positions, up to 512."""
    return stored_truncation(model.config) or Truncation(max_length=min(512, usable_positions(model.config)))


def own_truncation(folder: Path | str) -> Truncation | None:
    """Return the truncation that a model was trained with, or an artefact exported with; None if unknown."""
    if is_artefact(Path(folder)):
        return read_manifest(Path(folder)).truncation
    return stored_truncation(load_config(str(folder)))


def open_runtime(folder: Path, manifest: Manifest, mode: Mode, threads: int | None) -> Runtime:
    """Load an artefact's model into its runtime, on all cores by default; torch keeps its own number of threads.

    Raises:
        ModelError: if the runtime is not installed, or cannot load the model.
    """
    path, used = folder / manifest.model, threads or os.cpu_count() or 1
    package = {"openvino": "openvino", "onnx": "onnxruntime", "torch": "torch"}[manifest.runtime]
    require(str(folder), package, error=ModelError)
    if manifest.runtime == "onnx":
        return OnnxRuntime(path, used, mode)
    if manifest.runtime == "openvino":
        return OpenVino(path, used, mode, "bf16" if manifest.precision == "bf16" else "fp32")
    return TorchProgram(path, threads)
