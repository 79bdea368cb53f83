"""Search files and plain recipes: what may vary, the candidates that settings stand for, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny_search
from plankwise.core.errors import RecipeError
from plankwise.search.budget import candidate
from plankwise.search.pareto import definition
from plankwise.search.pareto.plan import RUNTIME, USE, SearchPlan, read_search
from plankwise.search.study import Range


def read(place: Path, **changes: Any) -> SearchPlan:
    path = place / "variant.yaml"
    plain = {**yaml.safe_load(tiny_search.SEARCH), **changes}
    path.write_text(yaml.safe_dump({key: value for key, value in plain.items() if value is not None}))
    return read_search(path)


def setting(**changes: Any) -> dict[str, Any]:
    plain = {f"{USE}steps.1": True, "steps.0.modules": 2, "steps.1.target": 1.5, RUNTIME: "onnx fp32"}
    return {key: value for key, value in {**plain, **changes}.items() if value is not None}


def test_a_setting_is_a_candidate_of_the_recipes_steps(plan: SearchPlan) -> None:
    found = plan.candidate(setting(), proxy=False)
    assert [step["method"] for step in found.steps] == ["theseus", "pruning"]
    assert (found.steps[0]["modules"], found.steps[1]["target"]) == (2, 1.5)
    assert (found.runtime, found.precision, found.rung) == ("onnx", "fp32", "full")
    assert found.name == "modules=2, target=1.5, onnx fp32"


def test_a_step_that_is_left_out_is_no_step_of_the_candidate(plan: SearchPlan) -> None:
    left_out = plan.candidate(setting(**{f"{USE}steps.1": False, "steps.1.target": None}), proxy=True)
    assert [step["method"] for step in left_out.steps] == ["theseus"]
    assert left_out.name == "modules=2, without steps.1, onnx fp32"


def test_a_proxy_cuts_trainings_alone(plan: SearchPlan) -> None:
    whole, proxy = (plan.candidate(setting(), proxy=each) for each in (False, True))
    assert proxy.rung == "proxy"
    assert proxy.steps[0]["training"]["epochs"] == 0.5
    proxy.steps[0]["training"]["epochs"] = whole.steps[0]["training"]["epochs"]
    assert proxy.steps == whole.steps


def test_a_plain_recipe_has_a_default_space(place: Path) -> None:
    """Values that the model rules out are not in it: Theseus needs modules that divide its four layers."""
    found = read_search(place / "recipe.yaml")
    (space,) = found.study.study.space
    assert space["steps.1.target"] == Range(low=1.25, high=4.0, log=True)
    assert space["steps.0.modules"] == [1, 2, 3]
    assert found.drops == (0, 1)
    assert {precision for _, precision in found.pairs} == {"int8", "fp32"}


def test_the_definition_is_plain_and_says_what_varies(plan: SearchPlan) -> None:
    found = plan.definition()
    assert found == json.loads(json.dumps(found))
    assert found["drop"] == [1]
    assert found["runtimes"] == ["onnx fp32", "onnx int8"]
    assert found["seeds"] == [3]
    assert "trials" not in found


def test_a_seed_given_apart_takes_precedence(place: Path) -> None:
    assert read_search(place / "search.yaml", seed=7).seed == 7


def test_random_settings_are_settings_of_the_space(plan: SearchPlan) -> None:
    drawn = [plan.at_random(seed) for seed in range(40)]
    assert {each[f"{USE}steps.1"] for each in drawn} == {True, False}
    assert all(("steps.1.target" in each) == each[f"{USE}steps.1"] for each in drawn)
    targets = [each["steps.1.target"] for each in drawn if "steps.1.target" in each]
    assert all(1.2 <= each <= 2.0 for each in targets)
    assert len({plan.candidate(each, proxy=True).name for each in drawn}) > 20
    assert plan.at_random(5) == plan.at_random(5)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no such key": ({"space": {"steps.0.modulse": [1]}}, r"variant\.yaml:\d+: .*modulse"),
    "no step": ({"space": {"baseline.epochs": [1, 2]}}, r"variant\.yaml:\d+: a search varies steps.*baseline\.epochs"),
    "step too far": ({"space": {"steps.7.target": [1.5]}}, r"variant\.yaml:\d+: .*'7'"),
    "bad value": ({"space": {"steps.0.modules": [0]}}, r"variant\.yaml:\d+: .*modules"),
    "cannot be dropped": ({"drop": ["steps.2"]}, r"no step 'steps\.2' to leave out.*steps\.0, steps\.1"),
    "runtime": ({"runtimes": ["openvno int8"]}, r"no runtime and precision 'openvno int8'; did you mean"),
    "precision": ({"runtimes": ["onnx bf16"]}, r"no runtime and precision 'onnx bf16'"),
    "no runtime": ({"runtimes": []}, r"the list is empty"),
    "range": ({"space": {"steps.1.target": {"low": 3, "high": 2}}}, r"low 3.* is not below high 2"),
    "unknown key": ({"sampler": "grid"}, r"sampler"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_search_files_are_refused_with_their_place(case: str, place: Path) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(RecipeError, match=message):
        read(place, **changes)


def test_a_runtime_that_is_not_installed_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (definition, candidate):
        monkeypatch.setattr(module, "missing_packages", lambda runtime: ["onnxruntime"] if runtime == "onnx" else [])
    with pytest.raises(RecipeError, match=r"variant\.yaml:\d+: onnx is not installed here; pip install"):
        read(place)
    assert {runtime for runtime, _ in read(place, runtimes=None).pairs} == {"openvino"}
