"""Opens models for prediction: artefacts, and folders of Transformers or plankwise."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedModel

from plankwise.core.errors import ModelError
from plankwise.core.hardware import cpu_flags
from plankwise.core.packages import require
from plankwise.data.batching.inputs import bare_tokenizer, inputs_of
from plankwise.data.truncation import Truncation
from plankwise.deploy.machine_check import check_machine
from plankwise.deploy.manifest import TOKENIZER, Manifest, describe, geometry_of, is_artefact, read_manifest
from plankwise.deploy.runtimes import Mode, OnnxRuntime, OpenVino, Runtime, Torch, TorchProgram
from plankwise.encoder.checkpoint import load_config, load_trained
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.encoder.tokenizer import load_tokenizer


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
        ModelError: if the model cannot be read, or its answers on another class of processor differ from those it was
            exported with.
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
    check_machine(manifest, deployed.runtime, cpu_flags())
    return deployed


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
