"""From a run to an artefact: what an export takes from the recipe, which is texts to calibrate and to compare on."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from datasets import Dataset

from plankwise.core.errors import DataError, ModelError
from plankwise.core.recipe import read_recipe
from plankwise.data.batching.inputs import Text
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.data.text_files import TextFormat, read_lines
from plankwise.data.truncation import Truncation, truncation_for, warn_if_other
from plankwise.deploy.export.export import check_request, export
from plankwise.deploy.manifest import Manifest
from plankwise.encoder.checkpoint import load_config
from plankwise.encoder.classifier_head import check_classifier, labels_of
from plankwise.encoder.quantized import is_quantized
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.run.candidates import AUTO, Candidate, candidates, export_and_time, held_against
from plankwise.run.folder import RECIPE
from plankwise.run.recipe import Recipe

logger = logging.getLogger(__name__)
CALIBRATED, COMPARED = 300, 200


def export_model(
    model: str,
    out: Path,
    to: str = AUTO,
    precision: str = AUTO,
    *,
    recipe: Path | None = None,
    texts: Path | None = None,
    encoding: str | None = None,
    max_length: int | None = None,
    tolerance: float | None = None,
    processor: str | None = None,
    timed: bool = False,
    portable: bool | None = None,
) -> Manifest:
    """Export a fine-tuned model as its recipe reads texts; int8 is calibrated on train, parity measured on development.

    What `to` and `precision` leave open is decided by timing the candidates on this machine, or, if `processor` is
    given, by what is known of such processors.

    Args:
        model: folder or Hub id; of a model in a run's folder the recipe is known.
        out: the artefact's folder.
        to: a runtime, or `auto`.
        precision: of it, or `auto`.
        recipe: whose task and reading to take.
        texts: a text file with a text a line, where there is no recipe.
        encoding: of that file; UTF-8 by default.
        max_length: tokens of an input, where that alone is to differ from the recipe, or from how it was trained.
        tolerance: largest change of a probability that is handed out.
        processor: the kind that the artefact is for, vnni, avx2 or arm; nothing is timed then.
        timed: time what was named, too, against fp32 in the same runtime and the other runtime.
        portable: whether int8 weights get 7 bits; as a model that is quantized already has it, and otherwise they do.

    Raises:
        PlankwiseError: of the kind that fits; nothing is written then.
    """
    wanted = candidates(to, precision, processor)
    for each in wanted:
        check_request(each.runtime, each.precision, out)
    if processor is not None and AUTO not in (to, precision):
        raise ModelError(f"for {processor}: {wanted[0]} is named already; leave out --to or --precision, or --for")
    check_classifier(load_config(model), model)
    material = _material(model, recipe, texts, encoding)
    compared = material.compared
    wanted = _possible(model, wanted, unmeasured=processor is None and compared is None)
    options: dict[str, Any] = {
        "truncation": _reading(model, material, max_length),
        "calibration": material.calibration,
        "texts": compared,
        "tolerance": tolerance,
        "portable": portable,
    }
    if processor is None and compared is not None and (timed or len(wanted) > 1):
        return export_and_time(model, out, wanted, held_against(wanted), compared, options)
    [chosen, *_] = wanted
    if timed and processor is None:
        logger.info("%s is not timed: there are no texts; give --recipe or --texts", chosen)
    if processor is not None:
        logger.warning("%s: what is known to suit %s; it was not measured", chosen, processor)
    return export(model, out, to=chosen.runtime, precision=chosen.precision, **options)


def _possible(model: str, wanted: list[Candidate], unmeasured: bool) -> list[Candidate]:
    """Leave out what the model cannot become.

    Raises:
        DataError: if several precisions are left and nothing is there to choose among them by.
    """
    if unmeasured and len({each.precision for each in wanted}) > 1:
        raise DataError(
            "what is fastest here is measured on texts: give --recipe or --texts, or name --to and --precision"
        )
    if is_quantized(load_config(model)):  # it has no other precision
        return [each for each in wanted if each.precision == "int8"] or wanted
    return wanted


def _reading(model: str, material: _Material, max_length: int | None) -> Truncation | None:
    """Read texts as the recipe says, where that is silent as the model was trained to, and say where these differ."""
    own = stored_truncation(load_config(model))
    truncation = own if material.truncation is None else truncation_for(material.truncation, own)
    if max_length is not None:
        truncation = dataclasses.replace(truncation or Truncation(), max_length=max_length)
    if truncation is not None:
        warn_if_other(truncation, own, model)
    return truncation


@dataclasses.dataclass(frozen=True)
class _Material:
    """Texts to calibrate and to compare on, and how much of them the model sees, as far as that is known."""

    calibration: list[Text] | None = None
    compared: list[Text] | None = None
    truncation: Truncation | None = None


def _material(model: str, recipe: Path | None, texts: Path | None, encoding: str | None) -> _Material:
    found = _recipe_of(model) if recipe is None and texts is None else recipe
    if found is not None and texts is not None:
        raise DataError("give either a recipe or a file of texts, not both")
    if texts is not None:
        lines = _lines(texts, TextFormat(encoding))
        return _Material(lines, lines)
    return _Material() if found is None else _of_recipe(found, model)


def _of_recipe(path: Path, model: str) -> _Material:
    logger.info("texts and their reading: those of %s", path)
    recipe = read_recipe(path, Recipe)
    task = recipe.task.load()
    _check_labels(model, task)
    train, development = (task.splits[split] for split in (TRAIN, DEVELOPMENT))
    return _Material(sample_texts(train, CALIBRATED), sample_texts(development, COMPARED), recipe.model)


def _recipe_of(model: str) -> Path | None:
    beside = Path(model).parent / RECIPE
    return beside if beside.is_file() else None


def _check_labels(model: str, task: Task) -> None:
    labels = labels_of(load_config(model))
    if labels != task.labels:
        raise ModelError(f"{model} knows the labels {labels}, the recipe's task has {task.labels}")


def sample_texts(split: Dataset, most: int) -> list[Text]:
    """Draw texts, or pairs of texts, of a split, the same every time."""
    chosen = split.shuffle(seed=0).select(range(min(most, len(split))))
    if "text_pair" in chosen.column_names:
        return list(zip(chosen["text"], chosen["text_pair"], strict=True))
    return list(chosen["text"])


def _lines(path: Path, form: TextFormat) -> list[Text]:
    found: list[Text] = [line for line in read_lines(path, form.encoding) if line]
    if not found:
        raise DataError(f"{path} holds no text; one a line is needed")
    return found
