"""Reading recipes: defaults, overrides, and what every wrong key or value is answered with."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from plankwise.core.errors import RecipeError, suggest
from plankwise.core.recipe import read_recipe, to_plain, validate
from plankwise.data.tasks.docstrings import Docstrings
from plankwise.data.tasks.germeval import GermEval2018, GermEval2019
from plankwise.data.tasks.tables import HubDataset, TableFiles
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.registry import METHODS
from plankwise.methods.theseus import PRESETS, Theseus
from plankwise.run.recipe import Evaluation, Model, Recipe, json_schema
from plankwise.training.fit import Training
from plankwise.training.objectives.settings import ObjectiveSettings
from plankwise.training.pretraining.config import PretrainingConfig

PAPER = PRESETS["paper"]
RECIPE = """\
name: demo
task:
  name: table
  train: data.csv
  metrics: [macro_f1]
model:
  scratch:
    heads: 4
baseline:
  epochs: 2
steps:
  - method: theseus
    modules: 3
    training:
      epochs: 4
  - method: layer_subset
    layers: 2
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def read(path: Path, text: str = RECIPE, overrides: Sequence[str] = ()) -> Any:
    path.write_text(text, encoding="utf-8")
    return read_recipe(path, Recipe, overrides)


def refusal(path: Path, text: str = RECIPE, overrides: Sequence[str] = ()) -> str:
    with pytest.raises(RecipeError) as caught:
        read(path, text, overrides)
    return str(caught.value)


def changed(old: str, new: str) -> tuple[str, int]:
    """Change RECIPE at the one place where `old` stands; give the text and the line of the change."""
    assert RECIPE.count(old) == 1
    return RECIPE.replace(old, new), RECIPE[: RECIPE.index(old)].count("\n") + 1


class TestReading:
    def test_fills_in_defaults_and_types(self, path: Path) -> None:
        recipe = read(path)
        assert recipe.steps == (Theseus(modules=3, training=Training(epochs=4)), LayerSubset(layers=2))
        assert recipe.baseline == Training(epochs=2.0)
        assert recipe.model == Model(scratch=PretrainingConfig(heads=4))
        assert isinstance(recipe.task, TableFiles)
        assert recipe.seed == 0

    @pytest.mark.parametrize(
        ("written", "rate"), [("1e-4", 1e-4), ("5.0e-5", 5e-5), ("2E-05", 2e-5), (".001", 1e-3), ("1", 1.0)]
    )
    def test_takes_numbers_as_people_write_them(self, path: Path, written: str, rate: float) -> None:
        text, _ = changed("  epochs: 2", f"  learning_rate: {written}")
        assert read(path, text).baseline.learning_rate == rate
        assert read(path, overrides=[f"baseline.learning_rate={written}"]).baseline.learning_rate == rate

    def test_settings_are_frozen_and_named(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            Training().epochs = 5.0  # type: ignore[misc]
        with pytest.raises(ValueError, match="epoch"):
            Training(epoch=5.0)  # type: ignore[call-arg]
        with pytest.raises((TypeError, ValueError), match=r"[Pp]ositional|keyword"):
            Training(5.0)  # type: ignore[call-arg]


class TestUnknownKey:
    @pytest.mark.parametrize(
        ("old", "new", "key", "nearest"),
        [
            ("baseline:", "baselin:", "baselin", "baseline"),
            ("metrics: [", "metric: [", "metric", "metrics"),
            ("heads: 4", "head: 4", "head", "heads"),
            ("epochs: 2", "epoch: 2", "epoch", "epochs"),
            ("modules: 3", "modulse: 3", "modulse", "modules"),
            ("epochs: 4", "bach_size: 4", "bach_size", "batch_size"),
            ("layers: 2", "layer: 2", "layer", "layers"),
        ],
    )
    def test_is_refused_with_its_line_and_the_nearest_key(
        self, path: Path, old: str, new: str, key: str, nearest: str
    ) -> None:
        text, line = changed(old, new)
        message = refusal(path, text)
        assert message.startswith(f"{path}:{line}: unknown key '{key}'; did you mean '{nearest}'? Allowed: ")

    @pytest.mark.parametrize(
        ("old", "new", "settings"),
        [
            ("epochs: 2", "zzz: 2", Training),
            ("layers: 2", "zzz: 2", LayerSubset),
            ("modules: 3", "zzz: 3", Theseus),
            ("heads: 4", "zzz: 4", PretrainingConfig),
            ("name: demo", "name: demo\nzzz: 1", Recipe),
            ("train: data.csv", "train: data.csv\n  zzz: 1", TableFiles),
        ],
    )
    def test_lists_exactly_the_keys_of_its_place(self, path: Path, old: str, new: str, settings: type[Any]) -> None:
        allowed = refusal(path, changed(old, new)[0]).partition("Allowed: ")[2]
        assert sorted(allowed.split(", ")) == sorted(field.name for field in dataclasses.fields(settings))

    def test_the_rest_is_counted(self, path: Path) -> None:
        text = RECIPE.replace("epochs: 2", "a: 1\n  b: 2\n  c: 3")
        assert refusal(path, text).endswith("(and 2 more)")

    @pytest.mark.parametrize("old", ["baseline:", "  epochs: 2"])
    def test_a_key_that_is_no_string(self, path: Path, old: str) -> None:
        text, line = changed(old, f"{old[: len(old) - len(old.lstrip())]}7: {{}}\n{old}")
        assert refusal(path, text).startswith(f"{path}:{line}: ")


class TestWrongValue:
    @pytest.mark.parametrize(
        ("old", "new", "parts"),
        [
            (
                "method: theseus",
                "method: thesues",
                ["no 'method' 'thesues'", "did you mean 'theseus'?", "layer_subset"],
            ),
            (
                "name: table",
                "name: tabel",
                ["no 'name' 'tabel'", "did you mean 'table'?", "germeval2018", "docstrings"],
            ),
            ("epochs: 2", "epochs: many", ["baseline.epochs", "not 'many'"]),
            ("epochs: 2", "epochs: 0", ["baseline.epochs", "greater than 0"]),
            ("epochs: 2", "epochs: .nan", ["baseline.epochs", "finite"]),
            ("epochs: 2", "keep: bst", ["baseline.keep", "'best' or 'last'", "not 'bst'"]),
            ("modules: 3", "preset: papr", ["preset", "'paper'", "not 'papr'"]),
            ("[macro_f1]", "[macro_f2]", ["metrics.0", "'macro_f1'", "not 'macro_f2'"]),
            ("demo", "'a/b'", ["name", "not 'a/b'"]),
        ],
    )
    def test_is_named_with_its_place_and_what_is_allowed(
        self, path: Path, old: str, new: str, parts: list[str]
    ) -> None:
        text, line = changed(old, new)
        message = refusal(path, text)
        assert message.startswith(f"{path}:{line}: ")
        assert [part for part in parts if part not in message] == []

    @pytest.mark.parametrize(
        ("old", "new", "key"),
        [
            ("modules: 3", "modules: many", "steps.0.modules"),
            ("modules: 3", "modules: [[0, 1], [2, x]]", "steps.0.modules"),
            ("modules: 3", "initialization: botom", "steps.0.initialization"),
            ("layers: 2", "layers: 0", "steps.1.layers"),
            ("  train: data.csv\n", "", "task.train"),
        ],
    )
    def test_is_named_by_the_key_as_it_stands_in_the_recipe(self, path: Path, old: str, new: str, key: str) -> None:
        message = refusal(path, changed(old, new)[0])
        assert re.search(rf"(: |'){re.escape(key)}(\.\d+)*(:|')", message), message

    def test_keys_that_contradict_each_other_stand_at_their_mapping(self, path: Path) -> None:
        text, line = changed("heads: 4", "layers: 2")
        assert refusal(path, text) == f"{path}:{line - 1}: model.scratch: growth (3, 6, 12) has to rise to layers, 2"

    def test_neither_or_both_of_two_exclusive_keys(self, path: Path) -> None:
        for new in ("  max_length: 12\n", "  source: a\n  scratch: {}\n"):
            text = RECIPE.replace("  scratch:\n    heads: 4\n", new)
            assert refusal(path, text) == f"{path}:6: model: give either source or scratch"

    @pytest.mark.parametrize(("old", "new"), [("  - method: theseus\n    modules: 3\n", "  - modules: 3\n")])
    def test_a_step_without_a_method(self, path: Path, old: str, new: str) -> None:
        text, line = changed(old, new)
        assert refusal(path, text) == f"{path}:{line}: the key 'steps.0.method' is missing"

    def test_a_missing_key_at_the_top(self, path: Path) -> None:
        assert refusal(path, changed("name: demo\n", "")[0]) == f"{path}:1: the key 'name' is missing"

    def test_a_step_that_is_no_mapping(self, path: Path) -> None:
        text, line = changed("  - method: layer_subset\n    layers: 2\n", "  - layer_subset\n")
        message = refusal(path, text)
        assert message.startswith(f"{path}:{line}: steps.1: ")
        assert "not 'layer_subset'" in message


class TestNoRecipe:
    @pytest.mark.parametrize(
        ("old", "new", "line", "key"),
        [("epochs: 2", "epochs: 2\n  epochs: 3", 11, "epochs"), ("    layers: 2", "name: x\nname: y", 17, "name")],
    )
    def test_a_key_that_stands_twice(self, path: Path, old: str, new: str, line: int, key: str) -> None:
        assert refusal(path, changed(old, new)[0]) == f"{path}:{line}: the key '{key}' appears twice"

    def test_a_key_that_stands_twice_inside_a_step(self, path: Path) -> None:
        text, line = changed("layers: 2", "layers: 2\n    layers: 2")
        assert refusal(path, text) == f"{path}:{line + 1}: the key 'layers' appears twice"

    @pytest.mark.parametrize("broken", ["epochs: [2", "epochs: 2\n   x: 1", "epochs: 'a", "epochs: !!python/name:os.x"])
    def test_bad_yaml_is_refused_with_its_line(self, path: Path, broken: str) -> None:
        message = refusal(path, changed("epochs: 2", broken)[0])
        assert re.match(rf"{re.escape(str(path))}:\d+: not valid YAML: \S", message)
        assert int(message.removeprefix(f"{path}:").partition(":")[0]) >= 9

    @pytest.mark.parametrize(
        "broken",
        ["epochs: 2024-13-45", "epochs: &a [*a]", f"epochs: {'[' * 3000}{']' * 3000}"],
        ids=["date", "loop", "deep"],
    )
    def test_yaml_that_its_own_reader_stumbles_over(self, path: Path, broken: str) -> None:
        assert str(path) in refusal(path, changed("epochs: 2", broken)[0])

    @pytest.mark.parametrize(("text", "kind"), [("", "NoneType"), ("- a\n", "list"), ("words\n", "str")])
    def test_another_kind_of_document(self, path: Path, text: str, kind: str) -> None:
        assert refusal(path, text) == f"{path}: a recipe is a mapping of keys, not {kind}"

    def test_no_file(self, path: Path, tmp_path: Path) -> None:
        for place in (path, tmp_path):
            with pytest.raises(RecipeError, match=f"cannot read the recipe {re.escape(str(place))}: "):
                read_recipe(place, Recipe)
        path.write_bytes(b"name: \xff")
        with pytest.raises(RecipeError, match="cannot read the recipe"):
            read_recipe(path, Recipe)


class TestOverrides:
    def test_reach_into_mappings_and_lists(self, path: Path) -> None:
        overrides = ["steps.0.modules=[[0, 1], [2, 3]]", "steps.1.training.learning_rate=1e-4", "baseline.keep=last"]
        recipe = read(path, overrides=[*overrides, "seed=3", "seed=4"])
        assert recipe.steps[0].modules == [[0, 1], [2, 3]]
        assert recipe.steps[1] == LayerSubset(layers=2, training=Training(learning_rate=1e-4))
        assert recipe.baseline == Training(epochs=2, keep="last")
        assert recipe.seed == 4

    def test_may_empty_or_null_a_value(self, path: Path) -> None:
        recipe = read(path, overrides=["steps=[]", "baseline.early_stopping_patience=null"])
        assert recipe.steps == ()
        assert recipe.baseline.early_stopping_patience is None

    def test_come_after_the_file_and_leave_it_alone(self, path: Path) -> None:
        read(path, overrides=["baseline.epochs=9"])
        assert path.read_text() == RECIPE

    @pytest.mark.parametrize(
        ("override", "place", "part"),
        [
            ("steps.1.layers=0", "steps.1.layers", "greater than or equal to 1, not 0"),
            ("steps.0.modulse=3", "steps.0.modulse", "did you mean 'modules'?"),
            ("steps.0.training.epoch=3", "steps.0.training.epoch", "did you mean 'epochs'?"),
            ("baseline.epochs=", "baseline.epochs", "valid number"),
            ("baseline=3", "baseline", "not 3"),
            ("task.name=tabel", "task.name", "did you mean 'table'?"),
            ("baselin.epochs=3", "baselin.epochs", "did you mean 'baseline'?"),
        ],
    )
    def test_a_wrong_one_is_the_place_of_the_error(self, path: Path, override: str, place: str, part: str) -> None:
        message = refusal(path, overrides=["seed=1", override])
        assert message.startswith(f"--set {place}"), message
        assert part in message

    def test_a_fault_of_the_file_keeps_its_line(self, path: Path) -> None:
        text, line = changed("epochs: 2", "epoch: 2")
        assert refusal(path, text, ["baseline.keep=last"]).startswith(f"{path}:{line}: ")

    @pytest.mark.parametrize(
        ("override", "part"),
        [
            ("seed", "write key=value"),
            ("=3", "write key=value"),
            ("seed=[", "not valid YAML"),
            ("seed=2024-13-45", "not valid YAML"),
            ("steps.2.modules=4", "there is no '2'"),
            ("steps.2=4", "there is no '2'"),
            ("steps.-1.modules=4", "there is no '-1'"),
            ("steps.²=4", "there is no '²'"),
            ("steps.x.modules=4", "there is no 'x'"),
            ("name.x=4", "there is no 'x'"),
            ("task.train.x.y=4", "there is no 'x'"),
        ],
    )
    def test_one_that_leads_nowhere(self, path: Path, override: str, part: str) -> None:
        message = refusal(path, overrides=[override])
        assert message.startswith(f"--set {override}: ")
        assert part in message


RECIPES = [
    Recipe(name="least", task=Docstrings(), model=Model(source="bert-base-cased")),
    Recipe(
        name="table",
        task=TableFiles(train=Path("a.csv"), test=Path("b.csv"), label=["x", "y"]),
        model=Model(source="b"),
        seed=5,
    ),
    Recipe(name="hub", task=HubDataset(id="glue", configuration="sst2"), model=Model(source="b", max_length=64)),
    Recipe(
        name="all",
        task=GermEval2018(path=Path("data"), granularity="fine", user_token=None),
        model=Model(scratch=PretrainingConfig(layers=4, growth=(2, 4), epochs=(1.0, 0.5))),
        baseline=Training(learning_rate=1e-4, early_stopping_patience=3, precision="fp32"),
        objective=ObjectiveSettings(class_weights="balanced"),
        steps=(
            Theseus(preset="paper", modules=3),
            Theseus(modules=[[0, 1], [2]], initialization=[1, 2], mode="blend", schedule="cosine"),
            LayerSubset(layers=1, keep=[0], training=Training(epochs=0.5)),
        ),
        evaluation=Evaluation(bootstrap=100, threads=2),
    ),
    Recipe(
        name="2019", task=GermEval2019(path=Path("data")), model=Model(source="b"), steps=(Theseus(preset="paper"),)
    ),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
class TestRoundTrip:
    def test_through_plain_values(self, recipe: Recipe) -> None:
        plain = to_plain(recipe)
        assert validate(plain, Recipe) == recipe
        assert to_plain(validate(plain, Recipe)) == plain

    def test_through_json(self, recipe: Recipe) -> None:
        assert validate(json.loads(json.dumps(to_plain(recipe), allow_nan=False)), Recipe) == recipe

    def test_through_a_file(self, recipe: Recipe, path: Path) -> None:
        assert read(path, yaml.safe_dump(to_plain(recipe))) == recipe

    def test_writes_every_default(self, recipe: Recipe) -> None:
        plain = to_plain(recipe)
        assert list(plain) == [field.name for field in dataclasses.fields(Recipe)]
        assert list(plain["baseline"]) == [field.name for field in dataclasses.fields(Training)]
        assert list(plain["task"]) == [field.name for field in dataclasses.fields(recipe.task)]


class TestPaperPreset:
    def test_sets_the_choices_of_the_paper(self) -> None:
        made = Theseus(preset="paper", modules=3)
        assert {key: getattr(made, key) for key in PAPER} == PAPER
        assert (made.initialization, made.start, made.train_head) == ("bottom", 0.3, False)
        assert made.modules == 3
        assert made.full_at == Theseus().full_at
        assert Theseus() != Theseus(**PAPER)

    @pytest.mark.parametrize("key", PAPER)
    def test_agrees_with_its_own_values(self, key: str) -> None:
        given: dict[str, Any] = {"preset": "paper", key: PAPER[key]}
        assert Theseus(**given) == Theseus(preset="paper")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("initialization", "top"),
            ("schedule", "cosine"),
            ("start", 0.5),
            ("mode", "blend"),
            ("train_embeddings", True),
            ("train_head", True),
            ("predecessor_dropout", False),
        ],
    )
    def test_a_contradiction_is_refused_in_words(self, path: Path, key: str, value: object) -> None:
        text, _ = changed("modules: 3", f"preset: paper\n    {key}: {json.dumps(value)}")
        message = refusal(path, text)
        assert message.startswith(f"{path}:12: steps.0")
        assert f"{key} {value!r} contradicts the preset 'paper', which has {PAPER[key]!r}" in message
        given: dict[str, Any] = {"preset": "paper", key: value}
        with pytest.raises(ValueError, match="contradicts the preset 'paper'"):
            Theseus(**given)

    def test_a_number_is_compared_as_a_number(self, path: Path) -> None:
        text, _ = changed("modules: 3", "preset: paper\n    start: 3e-1")
        assert read(path, text).steps[0].start == 0.3

    @pytest.mark.parametrize("preset", ["[paper]", "{paper: 1}"])
    def test_one_that_is_no_name(self, path: Path, preset: str) -> None:
        assert refusal(path, changed("modules: 3", f"preset: {preset}")[0]).startswith(f"{path}:13: steps.0")


class TestSchema:
    def test_holds_every_method_and_task(self) -> None:
        schema = json_schema()
        chosen = schema["properties"]["steps"]["items"]["discriminator"]["mapping"]
        assert set(chosen) == {method.method for method in METHODS}
        assert {reference.rsplit("/", 1)[-1] for reference in chosen.values()} <= set(schema["$defs"])
        tasks = schema["properties"]["task"]["discriminator"]["mapping"]
        assert set(tasks) == {"germeval2018", "germeval2019", "docstrings", "table", "dataset", "corpus"}

    def test_is_json_and_refuses_unknown_keys(self) -> None:
        schema = json.loads(json.dumps(json_schema(), allow_nan=False))
        assert {
            name for name, part in schema["$defs"].items() if part.get("additionalProperties") is not False
        } == set()
        assert schema["required"] == ["name", "task", "model"]
        assert set(schema["$defs"]["Theseus"]["properties"]) == {field.name for field in dataclasses.fields(Theseus)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("modulse", "did you mean 'modules'? Allowed: modules, start"),
        ("zzz", "Allowed: modules, start"),
        (3, "Allowed: modules, start"),
    ],
)
def test_suggestion(name: object, expected: str) -> None:
    assert suggest(name, ["modules", "start"]) == expected
