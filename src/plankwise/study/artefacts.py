"""From a run to an artefact: what an export takes from the recipe, which is texts to calibrate and to compare on."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from datasets import Dataset

from plankwise.core.errors import DataError, ModelError
from plankwise.core.recipe import read_recipe
from plankwise.data.reading import Reading
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.deploy.batches import Text
from plankwise.deploy.export import check_request, export
from plankwise.deploy.manifest import Manifest
from plankwise.encoder.checkpoint import load_config
from plankwise.study.plan import Recipe
from plankwise.study.run_folder import RECIPE

logger = logging.getLogger(__name__)
CALIBRATED, COMPARED = 300, 200


def export_model(
    model: str,
    out: Path,
    to: str,
    precision: str,
    *,
    recipe: Path | None = None,
    texts: Path | None = None,
    max_length: int | None = None,
    tolerance: float | None = None,
    portable: bool | None = None,
) -> Manifest:
    """Export a fine-tuned model as its recipe reads texts; int8 is calibrated on train, parity measured on development.

    Args:
        model: folder or Hub id; of a model in a run's folder the recipe is known.
        out: the artefact's folder.
        to: a runtime.
        precision: of it.
        recipe: whose task and reading to take.
        texts: a text file with a text a line, where there is no recipe.
        max_length: tokens of an input, where that alone is to differ from the recipe.
        tolerance: largest change of a probability that is handed out.
        portable: whether int8 weights get 7 bits; as a model that is quantized already has it, and otherwise they do.

    Raises:
        PlankwiseError: of the kind that fits; nothing is written then.
    """
    check_request(to, precision, out)
    found = _recipe_of(model) if recipe is None and texts is None else recipe
    if found is not None and texts is not None:
        raise DataError("give either a recipe or a file of texts, not both")
    material = _Material() if found is None else _of_recipe(found, model)
    if texts is not None:
        lines = _lines(texts)
        material = _Material(lines, lines)
    reading = material.reading
    if max_length is not None:
        reading = dataclasses.replace(reading or Reading(), max_length=max_length)
    return export(
        model,
        out,
        to=to,
        precision=precision,
        reading=reading,
        calibration=material.calibration,
        texts=material.compared,
        tolerance=tolerance,
        portable=portable,
    )


@dataclasses.dataclass(frozen=True)
class _Material:
    """Texts to calibrate and to compare on, and how much of them the model sees, as far as that is known."""

    calibration: list[Text] | None = None
    compared: list[Text] | None = None
    reading: Reading | None = None


def _of_recipe(path: Path, model: str) -> _Material:
    logger.info("texts and their reading: those of %s", path)
    recipe = read_recipe(path, Recipe)
    task = recipe.task.load()
    _check_labels(model, task)
    train, development = (task.splits[split] for split in (TRAIN, DEVELOPMENT))
    return _Material(_sample(train, CALIBRATED), _sample(development, COMPARED), recipe.model.reading)


def _recipe_of(model: str) -> Path | None:
    beside = Path(model).parent / RECIPE
    return beside if beside.is_file() else None


def _check_labels(model: str, task: Task) -> None:
    config = load_config(model)
    labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    if labels != task.labels:
        raise ModelError(f"{model} knows the labels {labels}, the recipe's task has {task.labels}")


def _sample(split: Dataset, most: int) -> list[Text]:
    """Draw rows of a split, the same every time."""
    chosen = split.shuffle(seed=0).select(range(min(most, len(split))))
    if "text_pair" in chosen.column_names:
        return list(zip(chosen["text"], chosen["text_pair"], strict=True))
    return list(chosen["text"])


def _lines(path: Path) -> list[Text]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the texts {path}: {getattr(error, 'strerror', None) or error}") from None
    found: list[Text] = [line for line in lines if line]
    if not found:
        raise DataError(f"{path} holds no text; one a line is needed")
    return found
