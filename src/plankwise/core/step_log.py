"""The log of one step: what its training, its teacher and its method did. Records keep it as `details`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from plankwise.core.texts_read import TextsRead


def thinned(points: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Leave out points of a curve, evenly, until `most` are left; the last one stays."""
    every = -(-len(points) // most)
    return list(points[::-1][:: max(1, every)][::-1])


class _Log(pydantic.BaseModel):
    """A frozen part of the log; what holds nothing is left out of the JSON."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    @pydantic.model_serializer(mode="wrap")
    def _without_nothing(self, serialize: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}


class TrainingLog(_Log):
    """What a training did; see `training.fit.TrainingResult` for the fields."""

    steps: int
    planned_steps: int
    train_seconds: float
    best_step: int
    history: list[dict[str, float]] = []
    precision: str | None = None
    losses: list[dict[str, float]] = []


class TeacherLog(_Log):
    """What a teacher was used for.

    Attributes:
        source: its name.
        seconds: spent on its predictions, where these were computed once beforehand.
        examples: how many it predicted then.
    """

    source: str
    seconds: float | None = None
    examples: int | None = None


class StepLog(_Log):
    """What a step did. A method with more to say subclasses it; a record that is read back keeps its fields as extras.

    Attributes:
        training: its training, or the last of several.
        teacher: of that training.
        seconds: what the method spent besides training, by what it was for.
        examples: training texts, or blocks of a corpus, that it looked at besides training.
        texts_read: how much of each split's texts the model was given; in a record it stands beside the log.
        redraws: how often a draw of module replacing would have trained no successor and was repeated.
        draws_sha256: of module replacing; equal for two trainings that drew the same modules at each step.
        replacement: `{"step", "rate", "replaced"}` over the training: the scheduled rate, and the share of modules that
            were drawn since the entry before.
    """

    training: TrainingLog | None = None
    teacher: TeacherLog | None = None
    seconds: Mapping[str, float] | None = None
    examples: int | None = None
    texts_read: Mapping[str, TextsRead] = pydantic.Field(default={}, exclude=True)
    redraws: int | None = None
    draws_sha256: str | None = None
    replacement: list[dict[str, float]] | None = None

    @property
    def total_seconds(self) -> float:
        """Everything that the step spent: training steps, the method's own work, and the teacher's predictions."""
        trained = 0.0 if self.training is None else self.training.train_seconds
        taught = 0.0 if self.teacher is None else self.teacher.seconds or 0.0
        return trained + sum((self.seconds or {}).values()) + taught
