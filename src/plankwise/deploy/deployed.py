"""Opening a model for prediction: an artefact, or a folder of Transformers or plankwise, with its tokenizer."""

from __future__ import annotations

import dataclasses
import logging
import os
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
from plankwise.deploy.runtimes import Mode, OnnxRuntime, OpenVino, Runtime, Torch, TorchProgram, probabilities
from plankwise.encoder.checkpoint import load_config, load_trained
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.encoder.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Deployed:
    """A model that is ready to predict.

    Attributes:
        manifest: how it reads and what it answers.
        tokenizer: without truncation and padding.
        runtime: runs it.
        own: how it was trained or exported to read texts, whatever the manifest says now; None where that is not known.
    """

    manifest: Manifest
    tokenizer: Tokenizer
    runtime: Runtime
    own: Truncation | None = None


def open_model(
    folder: Path | str, mode: Mode = "throughput", threads: int | None = None, truncation: Truncation | None = None
) -> Deployed:
    """Open a model for prediction, with the runtime that it was exported for; torch fp32 where it was not exported.

    Args:
        folder: an artefact, or a local folder or Hub id of a fine-tuned model.
        mode: many texts at once, or one as soon as possible.
        threads: cores to use; by default all, or as many as torch is set to where torch runs it.
        truncation: how much of a text the model sees; by default as it was exported or trained, and where that is not
            known as many tokens as the model has positions, up to 512.

    Raises:
        ModelError: if it cannot be read, or gives other answers than where it was made.
    """
    if not is_artefact(Path(folder)):
        model, tokenizer = load_trained(str(folder)), load_tokenizer(str(folder))
        manifest = describe(model.config, tokenizer, inputs_of(model, tokenizer), truncation or reading_of(model))
        manifest = manifest.model_copy(update={"geometry": geometry_of(model)})
        runtime = Torch(model, threads=threads)
        return Deployed(manifest, bare_tokenizer(tokenizer), runtime, stored_truncation(model.config))
    manifest = read_manifest(Path(folder))
    own = manifest.truncation
    if manifest.kind == "single_label" and len(manifest.labels) < 2:
        raise ModelError(
            f"{folder} answers with one number, not with labels; allowed: classifiers of two labels or more"
        )
    if truncation is not None:
        manifest = manifest.model_copy(update={"truncation": truncation})
    deployed = Deployed(manifest, _read_tokenizer(Path(folder)), runtime_of(Path(folder), manifest, mode, threads), own)
    check_machine(deployed)
    return deployed


def check_machine(deployed: Deployed) -> None:
    """Warn where this machine lacks the int8 instructions that the artefact needs, and check its answers.

    Without them u8·s8 products saturate, so that a sound artefact may give other labels. Portable int8 needs none.

    Raises:
        ModelError: if the answers differ by more than the tolerance it was exported under.
    """
    manifest = deployed.manifest
    if not manifest.needs or set(manifest.needs) & set(cpu_flags()) or manifest.check is None or not manifest.parity:
        return
    inputs = {name: np.array(rows, dtype=np.int64) for name, rows in manifest.check.inputs.items()}
    found = probabilities(deployed.runtime(inputs), manifest.kind)
    expected = probabilities(np.array(manifest.check.logits, dtype=np.float32), manifest.kind)
    change = float(np.abs(found - expected).max())
    lacking = ", ".join(manifest.needs)
    if not change <= manifest.parity.tolerance:
        raise ModelError(
            f"this processor has none of {lacking}, and the model's probabilities differ by {change:.3f} from those it "
            f"was exported with; allowed: {manifest.parity.tolerance}. Export it again with portable weights"
        )
    logger.warning(
        "this processor has none of %s, for which the model was exported: its sums saturate, and it is slower; its "
        "probabilities differ by at most %.4f on random input from those it was exported with",
        lacking,
        change,
    )


def reading_of(model: PreTrainedModel) -> Truncation:
    """Return how a model was trained to read texts, else as many tokens as it has positions, up to 512."""
    return stored_truncation(model.config) or Truncation(max_length=min(512, usable_positions(model.config)))


def own_truncation(folder: Path | str) -> Truncation | None:
    """Return how the model in a folder, or an artefact, was trained or exported to read texts, if that is known."""
    if is_artefact(Path(folder)):
        return read_manifest(Path(folder)).truncation
    return stored_truncation(load_config(str(folder)))


def _read_tokenizer(folder: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the library raises no narrower kind
        raise ModelError(f"cannot read {folder / TOKENIZER}: {error}") from None


def runtime_of(folder: Path, manifest: Manifest, mode: Mode, threads: int | None) -> Runtime:
    """Load an artefact's model into the runtime it is for, on all cores by default; torch keeps its own number.

    Raises:
        ModelError: if the runtime is not installed, or cannot load the model.
    """
    package = {"openvino": "openvino", "onnx": "onnxruntime", "torch": "torch"}[manifest.runtime]
    require(str(folder), package, error=ModelError)
    path, used = folder / manifest.model, threads or os.cpu_count() or 1
    if manifest.runtime == "onnx":
        return OnnxRuntime(path, used, mode)
    if manifest.runtime == "openvino":
        return OpenVino(path, used, mode, "bf16" if manifest.precision == "bf16" else "fp32")
    return TorchProgram(path, threads)
