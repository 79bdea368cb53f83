"""Where a run starts: from a fine-tuned model as it is, or from the baseline and the first steps of another run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from plankwise.core.errors import OutputError
from plankwise.core.recipe import to_plain
from plankwise.core.records import read_record
from plankwise.data.task import Task
from plankwise.run.contents import BASELINE, PRETRAINED, STAGE, differing, has_model, stage_of
from plankwise.run.folder import read_entry
from plankwise.run.recipe import Recipe

logger = logging.getLogger(__name__)
_OF_THE_TASK = ("kind", "labels", "metrics")  # the first metric selects the best epoch


def is_baseline_stage(folder: Path) -> bool:
    """Return whether a folder is the finished baseline of a run; any other model is taken as it is.

    Raises:
        CheckpointError: if it is a stage of a run whose record is damaged.
    """
    return (folder / STAGE).exists() and read_entry(folder).name == BASELINE


def as_it_is(model: str) -> list[str]:
    """Return the overrides of a recipe that take a fine-tuned model in the place of its own baseline, and log them.

    Args:
        model: folder or Hub id.
    """
    logger.info("%s is taken as it is, in the place of the recipe's model.source and baseline", model)
    return [f"model.source={json.dumps(model)}", "model.scratch=null", "baseline=null"]


def baseline_settings(recipe: Recipe, task: Task) -> dict[str, Any]:
    """Return all that the baseline of a recipe depends on, as plain values."""
    model = to_plain(recipe.model)
    return {
        "training": None if recipe.baseline is None else to_plain(recipe.baseline),
        # Stages that are older than this key do not have it.
        "model": {key: value for key, value in model.items() if (key, value) != ("labels", None)},
        "seed": recipe.seed,
        "objective": to_plain(recipe.objective),
        "masking": to_plain(recipe.masking),
        "data_hashes": dict(task.hashes),
    }


def check_baseline(source: Path, recipe: Recipe, task: Task) -> None:
    """Check that a finished baseline is what this recipe would have trained.

    Raises:
        CheckpointError: if `source` is not a finished stage.
        OutputError: naming what differs.
    """
    names = differing(read_entry(source).settings, baseline_settings(recipe, task))
    if names:
        raise OutputError(
            f"the baseline in {source} was made with other data, model, settings or seed (it differs in "
            f"{', '.join(names)}); to take it as it is, give the recipe baseline: null and model.source: {source}"
        )


def shared_stages(source: Path, recipe: Recipe, task: Task) -> list[str]:
    """List the stages of the run in `source` that a run of `recipe` would make in the same way.

    Args:
        source: folder of the other run, which may be unfinished.
        recipe: of the new run.
        task: of the new run.

    Returns:
        Names of folders in `source`, in order: the baseline and the steps up to the first that differs or is missing.

    Raises:
        CheckpointError: if there is no run in `source`, or it has no baseline.
        OutputError: if its baseline was made of other data, model or settings, or with another seed.
    """
    other, entry = read_record(source), read_entry(source / BASELINE)
    mine = {"kind": task.kind, "labels": list(task.labels), "metrics": list(task.metrics)}
    theirs = {**{key: other.task.get(key) for key in _OF_THE_TASK}, **entry.settings}
    unlike = differing(theirs, {**mine, **baseline_settings(recipe, task)})
    if unlike:
        raise OutputError(f"the run in {source} starts from another baseline (it differs in {', '.join(unlike)})")
    names = [name for name in (PRETRAINED, BASELINE) if (source / name / STAGE).exists()]
    for number, step in enumerate(recipe.steps, 1):
        name = stage_of(number, step)
        if not (source / name / STAGE).exists() or read_entry(source / name).settings != to_plain(step):
            break
        names.append(name)
    while len(names) > 1 and not has_model(source / names[-1]):  # dropped, as `keep: last` asks for
        names.pop()
    return names
