"""A study from end to end on a tiny recipe: its table, kills, several workers, samplers, failures, refusals."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml

import processes
import tiny
from plankwise.core.errors import CheckpointError, OutputError, RecipeError, TrainingError
from plankwise.core.records import Record
from plankwise.run import pipeline
from plankwise.run.pipeline import Checked
from plankwise.search.study_folder import take_folder
from plankwise.search.study_plan import StudyPlan, read_study
from plankwise.search.study_report import write_study
from plankwise.search.trial_queue import ClaimedTrial, TrialQueue
from plankwise.search.worker import run_study

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
REPRODUCIBLE = (
    *("number", "state", "steps.0.start", "steps.0.training.learning_rate", "seed", "score", "baseline_score"),
    *("retained", "steps", "redraws", "reason"),
)
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    data, model = tiny.write_table(folder, 160), tiny.save_source(folder / "source")
    (folder / "recipe.yaml").write_text(RECIPE.format(data=data, model=model))
    (folder / "study.yaml").write_text(GRID)
    return folder


@pytest.fixture(scope="module")
def plan(place: Path) -> StudyPlan:
    return read_study(place / "study.yaml")


@pytest.fixture(scope="module")
def whole(plan: StudyPlan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    """Run the study once, and note what each training is given."""
    out = tmp_path_factory.mktemp("studies") / "whole"
    seen: list[tuple[set[str], str]] = []

    def spy(checked: Checked, folder: Path, *, until: Any, **rest: Any) -> Record:
        seen.append((set(checked.task.splits), until))
        return pipeline.run(checked, folder, until=until, **rest)

    rows = run_study(plan, out, run=spy)
    splits = {"train", "development"}
    assert seen == [(splits, "baseline"), (splits, "steps")] * 8, "a trial held the test split, or went on to it"
    return out, rows


def changed(place: Path, name: str, **changes: Any) -> StudyPlan:
    """Write a variant of the study next to it and read that."""
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(GRID), **changes}))
    return read_study(path)


def reproducible(rows: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """Keep what must not depend on kills or on which worker ran a trial; seconds do."""
    return [[row[key] for key in REPRODUCIBLE] for row in rows]


def test_every_setting_runs_with_every_seed_and_has_its_row(whole: tuple[Path, Rows]) -> None:
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


def test_a_baseline_is_trained_once_a_seed_and_trials_keep_their_records_only(whole: tuple[Path, Rows]) -> None:
    out, rows = whole
    assert len({row["baseline_score"] for row in rows if row["seed"] == 1}) == 1
    assert len([each for each in (out / "baselines").iterdir() if each.is_dir()]) == 2
    assert len(list((out / "trials").iterdir())) == 8
    assert {path.name for path in (out / "trials").rglob("*") if path.is_file()} == {"record.json", "recipe.yaml"}
    assert not [path for path in out.rglob("*") if "lock" in path.name]


def test_an_interrupted_study_resumes_to_the_same_table(
    place: Path,
    plan: StudyPlan,
    whole: tuple[Path, Rows],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, begun = tmp_path / "out", 0

    def interrupted(checked: Checked, folder: Path, *, until: Any, **rest: Any) -> Record:
        nonlocal begun
        begun += until == "steps"
        if begun == 3:
            raise KeyboardInterrupt
        return pipeline.run(checked, folder, until=until, **rest)

    with pytest.raises(KeyboardInterrupt):
        run_study(plan, out, run=interrupted)
    with pytest.raises(OutputError, match="add --resume"):
        run_study(plan, out)
    before = sorted(path for path in (out / "trials").iterdir() if (path / "record.json").exists())
    assert tiny.call(monkeypatch, "study", place / "study.yaml", "--out", out, "--report") == 0
    assert "2 complete, 6 waiting" in capsys.readouterr().out
    assert sorted(path for path in (out / "trials").iterdir() if (path / "record.json").exists()) == before
    assert reproducible(run_study(plan, out, resume=True)) == reproducible(whole[1])
    table = (out / "trials.csv").read_text()
    run_study(plan, out, resume=True, run=refuse)
    assert (out / "trials.csv").read_text() == table


def refuse(*_: Any, **__: Any) -> Record:
    raise AssertionError("nothing is left to be trained")


def start_worker(study: Path, out: Path, log: Path) -> BaseProcess:
    return processes.start(["-m", "plankwise", "study", study, "--out", out, "--resume"], Path.cwd(), log)


def running_at(storage: str, process: BaseProcess) -> bool:
    """Return whether the worker is in the middle of a trial."""
    trials = optuna.load_study(study_name="tiny", storage=storage).trials
    return any(t.state.name == "RUNNING" and t.user_attrs.get("worker", "").endswith(f":{process.pid}") for t in trials)


def test_two_workers_share_a_study_and_one_outlives_the_others_death(
    place: Path, plan: StudyPlan, whole: tuple[Path, Rows], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process is killed in the middle of a trial while this one trains; this one runs that trial as well."""
    out = tmp_path / "out"
    other = start_worker(place / "study.yaml", out, tmp_path / "other.log")
    stored = f"sqlite:///{out / 'trials.db'}"

    def kill_other_first(*arguments: Any, **rest: Any) -> Record:
        if other.is_alive():
            processes.wait_for(lambda: running_at(stored, other), other)
            processes.kill(other)
        return pipeline.run(*arguments, **rest)

    processes.wait_for((out / "trials.csv").exists, other)  # not earlier: opening the storage creates its tables
    rows = run_study(plan, out, resume=True, run=kill_other_first)
    assert reproducible(rows) == reproducible(whole[1])
    kept = optuna.load_study(study_name="tiny", storage=stored).trials
    assert Counter(each.state.name for each in kept)["COMPLETE"] == 8
    assert "a worker died" in caplog.text


def test_two_workers_on_postgresql(postgresql: str, place: Path, whole: tuple[Path, Rows], tmp_path: Path) -> None:
    """Two workers with folders of their own, as on two machines, that share nothing but the database."""
    plan = changed(place, "shared", storage=postgresql)
    other = start_worker(place / "shared.yaml", tmp_path / "two", tmp_path / "two.log")
    processes.wait_for((tmp_path / "two" / "trials.csv").exists, other)
    rows = run_study(plan, tmp_path / "one", resume=True)
    other.join(300)
    assert other.exitcode == 0, (tmp_path / "two.log").read_text()[-2000:]
    document = json.loads((tmp_path / "two" / "study.json").read_text())
    assert reproducible(rows) == reproducible(document["trials"]) == reproducible(whole[1])
    kept = optuna.load_study(study_name="tiny", storage=postgresql).trials
    assert Counter(each.state.name for each in kept)["COMPLETE"] == 8
    assert len({each.user_attrs["worker"] for each in kept if each.state.name == "COMPLETE"}) == 2


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_draw_settings_and_run_each_with_every_seed(place: Path, tmp_path: Path, sampler: str) -> None:
    space = {"steps.0.start": {"low": 0.1, "high": 0.9}, "steps.0.initialization": ["bottom", [1, 3]]}
    plan = changed(place, sampler, sampler=sampler, trials=2, space=space)
    rows = run_study(plan, tmp_path / "out")
    assert [row["state"] for row in rows] == ["complete"] * 4
    assert [row["seed"] for row in rows] == [1, 2, 1, 2]
    assert rows[0]["steps.0.start"] == rows[1]["steps.0.start"] != rows[2]["steps.0.start"]
    assert all(0.1 <= row["steps.0.start"] <= 0.9 for row in rows)
    assert all(row["steps.0.initialization"] in ("bottom", [1, 3]) for row in rows)
    assert write_study(plan, rows, tmp_path / "out")["counts"]["complete"] == 4


def test_a_trial_that_fails_has_its_reason_and_stops_nothing(place: Path, tmp_path: Path) -> None:
    def diverging(checked: Checked, folder: Path, *, until: Any, **rest: Any) -> Record:
        if until == "steps" and checked.recipe.steps[0].training.learning_rate == 1:  # type: ignore[union-attr]
            raise TrainingError("the loss is nan")
        return pipeline.run(checked, folder, until=until, **rest)

    space = {"steps.0.training.learning_rate": [1e-3, 1], "steps.0.start": [0.5]}
    plan = changed(place, "failing", space=space, seeds=[1])
    rows = run_study(plan, tmp_path / "out", run=diverging)
    states = {row["steps.0.training.learning_rate"]: (row["state"], row["reason"]) for row in rows}
    assert states == {1e-3: ("complete", None), 1.0: ("failed", "the loss is nan")}
    assert reproducible(run_study(plan, tmp_path / "out", resume=True, run=refuse)) == reproducible(rows)
    document = write_study(plan, rows, tmp_path / "out")
    assert document["counts"] == {"complete": 1, "failed": 1, "running": 0, "waiting": 0}
    assert "failed: the loss is nan" in (tmp_path / "out" / "report.html").read_text()


def test_a_study_without_a_complete_trial_has_nothing_to_report(place: Path, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> Record:
        raise TrainingError("no")

    plan = changed(place, "hopeless", seeds=[1])
    rows = run_study(plan, tmp_path / "out", run=fail)
    assert {row["reason"] for row in rows} == {"no"}
    with pytest.raises(
        CheckpointError, match=r"out is complete \(4 failed\); nothing to report; the first failure: no$"
    ):
        write_study(plan, rows, tmp_path / "out")
    with pytest.raises(CheckpointError, match="4 failed"):
        run_study(plan, tmp_path / "out", resume=True, train=False)
    assert (tmp_path / "out" / "trials.csv").read_text().count("failed") == 4
    assert not list((tmp_path / "out").glob("report.html")) + list((tmp_path / "out").glob("study.json"))


def open_queue(plan: StudyPlan, tmp_path: Path, machine: str, grace_seconds: float = 180.0) -> TrialQueue:
    return TrialQueue(
        plan, tmp_path / machine, f"sqlite:///{tmp_path / 'shared.db'}", resume=True, grace_seconds=grace_seconds
    )


def claimed(queue: TrialQueue) -> ClaimedTrial:
    claim = queue.claim()
    assert claim is not None
    return claim


def test_a_trial_claimed_by_two_machines_is_run_by_the_first(plan: StudyPlan, tmp_path: Path) -> None:
    one, two = (open_queue(plan, tmp_path, machine) for machine in ("one", "two"))
    first = claimed(one)
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path / 'shared.db'}")
    study.enqueue_trial(first.trial.params, user_attrs=dict(study.trials[0].user_attrs))
    claims = [two.claim() for _ in range(8)]
    numbers = [each.number for each in claims if each is not None]
    assert sorted([first.number, *numbers]) == list(range(1, 9))
    assert study.trials[1].state.name == "PRUNED"


def test_a_silent_worker_on_another_machine_is_given_up_in_time_and_five_deaths_are_enough(
    plan: StudyPlan, tmp_path: Path
) -> None:
    one, two = (open_queue(plan, tmp_path, machine) for machine in ("one", "two"))
    claim = claimed(one)
    with one.held(claim):
        assert claimed(two).number == 2  # and its lock is released at once, as if the worker had died
        impatient = open_queue(plan, tmp_path, "two", grace_seconds=-1.0)
        assert impatient.running() == 0
        one.complete(claim, 0.5, {"steps": 1})  # too late: the trial has been given up
    assert impatient.rows()[0]["state"] == "waiting"
    for _ in range(4):
        assert claimed(impatient).number == 1
        shutil.rmtree(tmp_path / "two" / ".locks")
        (tmp_path / "two" / ".locks").mkdir()
        impatient.running()
    assert impatient.rows()[0]["state"] == "failed"
    assert impatient.rows()[0]["reason"] == "its worker died 5 times"


def test_other_studies_and_folders_are_refused(
    place: Path, plan: StudyPlan, whole: tuple[Path, Rows], tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=r"holds another study \(it differs in seeds\)"):
        run_study(changed(place, "other", seeds=[1, 3]), whole[0], resume=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not of a study"):
        run_study(plan, tmp_path)
    stored = f"sqlite:///{whole[0] / 'trials.db'}"
    shared = changed(place, "stored", storage=stored)
    with pytest.raises(OutputError, match="add --resume to join"):
        run_study(shared, tmp_path / "new")
    assert run_study(shared, tmp_path / "new", resume=True, run=refuse) == whole[1]
    with pytest.raises(OutputError, match=r"holds another study 'tiny' \(it differs in seeds\)"):
        run_study(changed(place, "third", storage=stored, seeds=[5]), tmp_path / "third")


def test_a_folder_that_another_worker_is_just_taking_is_not_refused(plan: StudyPlan, tmp_path: Path) -> None:
    (tmp_path / ".study.yaml.k3x9.partial").write_text("name: ti")
    take_folder(plan, tmp_path, resume=False)
    assert yaml.safe_load((tmp_path / "study.yaml").read_text())["seeds"] == [1, 2]


def test_the_verb_estimates_what_a_study_costs_and_trains_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.call(monkeypatch, "study", place / "study.yaml", "--out", tmp_path / "out", "--dry-run", "--json") == 0
    cost = json.loads(capsys.readouterr().out)
    assert [cost[key] for key in ("settings", "seeds", "trials", "baselines")] == [4, 2, 8, 2]
    assert cost["seconds"] == pytest.approx(2 * cost["seconds_per_baseline"] + 8 * cost["seconds_per_trial"])
    assert not (tmp_path / "out").exists()


def test_the_verb_reports_on_a_finished_study(
    place: Path, whole: tuple[Path, Rows], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.call(monkeypatch, "study", place / "study.yaml", "--out", whole[0], "--report") == 0
    shown = capsys.readouterr().out
    document = json.loads((whole[0] / "study.json").read_text())
    best, effect = document["best"][0], document["effects"]["steps.0.start"][0]
    assert "tiny: 8 complete" in shown
    assert f"macro_f1 {best['mean']:.4f}, 2 seeds" in shown
    assert f"{effect['effect']['value']:+.4f} [" in shown
    page = (whole[0] / "report.html").read_text()
    assert f"{best['mean']:.4f}" in page
    assert page.count("data:image/png;base64,") == 3
    assert page.count("<svg ") == 2  # the effects of both parameters
    assert set(document) == {
        *("name", "task", "metric", "split", "sampler", "parameters", "seeds", "settings", "counts", "train_seconds"),
        *("best", "effects", "loss_effects", "noise", "importance", "trials"),
    }
    assert "finding" not in f"{shown}{page}{json.dumps(document)}".lower()
    assert tiny.call(monkeypatch, "study", place / "study.yaml", "--out", whole[0]) == 2
    assert "add --resume" in capsys.readouterr().err


def test_there_is_nothing_to_report_where_no_study_is(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        assert tiny.call(monkeypatch, "study", place / "study.yaml", "--out", tmp_path / name, "--report") == 2
        assert f"there is no study in {tmp_path / name}; there is nothing to report on" in capsys.readouterr().err
    stored = place / "nowhere.yaml"
    stored.write_text(f"{GRID}storage: sqlite:///{tmp_path / 'other.db'}\n")
    assert tiny.call(monkeypatch, "study", stored, "--out", tmp_path / "new", "--report") == 2
    assert "the storage holds no study 'tiny'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert not list((tmp_path / "empty").iterdir())


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
def test_a_storage_out_of_reach_is_one_line(plan: StudyPlan, tmp_path: Path, storage: str, message: str) -> None:
    with pytest.raises(OutputError, match=message) as error:
        run_study(with_storage(plan, storage), tmp_path / "out", run=refuse)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def with_storage(plan: StudyPlan, storage: str) -> StudyPlan:
    return dataclasses.replace(plan, study=dataclasses.replace(plan.study, storage=storage))


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


def test_no_trial_is_begun_that_would_not_fit_into_the_minutes(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rehearsed: list[Checked] = []

    def rehearse(checked: Checked) -> list[dict[str, Any]]:
        rehearsed.append(checked)
        return [{"examples": 100, "seconds_per_step": 0.0, "seconds": 0.0}] * 2

    plan, out = changed(place, "brief", minutes=1e-4), tmp_path / "out"
    rows = run_study(plan, out, rehearse=rehearse)
    assert len(rehearsed) == 1
    assert [row["state"] for row in rows] == ["complete", *["waiting"] * 7]  # the first shows how long they take
    assert rows[0]["seconds"] >= rows[0]["train_seconds"] > 0
    assert "7 trials are not begun: the study's 0.0001 minutes are used up" in caplog.text
    longer = changed(place, "longer", minutes=100)
    assert Counter(row["state"] for row in run_study(longer, out, resume=True)) == {"complete": 8}


def test_minutes_that_hold_too_little_are_refused_before_the_study_begins(place: Path, tmp_path: Path) -> None:
    def rehearse(checked: Checked) -> list[dict[str, Any]]:
        return [{"examples": 100, "seconds_per_step": 60.0, "seconds": 60.0}] * 2

    with pytest.raises(RecipeError, match=r"5 min do not hold two trials of each setting"):
        run_study(changed(place, "small", minutes=5), tmp_path / "out", rehearse=rehearse)
    assert not (tmp_path / "out").exists()


def test_cross_entropy_stands_beside_the_score(whole: tuple[Path, Rows], plan: StudyPlan) -> None:
    out, rows = whole
    assert all(0 < row["log_loss"] < 2 for row in rows)
    document = write_study(plan, rows, out)
    effects = document["loss_effects"]["steps.0.start"]
    assert [level["value"] for level in effects] == ["0.2", "0.6"]
    means = [np.mean([row["log_loss"] for row in rows if row["steps.0.start"] == start]) for start in (0.2, 0.6)]
    assert [level["mean"] for level in effects] == pytest.approx(means)
    assert document["noise"] >= 0
    assert "on cross-entropy" in (out / "report.html").read_text()
