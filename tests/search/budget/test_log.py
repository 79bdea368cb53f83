"""The log of candidates survives a kill between the proposal and the measurement."""

from __future__ import annotations

from pathlib import Path

import pytest

from outcomes import outcome
from plankwise.core.errors import CheckpointError, OutputError
from plankwise.search.budget.candidate import Failure
from plankwise.search.budget.folder import claimed, refuse_taken
from plankwise.search.budget.log import FOLDER, CandidateLog


def test_a_killed_search_knows_what_it_was_doing(tmp_path: Path) -> None:
    first, second = outcome("first"), outcome("second")
    log = CandidateLog(tmp_path)
    log.propose(first.candidate)
    log.finish(first)
    log.propose(second.candidate)
    again = CandidateLog(tmp_path)
    assert again.outcomes == [first]
    assert again.pending == second.candidate
    again.propose(second.candidate)  # what a resumed search does
    again.finish(Failure(candidate=second.candidate, fault="no room", seconds=1.0))
    last = CandidateLog(tmp_path)
    assert last.pending is None
    assert [each.fault for each in last.failures] == ["no room"]
    assert [each.name for each in last.candidates] == ["first", "second"]


def test_a_damaged_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "001.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"001\.json is damaged"):
        CandidateLog(tmp_path)


def test_a_folder_belongs_to_one_search(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        claimed(out, {"model": "one"}, resume=False),
        pytest.raises(OutputError, match="another process is writing"),
        claimed(out, {"model": "one"}, resume=True),
    ):
        pass
    with pytest.raises(OutputError, match="add --resume"):
        refuse_taken(out, {"model": "one"}, resume=False)
    with pytest.raises(OutputError, match=r"another search \(it differs in model\)"):
        refuse_taken(out, {"model": "two"}, resume=True)
    (out / "search.yaml").unlink()
    (out / "mine.txt").write_text("text", encoding="utf-8")
    with pytest.raises(OutputError, match="not of a search"):
        refuse_taken(out, None, resume=True)
