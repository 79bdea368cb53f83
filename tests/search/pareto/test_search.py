"""A whole search on a tiny recipe: what it leaves, what it reads of the test split, resuming, refusals, exit codes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
import tiny_search
from plankwise.core.errors import CheckpointError, OutputError
from plankwise.core.files import folder_bytes
from plankwise.core.records import Interval
from plankwise.data.task import Task
from plankwise.deploy.predictor import Predictor
from plankwise.evaluation.benchmark.paired_timing import PairedTiming
from plankwise.run.recipe import Recipe
from plankwise.search.budget.evaluation import Evaluator
from plankwise.search.pareto.document import DOCUMENT
from plankwise.search.pareto.dry_run import estimate_search, plan_lines
from plankwise.search.pareto.search import SearchRequest, search


def fake_timer(folders: Mapping[str, str | Path], texts: Sequence[Any]) -> dict[str, PairedTiming]:
    """Return times that follow from the sizes of the folders: nothing is measured in a test."""
    sizes = {name: folder_bytes(Path(folder)) for name, folder in folders.items()}
    first = next(iter(sizes.values()))
    return {
        name: PairedTiming(
            ms_per_text=size / 1e6,
            speedup=Interval(value=first / size, low=0.99 * first / size, high=1.01 * first / size),
            texts=len(texts),
            seconds=(size / 1e6,) * 5,
        )
        for name, size in sizes.items()
    }


quick_evaluator: Any = partial(Evaluator, exporter=tiny_search.copying_export)


@dataclass
class Seen:
    """The splits that each evaluator was given."""

    splits: list[set[str]]

    def evaluator(self, recipe: Recipe, task: Task, **how: Any) -> Evaluator:
        self.splits.append(set(task.splits))
        made: Evaluator = quick_evaluator(recipe, task, **how)
        return made


def request(place: Path, out: Path, **changes: Any) -> SearchRequest:
    plain: dict[str, Any] = {"path": place / "small.yaml", "out": out, "retain": 0.3, "speedup": 1.0, "trials": 2}
    return SearchRequest(**{**plain, **changes})


def refuse(*_: Any, **__: Any) -> Evaluator:
    raise AssertionError("nothing is left to be measured")


@pytest.fixture(scope="module")
def small(place: Path) -> Path:
    space = {"steps.0.modules": [1, 2], "steps.1.target": [1.2, 1.5]}
    short = {"steps.0.training.epochs": 1}
    plain = {"recipe": "recipe.yaml", "fixed": short, "space": space, "drop": ["steps.1"], "runtimes": ["onnx fp32"]}
    (place / "small.yaml").write_text(yaml.safe_dump(plain))
    return place


@pytest.fixture(scope="module")
def whole(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Seen]:
    out, seen = tmp_path_factory.mktemp("searches") / "whole", Seen([])
    document = search(request(small, out), timer=fake_timer, make_evaluator=seen.evaluator)
    return out, document, seen


@pytest.fixture(scope="module")
def missed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("searches") / "missed"
    return out, search(request(small, out, speedup=1000.0, trials=1), timer=fake_timer, make_evaluator=quick_evaluator)


def test_the_best_model_is_written_with_its_recipe_and_all_that_was_measured(
    whole: tuple[Path, dict[str, Any], Seen],
) -> None:
    out, document, _ = whole
    assert document["verdict"]["text"].startswith("goal met (keep 30 %, 1× as fast): ")
    assert document == json.loads((out / DOCUMENT).read_text())
    full = [each["candidate"]["rung"] for each in document["candidates"]]
    assert full.count("runtime") == 1
    assert 1 <= full.count("full") <= 2
    assert all(each["candidate"]["rung"] == "proxy" for each in document["proxies"])
    assert document["chosen"] in document["candidates"]
    assert document["chosen"]["candidate"]["name"] in document["front"]
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert [each["method"] for each in recipe["steps"]] == [
        each["method"] for each in document["chosen"]["candidate"]["steps"]
    ]
    assert Predictor(out / "artefact").logits(["a fine day", "a grim day"]).shape == (2, 2)
    assert (out / "model" / "config.json").exists()
    assert (out / "front.png").read_bytes().startswith(b"\x89PNG")
    with (out / "candidates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(document["candidates"]) + len(document["proxies"])


def test_the_test_split_is_read_at_the_end_alone_and_once(whole: tuple[Path, dict[str, Any], Seen]) -> None:
    _, document, seen = whole
    assert seen.splits == [{"train", "development"}, {"train", "development", "test"}]
    assert document["test_evaluations"] == 1
    assert document["held_back"]["rows"] > 0


def test_a_search_that_is_complete_is_returned_as_it_is(small: Path, whole: tuple[Path, dict[str, Any], Seen]) -> None:
    out, document, _ = whole
    assert search(request(small, out), resume=True, timer=fake_timer, make_evaluator=refuse) == document
    with pytest.raises(OutputError, match="add --resume"):
        search(request(small, out), timer=fake_timer, make_evaluator=refuse)


@pytest.mark.parametrize(
    ("changes", "differs"),
    [({"retain": 0.4}, "goal"), ({"seed": 9}, "seeds"), ({"overrides": ("steps.0.start=0.4",)}, "fixed")],
)
def test_a_folder_of_another_search_is_refused(
    changes: dict[str, Any], differs: str, small: Path, whole: tuple[Path, dict[str, Any], Seen]
) -> None:
    with pytest.raises(OutputError, match=f"holds another search .*{differs}"):
        search(request(small, whole[0], **changes), resume=True, timer=fake_timer)


def test_a_budget_that_is_missed_leaves_the_nearest_model(small: Path, missed: tuple[Path, dict[str, Any]]) -> None:
    out, document = missed
    assert document["verdict"]["missed"] == ["speed"]
    assert document["verdict"]["text"].startswith("goal not met (keep 30 %, 1000× as fast), nearest is ")
    assert (out / "artefact").is_dir()
    assert search(request(small, out, speedup=1000.0, trials=1), resume=True, make_evaluator=refuse) == document


def test_more_trials_continue_a_search_that_missed_its_budget(small: Path, missed: tuple[Path, dict[str, Any]]) -> None:
    out, before = missed
    after = search(
        request(small, out, speedup=1000.0, trials=2), resume=True, timer=fake_timer, make_evaluator=quick_evaluator
    )
    assert after["trials_allowed"] == 2
    assert after["test_evaluations"] == 2
    assert len(after["candidates"]) + len(after["proxies"]) > len(before["candidates"]) + len(before["proxies"])


def test_exit_codes_tell_whether_the_budget_is_met(
    small: Path,
    whole: tuple[Path, dict[str, Any], Seen],
    missed: tuple[Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    met = ("search", small / "small.yaml", "--out", whole[0], "--retain", 0.3, "--speedup", 1, "--resume")
    assert tiny.call(monkeypatch, *met, "--trials", 2) == 0
    assert capsys.readouterr().out.startswith("goal met")
    short = ("search", small / "small.yaml", "--out", missed[0], "--retain", 0.3, "--speedup", 1000, "--resume")
    assert tiny.call(monkeypatch, *short, "--trials", 1, "--json") == 3
    assert json.loads(capsys.readouterr().out)["verdict"]["met"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--retain", 1.2), r"--retain 1\.2: a share"),
        (("--retain", "nan"), r"--retain nan: allowed: a number"),
        (("--speedup", 0.5), r"--speedup 0\.5"),
        (("--time", "soon"), r"--time soon: not a time"),
        (("--time", "5s"), r"--time 5s is too short for a single measurement; allowed: 60s"),
        (("--max-size-mb", -1), r"--max-size-mb -1"),
        (("--storage", "nonsense"), r"storage: not a URL"),
        (("--trials", 0), r"'0'.*'--trials'"),
        (("--set", "steps.0.modulse=2"), r"modulse"),
    ],
)
def test_bad_requests_end_in_one_line_and_leave_nothing(
    options: tuple[Any, ...],
    message: str,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert tiny.call(monkeypatch, "search", small / "small.yaml", "--out", out, *options) == 2
    line = capsys.readouterr().err.strip()
    assert len(line.splitlines()) == 1
    assert re.search(message, line), line
    assert not out.exists()


def test_a_dry_run_counts_settings_and_writes_nothing(small: Path, tmp_path: Path) -> None:
    def rehearse(checked: Any) -> list[dict[str, Any]]:
        return [{"seconds": 30.0}, {"seconds": 8.0}, {"seconds": 2.0}]

    plan = estimate_search(request(small, tmp_path / "out", trials=100), rehearse)
    assert plan["settings"] == plan["trials"] == 6
    assert plan["seconds_per_full"] - plan["seconds_per_proxy"] == pytest.approx(0.5 * 8.0)
    assert plan["trained_in_full"] == 2
    assert any("steps.1.target: 1.2, 1.5" in line for line in plan_lines(plan))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_refused_before_data_is_loaded(small: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(OutputError, match="files that are not of a search"):
        search(request(small, tmp_path, path=small / "missing.yaml"), resume=True)


def test_a_damaged_document_is_named(small: Path, missed: tuple[Path, dict[str, Any]]) -> None:
    path = missed[0] / DOCUMENT
    content = path.read_text()
    path.write_text("{")
    try:
        with pytest.raises(CheckpointError, match=r"search\.json is damaged"):
            search(request(small, missed[0], speedup=1000.0, trials=1), resume=True, make_evaluator=refuse)
    finally:
        path.write_text(content)
