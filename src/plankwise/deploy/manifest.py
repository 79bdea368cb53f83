"""The manifest of a deployed model: its inputs, its kind of answer, where it was made and how close it is to torch.

An artefact is a folder with this manifest, a model file, `tokenizer.json`, a `predict.py` that needs neither torch nor
plankwise, and the files by which other tools read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.errors import ModelError
from plankwise.core.files import sha256, write_text
from plankwise.core.paths import MANIFEST
from plankwise.data.batching.inputs import padding_of
from plankwise.data.truncation import Truncation
from plankwise.deploy.answers import ANSWERS, Answer, kind_of
from plankwise.encoder.classifier_head import labels_of
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.cost import attention_flops, linear_flops_per_token

FILE_NAME, TOKENIZER = MANIFEST, "tokenizer.json"
FORMAT = 1
STORED_NAMES = {"max_windows": "most"}  # of settings of windows, in files of format 1
DYNAMIC = "int8-dynamic"  # the precision that takes the ranges of each batch
# Largest change of a probability with the other texts of the batch. In fp32 it comes from another order of sums. Where
# numbers are rounded, that order decides single steps, which later layers amplify.
NEIGHBOUR_LIMITS = {"fp32": 1e-4}
NEIGHBOUR_LIMIT = 0.02  # of every other precision
RuntimeName = Literal["openvino", "onnx", "torch"]
RUNTIMES: tuple[RuntimeName, ...] = ("openvino", "onnx", "torch")


class _Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Parity(_Frozen):
    """The difference between an artefact and the fp32 torch model it was exported from, on the same inputs.

    Attributes:
        texts: number of texts compared.
        source: origin of the texts.
        logit_error: largest absolute difference of a logit.
        probability_change: largest absolute difference of a probability.
        agreement: share of texts with the same labels; of scores, of pairs of texts in the same order.
        mean_change: mean absolute difference of the probabilities.
        neighbour_change: largest difference between a text's probabilities in a batch and alone, both of the artefact.
        tolerance: largest `probability_change` that the export accepted.
        spread: unit of all changes: 1 for probabilities; for scores four standard deviations of the model's logits.
    """

    texts: int
    source: str
    logit_error: float
    probability_change: float
    agreement: float
    tolerance: float
    mean_change: float | None = None
    neighbour_change: float | None = None
    spread: float = 1.0


class Check(_Frozen):
    """Inputs and the artefact's logits for them, to test the artefact on another machine.

    Attributes:
        inputs: of the model, by name, each [texts, tokens].
        logits: [texts, labels].
    """

    inputs: dict[str, list[list[int]]]
    logits: list[list[float]]


class Timing(_Frozen):
    """The speed of an artefact on the machine that exported it, timed in turns with others, in batches of prediction.

    Attributes:
        ms_per_text: median over the rounds.
        over_fp32: time of fp32 in the same runtime divided by the artefact's, median over the rounds; below 1 the
            artefact is slower. None for fp32 itself, and where fp32 was not timed.
        spread: smallest and largest of these ratios.
        others: milliseconds per text of the others, by runtime and precision.
        texts: number of texts in a round.
        rounds: number of rounds.
        threads: cores used.
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
    """The number of operations of a model, whatever runs it.

    Attributes:
        linear_flops: operations per token in the linear layers of all Transformer layers.
        attention_flops: operations by which one token attends to one other.
    """

    linear_flops: int
    attention_flops: int


class Manifest(_Frozen):
    """Everything that is needed to run a model.

    Attributes:
        format: version of the manifest.
        runtime: library that runs the model.
        precision: of weights and operations, as `plankwise export` names it.
        model: path of the model in the folder.
        kind: of answer, a key of `ANSWERS`.
        labels: in the order of the logits.
        inputs: names of the model's inputs, each int64 [texts, tokens].
        padding: value that fills each input up to the longest of its batch, on the right.
        truncation: how much of a text the model sees, as in a recipe; stored as `reading`.
        positions: longest input of the model, in tokens.
        geometry: number of operations, for benchmarks.
        needs: int8 instructions. On a processor that has none of them sums saturate; if empty, any processor will do.
        caveats: limits of the answers, one sentence each.
        cpu: processor of the machine that exported the model, and its instructions for 8 and 16 bits.
        versions: of the libraries that exported it.
        parity: measured by the export.
        timing: measured by the export on the processor of `cpu`; None if it was not.
        check: random token ids, for other machines.
        rows: a few of the texts of `parity` for the same; None unless their owner lets them go: token ids can be read.
        hashes: SHA-256 of the files beside the manifest, by their paths in the folder.
    """

    format: int = FORMAT
    runtime: RuntimeName
    precision: str
    model: str
    kind: str
    labels: tuple[str, ...]
    inputs: tuple[str, ...]
    padding: dict[str, int]
    # Artefacts that exist, and their copies of predict.py, call it `reading`: the names in the file cannot change.
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
    rows: Check | None = None
    hashes: dict[str, str] = {}

    @pydantic.field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in ANSWERS:
            raise ValueError(f"no kind '{kind}'; allowed: {', '.join(ANSWERS)}")
        return kind

    @pydantic.field_validator("truncation", mode="before")
    @classmethod
    def _from_stored_names(cls, truncation: Any) -> Any:
        return _renamed(truncation, {old: new for new, old in STORED_NAMES.items()})

    @pydantic.field_serializer("truncation")
    def _to_stored_names(self, truncation: Truncation) -> dict[str, Any]:
        stored: dict[str, Any] = _renamed(dataclasses.asdict(truncation), STORED_NAMES)
        return stored

    @property
    def answer(self) -> Answer:
        """What the logits mean."""
        return ANSWERS[self.kind]

    @property
    def independent(self) -> bool:
        """Whether a text's answer does not depend on the other texts of its batch, as far as the export has seen."""
        change = None if self.parity is None else self.parity.neighbour_change
        return self.precision != DYNAMIC and (change is None or change <= neighbour_limit(self.precision))


def _renamed(truncation: Any, names: Mapping[str, str]) -> Any:
    """Rename the keys of `windows` in a truncation that is a dictionary."""
    if not isinstance(truncation, dict) or not isinstance(truncation.get("windows"), dict):
        return truncation
    windows = {names.get(key, key): value for key, value in truncation["windows"].items()}
    return {**truncation, "windows": windows}


def describe(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, inputs: tuple[str, ...], truncation: Truncation
) -> Manifest:
    """Describe a model that torch runs in fp32.

    Raises:
        ModelError: if no kind of answer fits the model, or its tokenizer cannot pad.
    """
    kind = kind_of(config)
    ANSWERS[kind].check_model(config, "the model")
    return Manifest(
        runtime="torch",
        precision="fp32",
        model="model.safetensors",
        kind=kind,
        labels=labels_of(config),
        inputs=inputs,
        padding=padding_of(tokenizer, inputs),
        truncation=truncation,
        positions=usable_positions(config),
    )


def neighbour_limit(precision: str) -> float:
    """Return the largest `neighbour_change` at which answers count as independent of their batch."""
    return NEIGHBOUR_LIMITS.get(precision, NEIGHBOUR_LIMIT)


def geometry_of(model: PreTrainedModel) -> Geometry:
    """Count the operations of a model."""
    return Geometry(
        linear_flops=linear_flops_per_token(model),
        attention_flops=attention_flops(model.config),
    )


def is_artefact(folder: Path) -> bool:
    """Return whether a folder is an artefact, rather than a model of Transformers or plankwise."""
    return (folder / FILE_NAME).is_file()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into an artefact's folder in one step."""
    write_text(folder / FILE_NAME, manifest.model_dump_json(indent=1, by_alias=True) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read an artefact's manifest and check the hashes of its files.

    Raises:
        ModelError: if it is unreadable, of another format, or a file is missing or was changed.
    """
    try:
        manifest = Manifest.model_validate_json((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read {folder / FILE_NAME}: {error}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where, what = ".".join(map(str, first["loc"])), first["msg"].lower().removeprefix("value error, ")
        raise ModelError(f"{folder / FILE_NAME}: {where}: {what}") from None
    if manifest.format != FORMAT:
        raise ModelError(f"{folder / FILE_NAME}: format {manifest.format}; allowed: {FORMAT}")
    for name, expected in manifest.hashes.items():
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: {name} is missing")
        if sha256(folder / name) != expected:
            raise ModelError(f"{folder}: {name} is not the file that was exported; its SHA-256 differs")
    return manifest
