"""The settings of distillation: where the teacher comes from and what the student learns from it."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from plankwise.core.numbers import Bounds, Heads, Layer, Weight
from plankwise.core.recipe import settings
from plankwise.training.distillation.losses import Form

Pairs = Annotated[list[tuple[Layer, Layer]], pydantic.Field(min_length=1)]
WEIGHTS = ("task", "logits", "hidden", "relations", "cosine")


@settings
class DistillationConfig:
    """Settings of distillation: a weighted sum of losses replaces the loss of the task.

    Attributes:
        source: `baseline`, the run's uncompressed model; `input`, the model passed to the method; or the folder of a
            model trained on the same task. Without a run there is no baseline and the model passed in is used.
        task: weight of the task's own loss.
        logits: weight of the difference from the teacher's logits.
        temperature: softens both distributions of logits.
        form: `kl`, the divergence of these distributions, or `mse`, the squared error of the logits themselves.
        hidden: weight of the squared error of hidden states, averaged over the layers of the map.
        layer_map: which student layer learns from which teacher layer: `uniform` spreads the teacher's layers evenly
            and ends at its last; `bottom` and `top` take its first or last ones; or pairs [student, teacher] from 0.
        relations: weight of the difference in relations among queries, keys and values, on one pair of layers.
        relation_heads: number of heads these are split into; by default the teacher's heads, or their largest divisor
            that all widths allow.
        relation_layers: that pair, [student, teacher] from 0; by default the last of each.
        cosine: weight of 1 − cos of the last layers' hidden states.
        cache: what is computed once, before training, and kept on disk: the teacher's `logits`, also the `hidden`
            states of mapped layers (2 bytes for each number of each token), or `none`. It is not used where the teacher
            runs at every step anyway, as for relations, nor on a corpus, where masks change.
    """

    source: Annotated[str, pydantic.Field(min_length=1)] = "baseline"
    task: Weight = 0.5
    logits: Weight = 0.5
    temperature: Annotated[float, Bounds(0.01, 1000.0, "all classes would look alike")] = 2.0
    form: Form = "kl"
    hidden: Weight = 0.0
    layer_map: Literal["uniform", "bottom", "top"] | Pairs = "uniform"
    relations: Weight = 0.0
    relation_heads: Heads | None = None
    relation_layers: tuple[Layer, Layer] | None = None
    cosine: Weight = 0.0
    cache: Literal["none", "logits", "hidden"] = "logits"

    @pydantic.model_validator(mode="after")
    def _is_consistent(self) -> DistillationConfig:
        if not any(getattr(self, name) for name in WEIGHTS):
            raise ValueError(f"all weights are 0, so there is no loss; allowed: one of {', '.join(WEIGHTS)} above 0")
        if self.cache == "hidden" and not self.compares_hidden:
            raise ValueError("cache 'hidden' is for hidden and cosine, and both are 0; allowed: none, logits")
        if self.cache == "hidden" and self.relations:
            raise ValueError("relations need the teacher at every step, so cache 'hidden' saves nothing; allowed: none")
        return self

    @property
    def compares_hidden(self) -> bool:
        """Whether hidden states of student and teacher are compared."""
        return bool(self.hidden or self.cosine)

    @property
    def compares_layers(self) -> bool:
        """Whether anything but logits is compared."""
        return bool(self.compares_hidden or self.relations)

    @property
    def runs_once(self) -> bool:
        """Whether the teacher's targets for a task with labels can all be computed before training."""
        if self.compares_hidden:
            return self.cache == "hidden"
        return self.cache != "none" and not self.relations


def check_taught(teacher: DistillationConfig | None, training: object | None) -> None:
    """Check, as a validator of settings, that a teacher comes with a training.

    Raises:
        ValueError: naming what is allowed.
    """
    if teacher is not None and training is None:
        raise ValueError("teacher is used by the training that follows; add training, or leave teacher out")
