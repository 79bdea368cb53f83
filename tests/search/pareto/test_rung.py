"""Trials that workers share: each setting once, a dead worker's again, and nothing counted twice."""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

import processes
import tiny_search
from plankwise.search.budget.candidate import Candidate, Failure, Outcome
from plankwise.search.budget.goal import Goal
from plankwise.search.pareto.plan import SearchPlan
from plankwise.search.pareto.rung import Rung, key_of
from plankwise.search.pareto.sampler import storage_with_heartbeat
from plankwise.search.pareto.worker import Deadline, MeasureCandidate, Worker

GOAL = Goal(retain=0.96, speedup=2.0)
VICTIM = """\
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import tiny_search
from plankwise.search.budget.goal import Goal
from plankwise.search.pareto.plan import read_search
from plankwise.search.pareto.worker import Deadline, Worker

place, storage, measured = Path(sys.argv[2]), sys.argv[3], []

def measure(candidate):
    if measured:
        Path(sys.argv[4]).write_text(candidate.name)
        time.sleep(600)
    measured.append(candidate)
    return tiny_search.arithmetic(candidate)

Worker(plan=read_search(place / "search.yaml"), goal=Goal(retain=0.96, speedup=2.0), measure=measure, storage=storage,
       trials=6, deadline=Deadline(None), heartbeat_s=1, grace_s=2, poll_s=0.1).run()
"""


def worker(plan: SearchPlan, storage: str, measure: MeasureCandidate, **changes: object) -> Worker:
    quick = {"trials": 6, "deadline": Deadline(None), "heartbeat_s": 1, "grace_s": 2, "poll_s": 0.1, **changes}
    return Worker(plan=plan, goal=GOAL, measure=measure, storage=storage, **quick)  # type: ignore[arg-type]


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'trials.db'}"


def rung(plan: SearchPlan, storage: str, measure: MeasureCandidate, draws: int | None = 6) -> Rung:
    opened = storage_with_heartbeat(storage, heartbeat_s=1, grace_s=2, retries=2)
    return Rung(
        plan,
        opened,
        "rung",
        goal=GOAL,
        measure=lambda setting: measure(plan.candidate(setting, proxy=True)),
        draws=draws,
        grace_s=1.0,
    )


def climb(one: Rung) -> None:
    while one.has_work():
        one.run_next()


def settings_of(study: optuna.Study) -> Counter[str]:
    return Counter(key_of(each) for each in study.get_trials(states=(TrialState.COMPLETE,)))


def test_each_setting_is_measured_once_and_survivors_are_trained_in_full(plan: SearchPlan, tmp_path: Path) -> None:
    seen: list[Candidate] = []

    def measure(candidate: Candidate) -> Outcome:
        seen.append(candidate)
        return tiny_search.arithmetic(candidate)

    proxies, full = worker(plan, url(tmp_path), measure).run()
    assert len(proxies.outcomes) == 6
    assert 1 <= len(full.outcomes) < 6
    assert set(Counter((each.name, each.rung) for each in seen).values()) == {1}
    cut = {each.candidate.name: each.candidate.steps[0]["training"]["epochs"] for each in proxies.outcomes}
    assert set(cut.values()) == {0.5}
    assert {each.candidate.steps[0]["training"]["epochs"] for each in full.outcomes} == {2.0}
    fast = [each.candidate.name for each in proxies.outcomes if each.speedup.high >= 2.0]
    assert {each.candidate.name for each in full.outcomes} <= set(fast)


def test_a_finite_space_is_tried_completely_and_then_the_search_ends(finite: SearchPlan, tmp_path: Path) -> None:
    one = rung(finite, url(tmp_path), tiny_search.arithmetic, draws=None)
    climb(one)
    listed = finite.settings()
    assert listed is not None
    assert len(one.outcomes) == len(listed) == 6
    assert set(settings_of(one.study).values()) == {1}


def test_constraints_guide_the_sampler(plan: SearchPlan, tmp_path: Path) -> None:
    one = rung(plan, url(tmp_path), tiny_search.arithmetic)
    climb(one)
    feasible = {each.number for each in one.study.best_trials}  # of feasible trials alone
    met = {
        each.number
        for each in one.study.get_trials(states=(TrialState.COMPLETE,))
        if GOAL.is_met(Outcome.model_validate_json(each.user_attrs["outcome"]))
    }
    assert feasible
    assert feasible <= met


def test_a_candidate_that_cannot_be_made_is_left_out_and_not_tried_again(finite: SearchPlan, tmp_path: Path) -> None:
    def measure(candidate: Candidate) -> Outcome | Failure:
        if candidate.steps and candidate.steps[0].get("modules") == 1:
            return Failure(candidate=candidate, fault="no such thing", seconds=0.0)
        return tiny_search.arithmetic(candidate)

    one = rung(finite, url(tmp_path), measure, draws=None)
    climb(one)
    assert len(one.outcomes) == 4
    assert [each.fault for each in one.failures] == ["no such thing"] * 2


def test_a_resumed_search_repeats_nothing_and_is_the_one_that_was_never_stopped(
    plan: SearchPlan, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    whole = rung(plan, url(tmp_path / "whole"), tiny_search.arithmetic)
    climb(whole)
    begun = 0

    def stopped(candidate: Candidate) -> Outcome:
        nonlocal begun
        begun += 1
        if begun == 4:
            raise KeyboardInterrupt
        return tiny_search.arithmetic(candidate)

    with pytest.raises(KeyboardInterrupt):
        climb(rung(plan, url(tmp_path), stopped))
    again = rung(plan, url(tmp_path), tiny_search.arithmetic)
    climb(again)
    first = [each.candidate.name for each in whole.outcomes]
    found = [each.candidate.name for each in again.outcomes]
    assert found[:4] == first[:4]
    assert len(found) == len(set(found)) == 6


def test_the_result_of_a_worker_that_was_given_up_is_dropped(plan: SearchPlan, tmp_path: Path) -> None:
    """It was suspended for so long that another worker took its trial; that one's result counts."""
    storage = url(tmp_path)

    def suspended(candidate: Candidate) -> Outcome:
        study = optuna.load_study(study_name="rung", storage=storage)
        (running,) = study.get_trials(states=(TrialState.RUNNING,))
        study.tell(running.number, state=TrialState.FAIL)
        return tiny_search.arithmetic(candidate)

    one = rung(plan, storage, suspended)
    one.run_next()
    assert one.outcomes == []
    climb(rung(plan, storage, tiny_search.arithmetic))
    assert len(one.outcomes) == 6


def test_a_worker_that_died_before_its_first_heartbeat_is_noticed(plan: SearchPlan, tmp_path: Path) -> None:
    """Optuna itself would wait for such a trial forever."""
    storage = url(tmp_path)
    one = rung(plan, storage, tiny_search.arithmetic)
    optuna.load_study(study_name="rung", storage=storage).ask()
    one.requeue_dead()
    assert one.running == 1
    time.sleep(1.1)
    one.requeue_dead()
    assert one.running == 0
    climb(one)
    assert len(one.outcomes) == 6


def kill_in_mid_trial(place: Path, storage: str, marker: Path) -> str:
    """Start a worker in a process of its own, kill it in its second trial, and return that candidate's name."""
    other = processes.start(["-c", VICTIM, Path(__file__).parents[2], place, storage, marker], place)
    try:
        processes.wait_for(lambda: marker.exists() and bool(marker.read_text()), other)
    finally:
        processes.kill(other)
    return marker.read_text()


def check_after_death(plan: SearchPlan, place: Path, storage: str, marker: Path) -> None:
    name = kill_in_mid_trial(place, storage, marker)
    mine: list[str] = []

    def measure(candidate: Candidate) -> Outcome:
        mine.append(candidate.name)
        return tiny_search.arithmetic(candidate)

    proxies, _ = worker(plan, storage, measure).run()
    assert name in mine, "the dead worker's trial was not run again"
    names = [each.candidate.name for each in proxies.outcomes]
    assert len(names) == len(set(names)) == 6
    assert set(settings_of(proxies.study).values()) == {1}
    states = Counter(each.state.name for each in proxies.study.trials)
    assert states["COMPLETE"] == 6
    assert states["RUNNING"] == states["WAITING"] == 0


def test_a_killed_workers_trial_is_run_again_and_none_counts_twice(
    plan: SearchPlan, place: Path, tmp_path: Path
) -> None:
    check_after_death(plan, place, url(tmp_path), tmp_path / "marker")


def test_workers_share_a_postgresql(plan: SearchPlan, place: Path, postgresql: str, tmp_path: Path) -> None:
    check_after_death(plan, place, postgresql, tmp_path / "marker")


def test_settings_are_plain_json_in_the_storage(plan: SearchPlan, tmp_path: Path) -> None:
    one = rung(plan, url(tmp_path), tiny_search.arithmetic, draws=1)
    climb(one)
    (trial,) = one.study.trials
    assert json.loads(key_of(trial)) == trial.params


def test_a_trial_that_is_being_completed_is_read_again(
    plan: SearchPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may show it complete, and what was measured of it only a moment later."""
    one = rung(plan, url(tmp_path), tiny_search.arithmetic, draws=1)
    climb(one)
    whole, reads = one._storage.get_all_trials, list[int]()

    def torn(*arguments: Any, **options: Any) -> list[FrozenTrial]:
        reads.append(1)
        found = copy.deepcopy(whole(*arguments, **options))
        if len(reads) == 1:
            found[0].user_attrs.clear()
        return found

    monkeypatch.setattr(one._storage, "get_all_trials", torn)
    assert len(one.outcomes) == 1
    assert len(reads) == 2
