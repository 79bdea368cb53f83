"""The objectives there are. A new one is a file, a test and a line here."""

from __future__ import annotations

from plankwise.core.errors import RecipeError, suggest
from plankwise.training.objectives.classification import MultiLabel, SingleLabel
from plankwise.training.objectives.masked_lm import MaskedLM
from plankwise.training.objectives.masking import Masking
from plankwise.training.objectives.objective import Objective
from plankwise.training.objectives.regression import Regression
from plankwise.training.objectives.settings import ObjectiveSettings

OBJECTIVES: dict[str, type[Objective]] = {each.kind: each for each in (SingleLabel, MultiLabel, Regression, MaskedLM)}


def objective_of(kind: str, settings: ObjectiveSettings | None = None, masking: Masking | None = None) -> Objective:
    """Build the objective of a task's kind.

    Args:
        kind: of the task.
        settings: of the recipe; the defaults where there are none.
        masking: of the recipe, likewise.

    Raises:
        RecipeError: if no objective has this name.
    """
    if kind not in OBJECTIVES:
        raise RecipeError(f"no objective '{kind}'; {suggest(kind, list(OBJECTIVES))}")
    return OBJECTIVES[kind].from_settings(settings or ObjectiveSettings(), masking or Masking())
