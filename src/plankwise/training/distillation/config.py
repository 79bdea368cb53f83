"""What a student learns from a teacher, and which layer of the one from which of the other: the settings."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from plankwise.core.errors import MethodError
from plankwise.core.numbers import Bounds, Heads, Layer, Weight
from plankwise.core.recipe import settings
from plankwise.training.distillation.losses import Form

Pair = tuple[int, int]
Pairs = Annotated[list[tuple[Layer, Layer]], pydantic.Field(min_length=1)]
LayerMap = Literal["uniform", "bottom", "top"] | Pairs
WEIGHTS = ("task", "logits", "hidden", "relations", "cosine")


@settings
class DistillationConfig:
    """Settings of distillation: a weighted sum of losses takes the place of the task's own.

    Attributes:
        source: `baseline`, the run's uncompressed model; `input`, the model passed to the method; or the folder of a
            model trained on the same task. Without a run there is no baseline, and the model passed in takes its place.
        task: weight of the task's own loss.
        logits: weight of the difference from the teacher's logits.
        temperature: softens both distributions of logits.
        form: `kl`, the divergence of these distributions, or `mse`, the squared error of the logits themselves.
        hidden: weight of the squared error of hidden states, averaged over the layers of the map.
        layer_map: which student layer learns from which teacher layer: `uniform` spreads the teacher's layers evenly
            and ends at its last; `bottom` and `top` take its first or last ones; or pairs [student, teacher] from 0.
        relations: weight of the difference in relations among queries, keys and values, on one pair of layers.
        relation_heads: into how many heads these are cut; by default the teacher's heads, or the most of their
            divisors that all widths allow.
        relation_layers: that pair, [student, teacher] from 0; by default the last of each.
        cosine: weight of 1 − cos of what the last layers give.
        cache: what is computed once, before training, and kept on disk: the teacher's `logits`, also the `hidden`
            states of mapped layers (2 bytes for each number of each token), or `none`. A teacher that has to run at
            every step all the same, as for relations, makes no use of it; on a corpus, where masks change, nothing is
            kept.
    """

    source: Annotated[str, pydantic.Field(min_length=1)] = "baseline"
    task: Weight = 0.5
    logits: Weight = 0.5
    temperature: Annotated[float, Bounds(0.01, 1000.0, "all classes would look alike")] = 2.0
    form: Form = "kl"
    hidden: Weight = 0.0
    layer_map: LayerMap = "uniform"
    relations: Weight = 0.0
    relation_heads: Heads | None = None
    relation_layers: tuple[Layer, Layer] | None = None
    cosine: Weight = 0.0
    cache: Literal["none", "logits", "hidden"] = "logits"

    @pydantic.model_validator(mode="after")
    def _learns_something(self) -> DistillationConfig:
        if not any(getattr(self, name) for name in WEIGHTS):
            raise ValueError(f"all weights are 0, nothing would be learned; one of {', '.join(WEIGHTS)} has to be more")
        if self.cache == "hidden" and not self.compares_states:
            raise ValueError("cache 'hidden' keeps what hidden and cosine read, and both are 0; allowed: none, logits")
        if self.cache == "hidden" and self.relations:
            raise ValueError("relations need the teacher at every step, so cache 'hidden' saves nothing; allowed: none")
        return self

    @property
    def compares_states(self) -> bool:
        """Whether hidden states of the teacher are compared with the student's."""
        return bool(self.hidden or self.cosine)

    @property
    def compares_insides(self) -> bool:
        """Whether anything but logits is compared."""
        return bool(self.compares_states or self.relations)

    @property
    def is_asked(self) -> bool:
        """Whether there is anything to learn beside the task."""
        return bool(self.logits or self.compares_insides)

    @property
    def runs_once(self) -> bool:
        """Whether all that a task with labels needs of the teacher can be computed before training."""
        if self.compares_states:
            return self.cache == "hidden"
        return self.cache != "none" and not self.relations


def check_taught(teacher: DistillationConfig | None, training: object | None) -> None:
    """Refuse a teacher without a training that could learn from it, as a validator of settings does.

    Raises:
        ValueError: saying what is allowed.
    """
    if teacher is not None and training is None:
        raise ValueError("teacher is what training afterwards learns from; give training too, or leave teacher out")


def check_layers(teacher: DistillationConfig, student_depth: int, teacher_depth: int | None = None) -> None:
    """Refuse layers that a student, or a teacher if its depth is known, does not have.

    Raises:
        MethodError: naming the pair and what is allowed.
    """
    pairs = [("relation_layers", teacher.relation_layers)] if teacher.relation_layers and teacher.relations else []
    if isinstance(teacher.layer_map, list) and teacher.hidden:
        pairs += [("layer_map", pair) for pair in teacher.layer_map]
    for key, pair in pairs:
        assert pair is not None
        for layer, depth, whose in zip(pair, (student_depth, teacher_depth), ("student", "teacher"), strict=True):
            if depth is not None and layer >= depth:
                raise MethodError(f"{key} {list(pair)}: the {whose} has the layers 0 to {depth - 1}")
    if teacher.hidden and teacher.layer_map in ("bottom", "top") and student_depth > (teacher_depth or student_depth):
        raise MethodError(
            f"layer_map '{teacher.layer_map}': the student's {student_depth} layers are more than the teacher's "
            f"{teacher_depth}; allowed: uniform, or pairs [student, teacher]"
        )


def hidden_pairs(teacher: DistillationConfig, student_depth: int, teacher_depth: int) -> list[Pair]:
    """List the pairs of layers, (student, teacher), whose hidden states are compared.

    Example:
        >>> hidden_pairs(Teacher(hidden=1.0), 3, 12)
        [(0, 3), (1, 7), (2, 11)]
    """
    if not teacher.hidden:
        return []
    if isinstance(teacher.layer_map, list):
        return list(teacher.layer_map)
    layers = range(student_depth)
    return {
        "uniform": [(layer, -(-(layer + 1) * teacher_depth // student_depth) - 1) for layer in layers],
        "bottom": [(layer, layer) for layer in layers],
        "top": [(layer, teacher_depth - student_depth + layer) for layer in layers],
    }[teacher.layer_map]


def relation_pair(teacher: DistillationConfig, student_depth: int, teacher_depth: int) -> Pair | None:
    """Give the pair of layers, (student, teacher), whose relations are compared."""
    if not teacher.relations:
        return None
    return teacher.relation_layers or (student_depth - 1, teacher_depth - 1)
