"""Which layers of student and teacher are compared, and with how many relation heads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from plankwise.core.errors import MethodError
from plankwise.training.distillation.config import DistillationConfig

Pair = tuple[int, int]
SIDES = ("student", "teacher")


@dataclass(frozen=True)
class LayerMapping:
    """The layers that are compared, as pairs (student, teacher) counted from 0.

    Attributes:
        hidden: pairs compared by the squared error of their hidden states.
        cosine: the pair compared by the cosine of their hidden states, if any.
        relations: the pair compared by the relations among queries, keys and values, if any.
        relation_heads: number of heads that these are split into.
    """

    hidden: tuple[Pair, ...] = ()
    cosine: Pair | None = None
    relations: Pair | None = None
    relation_heads: int = 1

    @property
    def states(self) -> tuple[Pair, ...]:
        """All pairs with compared hidden states: those of `hidden` in order, then that of `cosine`."""
        return self.hidden if self.cosine is None else (*self.hidden, self.cosine)

    def layers(self, side: Literal[0, 1]) -> list[int]:
        """Return the layers in `states`, in that order, of the student (0) or the teacher (1)."""
        return [pair[side] for pair in self.states]


def map_layers(config: DistillationConfig, student_depth: int, teacher_depth: int) -> LayerMapping:
    """Return the layers that `config` compares; `relation_heads` are chosen later, by `with_relation_heads`.

    Raises:
        MethodError: if one of them does not exist.
    """
    check_layers(config, student_depth, teacher_depth)
    last = (student_depth - 1, teacher_depth - 1)
    return LayerMapping(
        hidden=tuple(hidden_pairs(config, student_depth, teacher_depth)),
        cosine=last if config.cosine else None,
        relations=(config.relation_layers or last) if config.relations else None,
    )


def hidden_pairs(config: DistillationConfig, student_depth: int, teacher_depth: int) -> list[Pair]:
    """Return the pairs of layers, (student, teacher), that `config.hidden` compares.

    Example:
        >>> hidden_pairs(DistillationConfig(hidden=1.0), 3, 12)
        [(0, 3), (1, 7), (2, 11)]
    """
    if not config.hidden:
        return []
    if isinstance(config.layer_map, list):
        return list(config.layer_map)
    layers = range(student_depth)
    if config.layer_map == "bottom":
        return [(layer, layer) for layer in layers]
    if config.layer_map == "top":
        return [(layer, teacher_depth - student_depth + layer) for layer in layers]
    # TinyBERT's uniform map g(m) = 3m for 4 of 12 layers, for any depths: layer ⌈(m + 1) · teacher / student⌉ from 1.
    return [(layer, -(-(layer + 1) * teacher_depth // student_depth) - 1) for layer in layers]


def check_layers(config: DistillationConfig, student_depth: int, teacher_depth: int | None = None) -> None:
    """Refuse layers that the student, or the teacher if its depth is known, does not have.

    Raises:
        MethodError: naming the pair and what is allowed.
    """
    pairs = [("relation_layers", config.relation_layers)] if config.relation_layers and config.relations else []
    if isinstance(config.layer_map, list) and config.hidden:
        pairs += [("layer_map", pair) for pair in config.layer_map]
    for key, pair in pairs:
        for layer, depth, side in zip(pair, (student_depth, teacher_depth), SIDES, strict=True):
            if depth is not None and layer >= depth:
                raise MethodError(f"{key} {list(pair)}: the {side} has the layers 0 to {depth - 1}")
    if config.hidden and config.layer_map in ("bottom", "top") and student_depth > (teacher_depth or student_depth):
        raise MethodError(
            f"layer_map '{config.layer_map}': the student has {student_depth} layers, more than the teacher's "
            f"{teacher_depth}; allowed: uniform, or pairs [student, teacher]"
        )


def with_relation_heads(
    mapping: LayerMapping,
    config: DistillationConfig,
    student_widths: Sequence[int],
    teacher_widths: Sequence[int],
    *,
    teacher_heads: int,
) -> LayerMapping:
    """Return `mapping` with its number of relation heads: the one configured, or as many as divide every width.

    Args:
        mapping: by `map_layers`.
        config: settings.
        student_widths: of the queries, keys and values of the student's layer; empty if it has no heads left.
        teacher_widths: the same of the teacher.
        teacher_heads: the teacher's attention heads; the default is their greatest common divisor with all widths.

    Raises:
        MethodError: if a layer has no heads left, or the number configured does not divide a width.
    """
    if mapping.relations is None:
        return mapping
    for widths, layer, side in zip((student_widths, teacher_widths), mapping.relations, SIDES, strict=True):
        if not widths:
            raise MethodError(
                f"relation_layers {list(mapping.relations)}: the {side}'s layer {layer} has no heads left"
            )
    widths = sorted({*student_widths, *teacher_widths})
    heads = config.relation_heads or math.gcd(teacher_heads, *widths)
    if any(width % heads for width in widths):
        raise MethodError(
            f"relation_heads {heads} does not divide all widths of queries, keys and values "
            f"({', '.join(map(str, widths))}); allowed: divisors of {math.gcd(*widths)}"
        )
    return dataclasses.replace(mapping, relation_heads=heads)
