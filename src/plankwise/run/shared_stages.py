"""The stages that two runs share: which of them a new run may take over from one that has them already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plankwise.core.errors import OutputError
from plankwise.core.recipe import to_plain
from plankwise.core.records import read_record
from plankwise.data.task import Task
from plankwise.methods.method import Method
from plankwise.run.folder import BASELINE, PRETRAINED, STAGE, read_entry
from plankwise.run.recipe import Recipe

_OF_THE_TASK = ("kind", "labels", "metrics")  # the first metric selects the best epoch


def stage_of(number: int, step: Method) -> str:
    """Return the folder of a step in its run; steps are numbered from 1."""
    return f"steps/{number:02d}-{step.method}"


def shared_stages(source: Path, recipe: Recipe, task: Task, baseline_settings: dict[str, Any]) -> list[str]:
    """List the stages of the run in `source` that a run of `recipe` would make in the same way.

    Args:
        source: folder of the other run, which may be unfinished.
        recipe: of the new run.
        task: of the new run.
        baseline_settings: all that the new run's baseline depends on.

    Returns:
        Names of folders in `source`, in order: the baseline and the steps up to the first that differs or is missing.

    Raises:
        CheckpointError: if there is no run in `source`, or it has no baseline.
        OutputError: if its baseline was made of other data, model or settings, or with another seed.
    """
    other, entry = read_record(source), read_entry(source / BASELINE)
    mine = {"kind": task.kind, "labels": list(task.labels), "metrics": list(task.metrics), **baseline_settings}
    theirs = {**{key: other.task.get(key) for key in _OF_THE_TASK}, **entry.settings}
    differing = ", ".join(key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key))
    if differing:
        raise OutputError(f"the run in {source} starts from another baseline (it differs in {differing})")
    names = [name for name in (PRETRAINED, BASELINE) if (source / name / STAGE).exists()]
    for number, step in enumerate(recipe.steps, 1):
        name = stage_of(number, step)
        if not (source / name / STAGE).exists() or read_entry(source / name).settings != to_plain(step):
            break
        names.append(name)
    return names
