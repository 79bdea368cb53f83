"""A folder of the cache is built once, by one process, and is complete or absent."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from plankwise.core.cache import SIZES, built_once, cache_folder
from plankwise.core.claims import ExclusiveClaim
from plankwise.core.errors import DataError, OutputError
from processes import run_ranks


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


class Builder:
    """Writes one file and counts how often."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls, self.error = 0, error

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "data.txt").write_text(f"build {self.calls}")
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PLANKWISE_CACHE": "/here"}, "/here"),
        ({"XDG_CACHE_HOME": "/there"}, "/there/plankwise"),
        ({"HOME": "/home/me"}, "/home/me/.cache/plankwise"),
    ],
)
def test_its_place_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("PLANKWISE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_a_complete_folder_is_not_built_again(tmp_path: Path) -> None:
    build = Builder()
    for _ in range(2):
        built_once(tmp_path / "cache" / "one", build)
    assert build.calls == 1
    assert names(tmp_path / "cache" / "one") == {"data.txt", SIZES}
    assert stat.S_IMODE((tmp_path / "cache" / "one").stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", ["data.txt", SIZES])
def test_a_damaged_folder_is_built_again(tmp_path: Path, damage: str) -> None:
    build = Builder()
    built_once(tmp_path / "one", build)
    (tmp_path / "one" / damage).write_text("cut")
    built_once(tmp_path / "one", build)
    assert build.calls == 2
    assert (tmp_path / "one" / "data.txt").read_text() == "build 2"


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such text"):
        built_once(tmp_path / "one", Builder(DataError("no such text")))
    with pytest.raises(OutputError, match=f"cannot write to {tmp_path}: No space left on device"):
        built_once(tmp_path / "one", Builder(OSError(28, "No space left on device")))
    assert not (tmp_path / "one").exists()
    built_once(tmp_path / "one", Builder())
    assert (tmp_path / "one" / "data.txt").exists()


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=f"cannot write to {tmp_path / 'file' / 'cache'}: "):
        built_once(tmp_path / "file" / "cache" / "one", Builder())


def test_another_run_that_is_building_is_waited_for(tmp_path: Path) -> None:
    build, claim = Builder(), ExclusiveClaim(tmp_path / "one.lock", tmp_path / "one", removes_lock=False)
    claim.take()
    waiting = threading.Thread(target=built_once, args=(tmp_path / "one", build))
    waiting.start()
    waiting.join(0.1)
    assert (waiting.is_alive(), build.calls) == (True, 0)
    claim.release()
    waiting.join(10)
    assert build.calls == 1


SCRIPT = """
import os, sys
from pathlib import Path
from plankwise.core.cache import built_once
from plankwise.core.errors import DataError

def build(folder):
    (folder / f"rank {os.environ['RANK']}").write_text("")

def fail(folder):
    raise DataError("no such text")

built_once(Path("cache/one"), build)
assert Path("cache/one/rank 0").exists()
try:
    built_once(Path("cache/two"), fail)
except DataError as error:
    print(error, file=sys.stderr)
"""


def test_two_processes_build_once_and_fail_together(tmp_path: Path) -> None:
    for code, said in run_ranks(["-c", SCRIPT], tmp_path):
        assert code == 0, said
        assert said.splitlines()[-1] == "no such text"
    assert names(tmp_path / "cache" / "one") == {"rank 0", SIZES}
