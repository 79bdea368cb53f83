"""Settings of distillation that cannot work are refused; layers are mapped as documented."""

from __future__ import annotations

from typing import Any

import pytest

from plankwise.core.errors import MethodError, RecipeError
from plankwise.core.recipe import validate
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.distillation.layer_mapping import (
    LayerMapping,
    check_layers,
    hidden_pairs,
    map_layers,
    with_relation_heads,
)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": 0, "logits": 0}, "all weights are 0"),
        ({"logits": -1}, "logits"),
        ({"temperature": 0}, "temperature"),
        ({"cache": "hidden"}, "both are 0"),
        ({"cache": "hidden", "hidden": 1, "relations": 1}, "at every step"),
        ({"layer_map": []}, "layer_map"),
        ({"layer_map": "middle"}, "layer_map"),
        ({"relation_heads": 0}, "relation_heads"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(given, DistillationConfig)


@pytest.mark.parametrize(
    ("given", "runs_once"),
    [
        ({}, True),
        ({"cache": "none"}, False),
        ({"hidden": 1.0}, False),
        ({"hidden": 1.0, "cache": "hidden"}, True),
        ({"cosine": 1.0, "cache": "hidden"}, True),
        ({"relations": 1.0}, False),
    ],
)
def test_the_teacher_runs_once_where_all_its_targets_are_kept(given: dict[str, Any], runs_once: bool) -> None:
    assert DistillationConfig(**given).runs_once == runs_once


@pytest.mark.parametrize(
    ("layer_map", "student", "teacher", "pairs"),
    [
        ("uniform", 4, 12, [(0, 2), (1, 5), (2, 8), (3, 11)]),
        ("uniform", 2, 5, [(0, 2), (1, 4)]),
        ("bottom", 2, 5, [(0, 0), (1, 1)]),
        ("top", 2, 5, [(0, 3), (1, 4)]),
        ([(1, 3)], 2, 5, [(1, 3)]),
    ],
)
def test_layer_maps(layer_map: Any, student: int, teacher: int, pairs: list[tuple[int, int]]) -> None:
    assert hidden_pairs(DistillationConfig(hidden=1.0, layer_map=layer_map), student, teacher) == pairs
    assert hidden_pairs(DistillationConfig(layer_map=layer_map), student, teacher) == []


def test_only_what_has_a_weight_is_compared() -> None:
    assert map_layers(DistillationConfig(), 2, 5) == LayerMapping()
    assert map_layers(DistillationConfig(relations=1.0), 2, 5) == LayerMapping(relations=(1, 4))
    chosen = DistillationConfig(relations=1.0, relation_layers=(0, 3))
    assert map_layers(chosen, 2, 5) == LayerMapping(relations=(0, 3))
    both = map_layers(DistillationConfig(hidden=1.0, cosine=1.0, layer_map=[(0, 1)]), 2, 5)
    assert both.states == ((0, 1), (1, 4))
    assert (both.layers(0), both.layers(1)) == ([0, 1], [1, 4])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DistillationConfig(hidden=1.0, layer_map=[(2, 0)]), "student has the layers 0 to 1"),
        (DistillationConfig(relations=1.0, relation_layers=(1, 5)), "teacher has the layers 0 to 4"),
    ],
)
def test_layers_that_do_not_exist_are_refused(config: DistillationConfig, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        map_layers(config, 2, 5)


def test_a_map_of_one_end_needs_a_deeper_teacher() -> None:
    with pytest.raises(MethodError, match="allowed: uniform"):
        check_layers(DistillationConfig(hidden=1.0, layer_map="top"), 5, 2)


@pytest.mark.parametrize(("given", "heads"), [(None, 2), (1, 1), (4, 4)])
def test_relation_heads_divide_every_width(given: int | None, heads: int) -> None:
    config = DistillationConfig(relations=1.0, relation_heads=given)
    mapping = with_relation_heads(map_layers(config, 2, 4), config, [24] * 3, [16] * 3, teacher_heads=2)
    assert mapping == LayerMapping(relations=(1, 3), relation_heads=heads)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ([24, 24, 24], [16, 16, 16], r"relation_heads 3 does not divide.*\(16, 24\); allowed: divisors of 8"),
        ([], [16, 16, 16], r"relation_layers \[1, 3\]: the student's layer 1 has no heads left"),
        ([24, 24, 24], [], r"relation_layers \[1, 3\]: the teacher's layer 3 has no heads left"),
    ],
)
def test_relations_that_cannot_be_compared_are_refused(student: list[int], teacher: list[int], message: str) -> None:
    config = DistillationConfig(relations=1.0, relation_heads=3)
    with pytest.raises(MethodError, match=message):
        with_relation_heads(map_layers(config, 2, 4), config, student, teacher, teacher_heads=2)
