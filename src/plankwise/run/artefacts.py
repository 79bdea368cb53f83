"""From a run to an artefact: the recipe's texts, to calibrate and compare the export on, and how they are read."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from plankwise.core.errors import DataError, ModelError
from plankwise.core.recipe import read_recipe
from plankwise.data.batching.inputs import Text
from plankwise.data.task import DEVELOPMENT, TRAIN, Access, Task
from plankwise.data.text_files import TextFormat, read_lines
from plankwise.data.truncation import Truncation, truncation_for, warn_if_other
from plankwise.deploy.export.export import check_request, export
from plankwise.deploy.manifest import Manifest, is_artefact
from plankwise.encoder.checkpoint import load_config
from plankwise.encoder.classifier_head import check_answers, labels_of
from plankwise.encoder.quantized import is_quantized
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.evaluation.benchmark.artefact_timing import time_artefacts
from plankwise.evaluation.benchmark.models import Export
from plankwise.report.artefact_card import write_artefact_card
from plankwise.run.candidates import AUTO, Candidate, Timer, candidates, export_and_time, references
from plankwise.run.folder import RECIPE
from plankwise.run.recipe import Recipe

logger = logging.getLogger(__name__)
CALIBRATED, COMPARED = 300, 200  # texts


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """Which model to export, and how.

    Attributes:
        model: folder or Hub id; the recipe of a model in a run's folder is known.
        out: the artefact's folder.
        to: a runtime, or `auto`.
        precision: of that runtime, or `auto`.
        recipe: whose texts to take and to read as it says.
        texts: a text file with one text per line, if there is no recipe.
        encoding: of that file; UTF-8 by default.
        max_length: tokens of an input, to change that alone of how texts are read.
        tolerance: largest change of a probability with which an artefact is written.
        processor: the kind that the artefact is for, vnni, avx2 or arm; nothing is timed then.
        timed: also time a candidate that was named, against fp32 in the same runtime and the other runtime.
        portable: whether int8 weights get 7 bits; by default yes, and a quantized model keeps what it has.
        keep_rows: whether a few compared texts go into the artefact, as token ids, to test it on other machines. By
            default those of a recipe's task do if its access is open, and those of a file of texts do not.
    """

    model: str
    out: Path
    to: str = AUTO
    precision: str = AUTO
    recipe: Path | None = None
    texts: Path | None = None
    encoding: str | None = None
    max_length: int | None = None
    tolerance: float | None = None
    processor: str | None = None
    timed: bool = False
    portable: bool | None = None
    keep_rows: bool | None = None


def export_model(request: ExportRequest, *, exporter: Export = export, timer: Timer = time_artefacts) -> Manifest:
    """Export a fine-tuned model that reads texts as its recipe says.

    Int8 is calibrated on the training split, and the artefact compared with torch on the development split. Runtime and
    precision, if left open, are chosen by timing the candidates on this machine, or, if a processor is named, by what
    is known of such processors.

    Args:
        request: which model, and how.
        exporter: makes an artefact.
        timer: times artefacts.

    Raises:
        PlankwiseError: if the request is wrong, or the model cannot be exported so; nothing is written then.
    """
    processor = request.processor
    wanted = candidates(request.to, request.precision, request.processor)
    for each in wanted:
        check_request(each.runtime, each.precision, request.out)
    if processor is not None and AUTO not in (request.to, request.precision):
        raise ModelError(f"for {processor}: {wanted[0]} is named already; leave out --to or --precision, or --for")
    check_answers(load_config(request.model), request.model)
    data = _texts_for(request)
    compared = data.compared
    wanted = _possible(request.model, wanted, unmeasured=processor is None and compared is None)
    options: dict[str, Any] = {
        "truncation": _truncation(request.model, data.truncation, request.max_length),
        "calibration": data.calibration,
        "texts": compared,
        "tolerance": request.tolerance,
        "portable": request.portable,
        "keep_rows": _keeps_rows(request.keep_rows, data.access),
    }
    manifest = _export(request, wanted, options, exporter=exporter, timer=timer)
    if is_artefact(request.out):
        write_artefact_card(request.out, manifest, request.model, access=data.access)
    return manifest


def _export(
    request: ExportRequest, wanted: list[Candidate], options: dict[str, Any], *, exporter: Export, timer: Timer
) -> Manifest:
    """Export to the candidate that is fastest here, or, where nothing is timed, to the first."""
    processor, compared = request.processor, options["texts"]
    if processor is None and compared is not None and (request.timed or len(wanted) > 1):
        return export_and_time(
            request.model,
            request.out,
            wanted,
            references(wanted),
            compared,
            options=options,
            exporter=exporter,
            timer=timer,
        )
    [chosen, *_] = wanted
    if request.timed and processor is None:
        logger.info("%s is not timed: there are no texts; give --recipe or --texts", chosen)
    if processor is not None:
        logger.warning("%s: what is known to suit %s; it was not measured", chosen, processor)
    return exporter(request.model, request.out, to=chosen.runtime, precision=chosen.precision, **options)


def _keeps_rows(wanted: bool | None, access: Access | None) -> bool:
    """Return whether the artefact may hold texts; by default only where a task says that its access is open.

    Raises:
        DataError: if credentialed texts are wanted in it.
    """
    if wanted and access == "credentialed":
        raise DataError("--keep-rows puts texts into the artefact, and the task's access is credentialed: leave it out")
    return access == "open" if wanted is None else wanted


def _possible(model: str, wanted: list[Candidate], unmeasured: bool) -> list[Candidate]:
    """Leave out the candidates that the model cannot be exported to.

    Raises:
        DataError: if several precisions are left and there is nothing to choose by.
    """
    if unmeasured and len({each.precision for each in wanted}) > 1:
        raise DataError(
            "what is fastest here is measured on texts: give --recipe or --texts, or name --to and --precision"
        )
    if is_quantized(load_config(model)):  # it has no other precision
        return [each for each in wanted if each.precision == "int8"] or wanted
    return wanted


def _truncation(model: str, of_recipe: Truncation | None, max_length: int | None) -> Truncation | None:
    """Read texts as the recipe says, and where it does not, as the model was trained to; warn where these differ."""
    own = stored_truncation(load_config(model))
    truncation = own if of_recipe is None else truncation_for(of_recipe, own)
    if max_length is not None:
        truncation = dataclasses.replace(truncation or Truncation(), max_length=max_length)
    if truncation is not None:
        warn_if_other(truncation, own, model)
    return truncation


@dataclass(frozen=True)
class _ExportTexts:
    """Texts to calibrate and compare on, their access, how much of them the model reads; None where it is not known."""

    calibration: list[Text] | None = None
    compared: list[Text] | None = None
    truncation: Truncation | None = None
    access: Access | None = None


def _texts_for(request: ExportRequest) -> _ExportTexts:
    found = _recipe_of(request.model) if request.recipe is None and request.texts is None else request.recipe
    if found is not None and request.texts is not None:
        raise DataError("give either a recipe or a file of texts, not both")
    if request.texts is not None:
        lines = _lines(request.texts, TextFormat(request.encoding))
        return _ExportTexts(lines, lines)
    return _ExportTexts() if found is None else _of_recipe(found, request.model)


def _of_recipe(path: Path, model: str) -> _ExportTexts:
    logger.info("texts, and how they are read, come from %s", path)
    recipe = read_recipe(path, Recipe)
    task = recipe.task.load()
    _check_labels(model, task)
    train, development = (task.splits[split] for split in (TRAIN, DEVELOPMENT))
    calibration, compared = sample_texts(train, CALIBRATED), sample_texts(development, COMPARED)
    return _ExportTexts(calibration, compared, recipe.model, task.access)


def _recipe_of(model: str) -> Path | None:
    beside = Path(model).parent / RECIPE
    return beside if beside.is_file() else None


def _check_labels(model: str, task: Task) -> None:
    labels = labels_of(load_config(model))
    if labels != task.labels:
        raise ModelError(f"{model} knows the labels {labels}, the recipe's task has {task.labels}")


def sample_texts(split: Dataset, most: int) -> list[Text]:
    """Draw at most `most` texts, or pairs of texts, of a split, the same every time."""
    chosen = split.shuffle(seed=0).select(range(min(most, len(split))))
    if "text_pair" in chosen.column_names:
        return list(zip(chosen["text"], chosen["text_pair"], strict=True))
    return list(chosen["text"])


def _lines(path: Path, form: TextFormat) -> list[Text]:
    found: list[Text] = [line for line in read_lines(path, form.encoding) if line]
    if not found:
        raise DataError(f"{path} holds no text; allowed: one text per line")
    return found
