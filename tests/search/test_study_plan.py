"""What a study's file may hold: every wrong key path or value is refused in one line with file and line."""

from __future__ import annotations

import cProfile
import pstats
from pathlib import Path

import pytest

import tiny
from plankwise.core.errors import PlankwiseError
from plankwise.evaluation.effects import short_names
from plankwise.methods.theseus import Theseus
from plankwise.search.study_plan import format_setting, read_study, trial_name

RECIPE = """\
name: tiny
task: {{name: table, train: {data}}}
model: {{source: {model}, max_length: 32}}
steps:
  - method: theseus
    modules: 2
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    data, model = tiny.write_table(folder, 120), tiny.save_source(folder / "source")
    (folder / "recipe.yaml").write_text(RECIPE.format(data=data, model=model))
    return folder


def study(place: Path, space: str = "  steps.0.start: [0.2, 0.6]", *rest: str) -> Path:
    path = place / "study.yaml"
    path.write_text("\n".join(["name: tiny", "recipe: recipe.yaml", "space:", space, *rest]) + "\n")
    return path


WRONG = {
    "unknown key": ("  steps.0.strat: [1]", (), r":4: unknown key 'strat'; did you mean 'start'\?"),
    "unknown path": ("  stps.0.start: [1]", (), r":4: unknown key 'stps'; did you mean 'steps'\?"),
    "no such step": ("  steps.3.start: [1]", (), r":4: steps\.3\.start: there is no '3' in the recipe"),
    "value too high": ("  steps.0.start: [0.2, 1.5]", (), r":4: steps\.0\.start: .*less than or equal to 1, not 1\.5"),
    "true": ("  steps.0.modules: [2, true]", (), r":4: steps\.0\.modules: a number is needed, not true"),
    "range from false": (
        "  steps.0.start: {low: false, high: 1}",
        ("sampler: tpe", "trials: 2"),
        r":4: .*a number is needed",
    ),
    "true seed": ("  steps.0.start: [0.1]", ("seeds: [true]",), r":5: seeds\.0: a number is needed, not true"),
    "fixed true": (
        "  steps.0.start: [0.1]",
        ("fixed: {baseline.epochs: true}",),
        r":5: baseline\.epochs: a number is needed",
    ),
    "empty list": ("  steps.0.start: []", (), r":4: space\.steps\.0\.start: the list is empty"),
    "no list": ("  steps.0.start: 0.3", (), r":4: space\.steps\.0\.start: give a list of values"),
    "twice": ("  steps.0.start: [0.3, 0.3]", (), r":4: space\.steps\.0\.start: the value 0\.3 appears twice"),
    "does not fit the model": ("  steps.0.modules: [2, 9]", (), r":3: with modules=9: .*9 modules do not fit"),
    "seed": ("  seed: [1, 2]", (), r":4: space\.seed.*: a study does not vary seed"),
    "task": ("  task.split_seed: [1, 2]", (), r":4: .*does not vary task\.split_seed"),
    "range in a grid": ("  steps.0.start: {low: 0.1, high: 0.9}", (), r"ranges are for random and tpe"),
    "range upside down": (
        "  steps.0.start: {low: 0.9, high: 0.1}",
        ("sampler: tpe", "trials: 2"),
        r":4: .*low 0\.9 is not below high 0\.1",
    ),
    "range beyond": (
        "  steps.0.start: {low: 0.1, high: 1.9}",
        ("sampler: tpe", "trials: 2"),
        r":4: steps\.0\.start: .*less than or equal to 1",
    ),
    "no count": ("  steps.0.start: [0.1]", ("sampler: random",), r"needs a single space and the number of trials"),
    "unknown setting": ("  steps.0.start: [0.1]", ("sede: [1]",), r":5: unknown key 'sede'; did you mean 'seeds'\?"),
    "no seeds": ("  steps.0.start: [0.1]", ("seeds: []",), r":5: seeds: "),
    "overlap": (
        "  steps.0.training: [{epochs: 1}]",
        ("fixed: {steps.0.training.epochs: 2}",),
        r"would override each other",
    ),
    "wrong fixed": ("  steps.0.start: [0.1]", ("fixed: {steps.0.modulse: 2}",), r":5: unknown key 'modulse'"),
    "no steps": ("  baseline.epochs: [1]", ("fixed: {steps: []}",), r"its recipe has no steps"),
    "second grid": ("  - {steps.0.start: [0.2]}\n  - {steps.0.start: [1.5]}", (), r":5: steps\.0\.start: .*not 1\.5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_study_is_refused_in_one_line(case: str, place: Path) -> None:
    space, rest, message = WRONG[case]
    with pytest.raises(PlankwiseError, match=message) as error:
        read_study(study(place, space, *rest))
    assert "\n" not in str(error.value)


def test_a_missing_recipe_is_named(place: Path) -> None:
    path = study(place)
    path.write_text(path.read_text().replace("recipe.yaml", "gone.yaml"))
    with pytest.raises(PlankwiseError, match=r"cannot read the recipe .*gone\.yaml"):
        read_study(path)


def test_a_grid_is_complete_shuffled_and_read_as_the_recipe_reads_it(place: Path) -> None:
    plan = read_study(study(place, "  steps.0.start: [0.2, 0.6]\n  steps.0.training.learning_rate: [1e-4, 2.0e-4]"))
    settings = [tuple(setting.values()) for setting in plan.grid]
    assert sorted(settings) == [(0.2, 1e-4), (0.2, 2e-4), (0.6, 1e-4), (0.6, 2e-4)]
    assert settings == [tuple(setting.values()) for setting in read_study(plan.file.path).grid]
    capped = read_study(study(place, "  steps.0.start: [0.2, 0.4, 0.6, 0.8]", "trials: 2"))
    assert len(capped.grid) == capped.settings_count == 2


def test_grids_are_united(place: Path) -> None:
    one = "  - {steps.0.start: [0.2, 1.0], steps.0.full_at: [0.5]}"
    space = f"{one}\n  - {{steps.0.start: [1.0], steps.0.full_at: [0.5, 1.0]}}"
    plan = read_study(study(place, space))
    assert sorted(tuple(setting.values()) for setting in plan.grid) == [(0.2, 0.5), (1.0, 0.5), (1.0, 1.0)]


def test_overrides_and_fixed_keys_reach_every_trial(place: Path) -> None:
    plan = read_study(study(place, "  steps.0.start: [0.2]", "fixed: {baseline.epochs: 2}"), ["steps.0.modules=3"])
    recipe = plan.recipe(plan.grid[0], 5)
    step = recipe.steps[0]
    assert recipe.baseline is not None
    assert isinstance(step, Theseus)
    assert (recipe.baseline.epochs, step.modules, recipe.seed) == (2.0, 3, 5)
    assert set(plan.task.splits) == {"train", "development"}


def test_each_file_is_parsed_once(place: Path) -> None:
    """It was parsed eleven times for each key of each setting, for error texts that nobody read."""
    path = study(place, "  steps.0.start: [0.2, 0.4, 0.6]\n  steps.0.training.learning_rate: [1e-4, 2.0e-4]")
    profile = cProfile.Profile()
    plan = profile.runcall(read_study, path)
    calls = {name: count for (_, _, name), (_, count, *_) in pstats.Stats(profile).stats.items()}  # type: ignore[attr-defined]
    assert len(plan.grid) == 6
    assert calls["parse_yaml"] == 2  # the study and its recipe


def test_names_are_as_short_as_possible() -> None:
    assert short_names(["steps.0.start", "steps.0.training.epochs", "baseline.epochs"]) == {
        "steps.0.start": "start",
        "steps.0.training.epochs": "training.epochs",
        "baseline.epochs": "baseline.epochs",
    }
    assert format_setting({"steps.0.start": 0.2, "baseline.epochs": 3}) == "start=0.2, epochs=3"


def test_a_trial_keeps_its_folder() -> None:
    one, other = {"a": 1, "b": [2, 3]}, {"b": [2, 3], "a": 1}
    assert trial_name(one, 5) == trial_name(other, 5) != trial_name({"a": 2, "b": [2, 3]}, 5)
    assert trial_name(one, 5).endswith("-seed5")
