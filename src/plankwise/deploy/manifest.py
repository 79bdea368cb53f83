"""What is known of a deployed model: how it reads, what it answers, where it was made and how far it is from torch.

An artefact is a folder with this manifest, a model file, `tokenizer.json` and a `predict.py` that needs neither torch
nor plankwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pydantic
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.errors import ModelError
from plankwise.core.files import sha256, write_text
from plankwise.data.batching.inputs import padding_of
from plankwise.data.truncation import Truncation
from plankwise.encoder.classifier_head import check_classifier, labels_of
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.cost import attention_flops, linear_flops_per_token

FILE_NAME, TOKENIZER = "manifest.json", "tokenizer.json"
FORMAT = 1
RuntimeName = Literal["openvino", "onnx", "torch"]
RUNTIMES: tuple[RuntimeName, ...] = ("openvino", "onnx", "torch")
_MULTI = "multi_label_classification"


class _Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Parity(_Frozen):
    """How far an artefact is from the fp32 torch model it was made of, on the same inputs.

    Attributes:
        texts: how many were compared.
        source: where they came from, `random` for token ids drawn at random.
        logit_error: largest absolute difference of a logit.
        probability_change: largest absolute difference of a probability.
        agreement: share of the texts with the same labels.
        mean_change: mean of these differences.
        neighbour_change: largest difference between the artefact's probabilities for a text in a batch and alone.
        tolerance: the `probability_change` up to which the artefact was handed out.
    """

    texts: int
    source: str
    logit_error: float
    probability_change: float
    agreement: float
    tolerance: float
    mean_change: float | None = None
    neighbour_change: float | None = None


class Check(_Frozen):
    """Random token ids and the artefact's own logits for them, to see on another machine whether it still works.

    Attributes:
        inputs: for each input of the model, [texts, tokens].
        logits: [texts, labels].
    """

    inputs: dict[str, list[list[int]]]
    logits: list[list[float]]


class Timing(_Frozen):
    """How fast an artefact was on the machine that made it, in turns with others, in the batches of prediction.

    Attributes:
        ms_per_text: median of the rounds.
        over_fp32: time of fp32 in the same runtime over the artefact's, median of the rounds' ratios; below 1 the
            artefact is slower. None for fp32 itself, or where there is none.
        spread: smallest and largest of these ratios.
        others: milliseconds a text of what it took turns with, by runtime and precision.
        texts: how many were run.
        rounds: how often.
        threads: cores in use.
        warnings: what makes the figures doubtful, such as other processes.
    """

    ms_per_text: float
    over_fp32: float | None
    spread: tuple[float, float] | None
    others: dict[str, float]
    texts: int
    rounds: int
    threads: int
    warnings: tuple[str, ...] = ()


class Geometry(_Frozen):
    """What a model has to compute, whatever runs it.

    Attributes:
        linear_flops: operations of one token in the linear layers of all Transformer layers.
        attention_flops: operations by which one token attends to one other.
    """

    linear_flops: int
    attention_flops: int


class Manifest(_Frozen):
    """All there is to know for running a model.

    Attributes:
        format: version of this layout.
        runtime: what runs it.
        precision: of weights and operations, as `plankwise export` names it.
        model: file name of the model.
        kind: whether a text has one label or any number.
        labels: in the order of the logits.
        inputs: names of the model's inputs, each int64 [texts, tokens].
        padding: the value that fills each input up to the longest of its batch, on the right.
        truncation: how much of a text the model sees, as in a recipe.
        positions: the longest input that the model can take, in tokens.
        geometry: what it has to compute; for benchmarks.
        needs: int8 instructions of which a processor has to have one, or its sums saturate; none where any will do.
        caveats: what the answers cannot promise, a sentence each.
        cpu: that machine's processor.
        versions: of the libraries that made it.
        parity: measured when it was made.
        timing: measured when it was made, on the processor of `cpu`; None where it was not.
        check: for other machines.
        hashes: SHA-256 of the files beside the manifest.
    """

    format: int = FORMAT
    runtime: RuntimeName
    precision: str
    model: str
    kind: Literal["single_label", "multi_label"]
    labels: tuple[str, ...]
    inputs: tuple[str, ...]
    padding: dict[str, int]
    truncation: Truncation = pydantic.Field(
        validation_alias=pydantic.AliasChoices("truncation", "reading"), serialization_alias="reading"
    )
    positions: int | None = None
    geometry: Geometry | None = None
    needs: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    cpu: dict[str, Any] = {}
    versions: dict[str, str | None] = {}
    parity: Parity | None = None
    timing: Timing | None = None
    check: Check | None = None
    hashes: dict[str, str] = {}


def describe(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, inputs: tuple[str, ...], truncation: Truncation
) -> Manifest:
    """Describe a classifier that torch runs in fp32.

    Raises:
        ModelError: if it is no classifier, or its tokenizer cannot pad.
    """
    check_classifier(config, "the model")
    return Manifest(
        runtime="torch",
        precision="fp32",
        model="model.safetensors",
        kind="multi_label" if config.problem_type == _MULTI else "single_label",
        labels=labels_of(config),
        inputs=inputs,
        padding=padding_of(tokenizer, inputs),
        truncation=truncation,
        positions=usable_positions(config),
    )


def geometry_of(model: PreTrainedModel) -> Geometry:
    """Count what a model has to compute."""
    return Geometry(
        linear_flops=linear_flops_per_token(model),
        attention_flops=attention_flops(model.config),
    )


def is_artefact(folder: Path) -> bool:
    """Tell an artefact from a folder of Transformers."""
    return (folder / FILE_NAME).is_file()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into an artefact's folder in one step."""
    write_text(folder / FILE_NAME, manifest.model_dump_json(indent=1, by_alias=True) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read an artefact's manifest and make sure that its files are those it was made of.

    Raises:
        ModelError: if it is unreadable, of another format, or a file was changed.
    """
    try:
        manifest = Manifest.model_validate_json((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read {folder / FILE_NAME}: {error}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(f"{folder / FILE_NAME}: {where}: {first['msg'].lower()}") from None
    if manifest.format != FORMAT:
        raise ModelError(f"{folder / FILE_NAME}: format {manifest.format}; allowed: {FORMAT}")
    for name, expected in manifest.hashes.items():
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: {name} is missing")
        if sha256(folder / name) != expected:
            raise ModelError(f"{folder}: {name} is not the file that was exported; its SHA-256 differs")
    return manifest
