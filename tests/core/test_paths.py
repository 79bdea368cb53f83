"""Places that users name: refused before anything is made there, and left as they were found."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import pytest
from filelock import FileLock

from plankwise.core.errors import OutputError, PlankwiseError
from plankwise.core.files import atomic_folder
from plankwise.core.paths import (
    check_file,
    check_files_of,
    check_folder,
    check_target,
    found_at,
    lock_of,
    tidy,
    undone_if_refused,
)


def names(folder: Path) -> list[str]:
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*"))


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, kind in ((tmp_path / "pipe", "a named pipe"), (tmp_path / "socket", "a socket")):
            with pytest.raises(OSError, match=f"it is {kind}; allowed: a file"):
                check_file(path)
    with pytest.raises(OSError, match=r"^pipe: it is a named pipe; allowed: a file$"):
        check_files_of(tmp_path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(OSError, match=r"^config.json: it is a folder; allowed: a file$"):
        check_files_of(tmp_path)
    (tmp_path / "file").write_text("")
    assert check_file(tmp_path / "file") == tmp_path / "file"


@pytest.mark.parametrize("deeper", ["", "new/", "new/er/"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("n" * 300, "File name too long"),
        ("n" * 245, "File name too long"),  # as what stands in for it while it is written
        ("/".join(["n" * 200] * 20), "File name too long"),
        ("a\0b", "embedded null byte"),
        ("a\ud800b", "surrogates not allowed"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_nothing_is_made(
    tmp_path: Path, deeper: str, name: str, reason: str
) -> None:
    for check in (check_folder, check_target):
        with pytest.raises(OutputError, match=f"^cannot write to .*: .*{reason}") as caught:
            check(tmp_path / f"{deeper}{name}")
        assert len(str(caught.value)) < 300
        assert str(caught.value).isprintable()
    assert names(tmp_path) == []


def test_a_place_below_a_file_or_behind_a_dead_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for path, reason in (("file", "it is a file"), ("file/run", "file: it is a file"), ("link/run", "broken link")):
        with pytest.raises(OutputError, match=f"{reason}$"):
            check_folder(tmp_path / path)
    assert names(tmp_path) == ["file", "link"]
    assert check_folder(tmp_path / "new" / "run") == tmp_path / "new" / "run"


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    with pytest.raises(OutputError, match="Permission denied"):
        check_folder(tmp_path / "run")


def test_a_file_needs_a_folder_and_replaces_nothing_but_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases = {
        "no/such/page.html": "there is no folder .*such to write page.html to",
        "": "is a folder; allowed: a file",
        "pipe": "it is not a regular file",
    }
    for name, reason in cases.items():
        with pytest.raises(OutputError, match=reason):
            check_target(tmp_path / name)
    with pytest.raises(OutputError, match="it is not a regular file"):
        check_target(Path("/dev/null"))


@pytest.mark.parametrize("existing", [None, [], ["mine.txt"]])
@pytest.mark.parametrize("keeps", [False, True])
def test_a_refusal_leaves_what_was_found(tmp_path: Path, existing: list[str] | None, keeps: bool) -> None:
    folder = tmp_path / "runs" / "run"
    for name in existing or ():
        folder.mkdir(parents=True)
        (folder / name).write_text("mine")
    if existing == []:
        folder.mkdir(parents=True)
    before, found = names(tmp_path), found_at(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "made").mkdir()
    (folder / "made" / "half").write_text("")
    (folder / "recipe.yaml").write_text("")
    with pytest.raises(PlankwiseError), undone_if_refused(found, lambda: keeps):
        raise PlankwiseError
    assert (names(tmp_path) == before) is not keeps


def test_other_errors_leave_what_can_be_resumed(tmp_path: Path) -> None:
    found = found_at(tmp_path)
    (tmp_path / "work").write_text("")
    with pytest.raises(KeyboardInterrupt), undone_if_refused(found, lambda: False):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["work"]


def test_what_killed_processes_left_is_removed_or_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("dead", "live", "old", "out.csv"):
        (tmp_path / f".{name}.partial").mkdir()
    lock_of(tmp_path / ".dead.partial").write_text("")
    (tmp_path / ".out.csv.partial" / "lock").write_text("")
    (tmp_path / "other.partial").mkdir()
    with FileLock(lock_of(tmp_path / ".live.partial")), caplog.at_level(logging.INFO):
        with atomic_folder(tmp_path / "made"):
            tidy(tmp_path)
        with (
            pytest.raises(OutputError, match=r"another process is writing to .*live"),
            atomic_folder(tmp_path / "live"),
        ):
            pass
        assert (tmp_path / ".live.partial").is_dir()
    assert not (tmp_path / ".dead.partial").exists()
    assert "removed" in caplog.messages[0]
    assert caplog.messages[1:] == [
        f"a killed process left {tmp_path / '.old.partial'}; remove it",
        f"a killed process left {tmp_path / '.out.csv.partial'}; predict --resume continues it, or remove it",
    ]
    assert not lock_of(tmp_path / ".dead.partial").exists()
    assert not lock_of(tmp_path / ".made.partial").exists()
