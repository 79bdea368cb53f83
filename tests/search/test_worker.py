"""A study from end to end on a tiny recipe: its table, kills, several workers, samplers, failures, refusals."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

import tiny
from plankwise.core.errors import CheckpointError, OutputError, TrainingError
from plankwise.methods import theseus
from plankwise.run import pipeline
from plankwise.search import trials
from plankwise.search.settings import Plan, read_study
from plankwise.search.study_report import write_study
from plankwise.search.worker import search

RECIPE = """\
name: tiny
task: {{name: table, train: {data}}}
model: {{source: {model}, max_length: 32}}
baseline: {{epochs: 2, batch_size: 16, learning_rate: 1.0e-2}}
steps:
  - method: theseus
    modules: 2
    training: {{epochs: 1, batch_size: 16, learning_rate: 5.0e-3}}
"""
GRID = """\
name: tiny
recipe: recipe.yaml
fixed: {steps.0.training.keep: last}
space:
  steps.0.start: [0.2, 0.6]
  steps.0.training.learning_rate: [1e-3, 1.0e-2]
seeds: [1, 2]
"""
SEARCHED = ("number", "state", "steps.0.start", "steps.0.training.learning_rate", "seed", "score", "baseline_score")
SEARCHED += ("retained", "steps", "redraws", "reason")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    data, model = tiny.write_table(folder, 160), tiny.save_source(folder / "source")
    (folder / "recipe.yaml").write_text(RECIPE.format(data=data, model=model))
    (folder / "study.yaml").write_text(GRID)
    return folder


@pytest.fixture(scope="module")
def plan(place: Path) -> Plan:
    return read_study(place / "study.yaml")


@pytest.fixture(scope="module")
def whole(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Run the study once, whole, with a last stage that would fall over and an eye on what each training is handed."""
    out, seen, real = tmp_path_factory.mktemp("studies") / "whole", [], pipeline.run

    def spy(checked: Any, *arguments: Any, **rest: Any) -> Any:
        seen.append(set(checked.task.splits))
        return real(checked, *arguments, **rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("plankwise.search.worker.run", spy)
        patched.setattr(pipeline, "measure_final", None)
        rows = search(plan, out)
    assert seen == [{"train", "development"}] * 16, "a trial held the test split"
    return out, rows


def changed(place: Path, **changes: Any) -> Plan:
    """Write a variant of the study beside it and read that."""
    path = place / f"{abs(hash(str(changes)))}.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(GRID), **changes}))
    return read_study(path)


def fixed_part(rows: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """Keep what must not depend on how often a study was killed, or on who ran which trial: not the seconds."""
    return [[row[key] for key in SEARCHED] for row in rows]


def test_every_setting_runs_with_every_seed_and_has_its_row(whole: tuple[Path, list[dict[str, Any]]]) -> None:
    out, rows = whole
    assert [row["number"] for row in rows] == list(range(1, 9))
    assert {row["state"] for row in rows} == {"complete"}
    settings = Counter((row["steps.0.start"], row["steps.0.training.learning_rate"], row["seed"]) for row in rows)
    assert settings == Counter((start, rate, seed) for start in (0.2, 0.6) for rate in (1e-3, 1e-2) for seed in (1, 2))
    assert all(row["retained"] == pytest.approx(row["score"] / row["baseline_score"]) for row in rows)
    assert {row["steps"] for row in rows} == {8}
    assert all(row["seconds_per_step"] == pytest.approx(row["train_seconds"] / 8) for row in rows)
    assert len({row["score"] for row in rows}) > 1
    with (out / "trials.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [float(row["score"]) for row in written] == [row["score"] for row in rows]


def test_a_baseline_is_trained_once_a_seed_and_trials_keep_their_records_only(
    whole: tuple[Path, list[dict[str, Any]]],
) -> None:
    out, rows = whole
    assert len({row["baseline_score"] for row in rows if row["seed"] == 1}) == 1
    assert len([each for each in (out / "baselines").iterdir() if each.is_dir()]) == 2
    assert len(list((out / "trials").iterdir())) == 8
    assert {path.name for path in (out / "trials").rglob("*") if path.is_file()} == {"record.json", "recipe.yaml"}
    assert not [path for path in out.rglob("*") if "lock" in path.name]


def test_an_interrupted_study_goes_on_to_the_same_table(
    plan: Plan, whole: tuple[Path, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = theseus.train_on_task, 0

    def die(model: Any, job: Any, training: Any, title: str, on_step: Any, **rest: Any) -> Any:
        nonlocal calls
        calls += 1

        def dying(step: int, total: int) -> None:
            if calls == 3 and step > total / 2:
                raise KeyboardInterrupt
            on_step(step, total)

        return real(model, job, training, title, dying, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(theseus, "train_on_task", die)
        with pytest.raises(KeyboardInterrupt):
            search(plan, tmp_path / "out")
    with pytest.raises(OutputError, match="add --resume"):
        search(plan, tmp_path / "out")
    assert fixed_part(search(plan, tmp_path / "out", resume=True)) == fixed_part(whole[1])
    before = (tmp_path / "out" / "trials.csv").read_text()
    search(plan, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "trials.csv").read_text() == before


def worker(study: Path, out: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "plankwise", "study", str(study), "--out", str(out), "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=file)


def wait_for(condition: Any, *processes: subprocess.Popen[bytes], seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        assert all(each.poll() is None for each in processes), "a worker ended too early"
        time.sleep(0.01)


def test_two_workers_share_a_study_and_one_outlives_the_others_death(
    place: Path, whole: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Both work at once; the first is killed outright in the middle of a trial, the second runs that trial as well."""
    out = tmp_path / "out"
    first = worker(place / "study.yaml", out, tmp_path / "first.log")
    second = worker(place / "study.yaml", out, tmp_path / "second.log")
    stored = f"sqlite:///{out / 'trials.db'}"

    def at_work() -> list[Any]:
        if not (out / "trials.csv").exists():
            return []
        study = optuna.load_study(study_name="tiny", storage=stored)
        return [
            t for t in study.trials if t.state.name == "RUNNING" and str(first.pid) in t.user_attrs.get("worker", "")
        ]

    wait_for(at_work, first, second)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert second.wait(timeout=240) == 0, (tmp_path / "second.log").read_text()[-2000:]
    rows = json.loads((out / "study.json").read_text())["trials"]
    assert fixed_part(rows) == fixed_part(whole[1])
    kept = optuna.load_study(study_name="tiny", storage=stored).trials
    assert Counter(each.state.name for each in kept)["COMPLETE"] == 8
    assert "a worker died" in (tmp_path / "second.log").read_text()


def test_two_workers_on_postgresql(
    postgresql: str, place: Path, whole: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Two workers with folders of their own, as on two machines, that have nothing in common but the database."""
    study = place / "shared.yaml"
    study.write_text(f"{GRID}storage: {postgresql}\n")
    both = [worker(study, tmp_path / name, tmp_path / f"{name}.log") for name in ("one", "two")]
    for name, each in zip(("one", "two"), both, strict=True):
        assert each.wait(timeout=300) == 0, (tmp_path / f"{name}.log").read_text()[-2000:]
    documents = [json.loads((tmp_path / name / "study.json").read_text()) for name in ("one", "two")]
    assert [fixed_part(each["trials"]) for each in documents] == [fixed_part(whole[1])] * 2
    kept = optuna.load_study(study_name="tiny", storage=postgresql).trials
    assert Counter(each.state.name for each in kept)["COMPLETE"] == 8
    assert len({each.user_attrs["worker"] for each in kept if each.state.name == "COMPLETE"}) == 2


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_draw_settings_and_run_each_with_every_seed(place: Path, tmp_path: Path, sampler: str) -> None:
    space = {"steps.0.start": {"low": 0.1, "high": 0.9}, "steps.0.initialization": ["bottom", [1, 3]]}
    path = place / f"{sampler}.yaml"
    path.write_text(
        f"name: s\nrecipe: recipe.yaml\nspace: {json.dumps(space)}\nsampler: {sampler}\ntrials: 2\nseeds: [1, 2]\n"
    )
    plan = read_study(path)
    out = tmp_path / "out"
    rows = search(plan, out)
    assert [row["state"] for row in rows] == ["complete"] * 4
    assert [row["seed"] for row in rows] == [1, 2, 1, 2]
    assert rows[0]["steps.0.start"] == rows[1]["steps.0.start"] != rows[2]["steps.0.start"]
    assert all(0.1 <= row["steps.0.start"] <= 0.9 for row in rows)
    assert all(row["steps.0.initialization"] in ("bottom", [1, 3]) for row in rows)
    assert write_study(plan, rows, out)["counts"]["complete"] == 4


def test_a_trial_that_fails_has_its_reason_and_stops_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = theseus.train_on_task

    def diverging(model: Any, job: Any, training: Any, *rest: Any, **more: Any) -> Any:
        if training.learning_rate == 1:
            raise TrainingError("the loss is nan")
        return real(model, job, training, *rest, **more)

    monkeypatch.setattr(theseus, "train_on_task", diverging)
    space = {"steps.0.training.learning_rate": [1e-3, 1], "steps.0.start": [0.5]}
    plan = changed(place, space=space, seeds=[1], name="failing")
    rows = search(plan, tmp_path / "out")
    states = {row["steps.0.training.learning_rate"]: (row["state"], row["reason"]) for row in rows}
    assert states[1e-3] == ("complete", None)
    assert states[1.0][0] == "failed"
    assert "loss" in states[1.0][1]
    assert [row["state"] for row in search(plan, tmp_path / "out", resume=True)] == [row["state"] for row in rows]
    document = write_study(plan, rows, tmp_path / "out")
    assert document["counts"] == {"complete": 1, "failed": 1, "running": 0, "waiting": 0}
    assert "loss" in (tmp_path / "out" / "report.html").read_text()


def test_a_study_without_a_finished_trial_has_nothing_to_report(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise TrainingError("no")

    monkeypatch.setattr(theseus, "train_on_task", never)
    plan = changed(place, name="hopeless", seeds=[1])
    rows = search(plan, tmp_path / "out")
    assert {row["reason"] for row in rows} == {"no"}
    with pytest.raises(
        CheckpointError, match=r"out is complete \(4 failed\); nothing to report; the first failure: no$"
    ):
        write_study(plan, rows, tmp_path / "out")
    with pytest.raises(CheckpointError, match="4 failed"):
        search(plan, tmp_path / "out", resume=True, train=False)
    assert (tmp_path / "out" / "trials.csv").read_text().count("failed") == 4
    assert not list((tmp_path / "out").glob("report.html")) + list((tmp_path / "out").glob("study.json"))


def opened(plan: Plan, tmp_path: Path, machine: str) -> trials.Trials:
    return trials.Trials(plan, tmp_path / machine, f"sqlite:///{tmp_path / 'shared.db'}", resume=True)


def test_a_trial_claimed_by_two_machines_is_run_by_the_first(plan: Plan, tmp_path: Path) -> None:
    one, two = (opened(plan, tmp_path, machine) for machine in ("one", "two"))
    first = one.claim()
    assert first is not None
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path / 'shared.db'}")
    study.enqueue_trial(first.trial.params, user_attrs=dict(study.trials[0].user_attrs))
    claims = [two.claim() for _ in range(8)]
    numbers = [each.number for each in claims if each is not None]
    assert sorted([first.number, *numbers]) == list(range(1, 9))
    assert study.trials[1].state.name == "PRUNED"


def test_a_silent_worker_on_another_machine_is_given_up_in_time_and_five_deaths_are_enough(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (opened(plan, tmp_path, machine) for machine in ("one", "two"))
    claim = one.claim()
    assert claim is not None
    with one.held(claim):
        assert two.claim().number == 2  # type: ignore[union-attr]
        monkeypatch.setattr(trials, "GRACE_SECONDS", -1.0)
        assert two.running() == 0
        one.complete(claim, 0.5, {"steps": 1})  # too late: it belongs to others now
    assert two.rows()[0]["state"] == "waiting"
    for _ in range(4):
        assert two.claim().number == 1  # type: ignore[union-attr]
        shutil.rmtree(tmp_path / "two" / ".locks")
        (tmp_path / "two" / ".locks").mkdir()
        two.running()
    assert two.rows()[0]["state"] == "failed"
    assert two.rows()[0]["reason"] == "its worker died 5 times"


def test_other_studies_and_folders_are_refused(
    place: Path, plan: Plan, whole: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=r"holds another study \(it differs in seeds\)"):
        search(changed(place, seeds=[1, 3]), whole[0], resume=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not of a study"):
        search(plan, tmp_path)
    shared = changed(place, storage=f"sqlite:///{whole[0] / 'trials.db'}")
    with pytest.raises(OutputError, match="add --resume to join"):
        search(shared, tmp_path / "new")
    assert search(shared, tmp_path / "new", resume=True) == whole[1]
    other = changed(place, storage=f"sqlite:///{whole[0] / 'trials.db'}", seeds=[5])
    with pytest.raises(OutputError, match=r"holds another study 'tiny' \(it differs in seeds\)"):
        search(other, tmp_path / "third")


def test_the_verb_says_what_a_study_costs_and_trains_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.call(monkeypatch, "study", place / "study.yaml", "--out", tmp_path / "out", "--dry-run", "--json") == 0
    cost = json.loads(capsys.readouterr().out)
    assert {key: cost[key] for key in ("settings", "seeds", "trials", "baselines")} == {
        "settings": 4,
        "seeds": 2,
        "trials": 8,
        "baselines": 2,
    }
    assert cost["seconds"] > 0
    assert not (tmp_path / "out").exists()


def test_a_report_can_be_had_before_the_end(
    place: Path,
    whole: tuple[Path, list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("plankwise.search.worker.run", None)
    assert tiny.call(monkeypatch, "study", place / "study.yaml", "--out", whole[0], "--report") == 0
    assert "8 complete" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        assert tiny.call(monkeypatch, "study", place / "study.yaml", "--out", tmp_path / name, "--report") == 2
        assert f"there is no study in {tmp_path / name}; nothing has run" in capsys.readouterr().err
    stored = place / "stored.yaml"
    stored.write_text(f"{GRID}storage: sqlite:///{tmp_path / 'other.db'}\n")
    assert tiny.call(monkeypatch, "study", stored, "--out", tmp_path / "new", "--report") == 2
    assert "the storage holds no study 'tiny'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert not list((tmp_path / "empty").iterdir())
    assert tiny.call(monkeypatch, "study", place / "study.yaml", "--out", whole[0]) == 2
    assert "add --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        (
            "postgresql://user:secret@127.0.0.1:1/nothing",
            r"postgresql://user:\*\*\*@127.0.0.1:1/nothing cannot be used: ",
        ),
        ("nonsense", r"storage: not a URL such as"),
        ("nodriver://here", r"cannot be used: .*nodriver"),
    ],
)
def test_a_storage_out_of_reach_is_one_line(
    storage: str,
    message: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = place / "unreachable.yaml"
    path.write_text(f"{GRID}storage: {storage}\n")
    assert tiny.call(monkeypatch, "study", path, "--out", tmp_path / "out") == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("plankwise:")]
    assert re.search(message, line), line
    assert "secret" not in line


def test_a_database_whose_driver_is_missing_is_refused_before_anything_is_written(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, name, None)
    path = place / "driver.yaml"
    path.write_text(f"{GRID}storage: postgresql://user:secret@host/name\n")
    for more in ([], ["--dry-run"]):
        assert tiny.call(monkeypatch, "study", path, "--out", tmp_path / "out", *more) == 2
        (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("plankwise:")]
        shown = "the storage postgresql://user:***@host/name"
        assert line == f"plankwise: {shown} needs psycopg2: pip install 'plankwise[postgresql]'"
    assert not (tmp_path / "out").exists()


def test_a_folder_that_another_worker_is_just_taking_is_no_foreign_one(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".study.yaml.k3x9.partial").write_text("name: ti")
    plan = read_study(place / "study.yaml")
    monkeypatch.setattr("plankwise.search.worker._next_claim", lambda trials: None)
    rows = search(plan, out)
    assert {row["state"] for row in rows} == {"waiting"}
    assert (out / "study.yaml").exists()
