"""A file that is written block by block, by processes that are killed at every step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plankwise.core.errors import CheckpointError, OutputError
from plankwise.deploy.tables.file_progress import FileProgress
from plankwise.deploy.tables.resumable import Fault, ResumableFile

MADE_OF = {"model": "m" * 64, "mode": "throughput", "on_error": "fail"}
BLOCKS = [(f"block {number}\n" * number).encode() for number in range(1, 6)]
KILLED = 77


Complete = Callable[[Path], Path]


def as_it_is(written: Path) -> Path:
    return written


def fill(path: Path, complete: Complete = as_it_is) -> None:
    """Write all blocks that are not there yet; every second has a fault."""
    resumable = ResumableFile(path, MADE_OF, resume=True)
    if resumable.is_whole:
        return
    with resumable as file:
        if file.progress.whole is None:
            for number in range(file.progress.rows, len(BLOCKS)):
                faults: list[Fault] = [{"row": number + 1, "fault": "empty"}] if number % 2 else []
                file.add(BLOCKS[number], rows=1, predicted=1 - len(faults), faults=faults)
        file.finish(complete)


def upper(written: Path) -> Path:
    made = written.with_name("output.upper")
    made.write_bytes(written.read_bytes().upper())
    return made


def killed_at(step: int, after: bool, path: Path, complete: Complete) -> int:
    """Fill in a process that is killed before, or after, it moves the nth file into its place."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    steps: Iterator[int] = iter(range(1, 1000))
    replace = Path.replace

    def dying(self: Path, target: Path) -> Path:
        now = next(steps) == step
        if now and not after:
            os._exit(KILLED)
        made = replace(self, target)
        if now:
            os._exit(KILLED)
        return made

    Path.replace = dying  # type: ignore[method-assign, assignment]
    try:
        fill(path, complete)
    finally:
        os._exit(0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("complete", [as_it_is, upper], ids=["as it is", "rewritten"])
def test_a_kill_at_any_step_loses_and_doubles_nothing(tmp_path: Path, after: bool, complete: Complete) -> None:
    expected = b"".join(BLOCKS).upper() if complete is upper else b"".join(BLOCKS)
    killed = 0
    for step in range(1, 12):
        path = tmp_path / str(step) / "out.csv"
        path.parent.mkdir()
        killed += killed_at(step, after, path, complete) == KILLED
        fill(path, complete)
        assert path.read_bytes() == expected
        assert path.with_name("out.csv.errors.jsonl").read_text().count("empty") == 2
        assert sorted(each.name for each in path.parent.iterdir()) == [
            "out.csv",
            "out.csv.errors.jsonl",
        ]
    assert killed == 9  # five blocks, the end, two files that find their places, and the record of it


def test_bytes_after_the_last_block_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with ResumableFile(path, MADE_OF, resume=False) as file:
        file.add(BLOCKS[0], rows=1, predicted=1)
    written = tmp_path / ".out.csv.partial" / "output"
    written.write_bytes(written.read_bytes() + b"half a bl")
    fill(path)
    assert path.read_bytes() == b"".join(BLOCKS)


def test_what_a_finished_file_was_made_of_is_known_while_it_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    fill(path)
    assert ResumableFile(path, MADE_OF, resume=True).is_whole
    with pytest.raises(CheckpointError, match='mode was "throughput" and is "latency"'):
        ResumableFile(path, {**MADE_OF, "mode": "latency"}, resume=True)
    path.write_bytes(b"another")
    with pytest.raises(OutputError, match="from an unknown source"):
        ResumableFile(path, MADE_OF, resume=True)


def test_the_record_beside_a_file_of_an_earlier_version_moves_into_the_cache(tmp_path: Path) -> None:
    path, beside = tmp_path / "out.csv", tmp_path / ".out.csv.progress.json"
    path.write_bytes(b"whole")
    beside.write_text(FileProgress(made_of=MADE_OF, rows=5, whole="output").model_dump_json())
    for _ in range(2):
        assert ResumableFile(path, MADE_OF, resume=True).is_whole
        assert not beside.exists()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with ResumableFile(path, MADE_OF, resume=True), pytest.raises(OutputError, match="another process is writing"):
        fill(path)
    late = ResumableFile(path, MADE_OF, resume=True)
    fill(path)
    with pytest.raises(OutputError, match=r"has written to .* just now"), late:
        pass
    assert path.read_bytes() == b"".join(BLOCKS)


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with ResumableFile(path, MADE_OF, resume=False) as file:
        file.add(BLOCKS[0], rows=1, predicted=1)
    (tmp_path / ".out.csv.partial" / "output").write_bytes(b"bl")
    with pytest.raises(CheckpointError, match=r"output is shorter than what was written; remove .*partial"):
        fill(path)
    (tmp_path / ".out.csv.partial" / "progress.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"progress.json is damaged; remove it"):
        fill(path)


def test_harmless_options_may_change_while_they_made_no_difference(tmp_path: Path) -> None:
    path, other = tmp_path / "out.csv", {**MADE_OF, "on_error": "skip"}
    with ResumableFile(path, MADE_OF, resume=False) as file:
        file.add(BLOCKS[0], rows=1, predicted=1)
    with pytest.raises(CheckpointError, match='on_error was "fail" and is "skip"'):
        ResumableFile(path, other, resume=True)
    with ResumableFile(path, other, True, ("on_error",)) as file:
        file.add(BLOCKS[1], rows=1, faults=[{"row": 2, "fault": "empty"}])
    with pytest.raises(CheckpointError, match='on_error was "skip" and is "fail"'):
        ResumableFile(path, MADE_OF, True, ("on_error",))
