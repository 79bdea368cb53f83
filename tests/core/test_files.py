from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny
from plankwise.core.errors import OutputError
from plankwise.core.files import (
    atomic_folder,
    contents,
    link_folder,
    make_writable_folder,
    sha256,
    write_json,
    write_text,
)
from plankwise.encoder.checkpoint import save

UNWRITABLE = "gut bis hier \ud800"  # a lone surrogate fails while the file is being written


def tree(folder: Path) -> dict[str, str | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else None for path in folder.rglob("*")
    }


def fill_and_fail(path: Path, error: BaseException) -> None:
    with atomic_folder(path) as place:
        (place / "new.txt").write_text("half")
        assert place.exists()
        raise error


class TestWriting:
    def test_replaces_the_old_content_and_leaves_nothing_beside_it(self, tmp_path: Path) -> None:
        for text in ("old, and longer", "neu: ä €\n"):
            write_text(tmp_path / "a.txt", text)
        assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "neu: ä €\n"
        assert len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("old", [{}, {"a.txt": "old"}])
    def test_a_failure_leaves_everything_as_it_was(self, tmp_path: Path, old: dict[str, str]) -> None:
        for name, text in old.items():
            (tmp_path / name).write_text(text)
        with pytest.raises(UnicodeEncodeError):
            write_text(tmp_path / "a.txt", UNWRITABLE)
        assert tree(tmp_path) == old

    def test_a_failing_disk_leaves_the_old_content(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_text(tmp_path / "a.txt", "old")

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_text(tmp_path / "a.txt", "new")
        assert tree(tmp_path) == {"a.txt": "old"}

    def test_json_comes_back_equal_and_readable(self, tmp_path: Path) -> None:
        value = {"b": [1, 2.5, None, True], "a": "größer", "nested": {"x": []}}
        write_json(tmp_path / "a.json", value)
        text = (tmp_path / "a.json").read_text(encoding="utf-8")
        assert json.loads(text) == value
        assert "größer" in text
        assert text.endswith("}\n")

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
    def test_what_is_no_json_is_refused(self, tmp_path: Path, value: object) -> None:
        write_json(tmp_path / "a.json", {"score": 1})
        before = tree(tmp_path)
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "a.json", {"score": value})
        assert tree(tmp_path) == before


class TestAtomicFolder:
    def test_appears_only_when_it_is_full(self, tmp_path: Path) -> None:
        with atomic_folder(tmp_path / "deep" / "model") as place:
            (place / "weights").write_text("w")
            assert not (tmp_path / "deep" / "model").exists()
        assert tree(tmp_path / "deep") == {"model": None, "model/weights": "w"}

    @pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
    def test_a_failure_leaves_nothing(self, tmp_path: Path, error: BaseException) -> None:
        with pytest.raises(type(error)):
            fill_and_fail(tmp_path / "model", error)
        assert tree(tmp_path) == {}

    @pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
    def test_a_failure_leaves_the_old_folder(self, tmp_path: Path, error: BaseException) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "old.txt").write_text("old")
        with pytest.raises(type(error)):
            fill_and_fail(tmp_path / "model", error)
        assert tree(tmp_path) == {"model": None, "model/old.txt": "old"}

    def test_takes_the_place_of_all_that_was_there(self, tmp_path: Path) -> None:
        for name in ("old", "new"):
            with atomic_folder(tmp_path / "model") as place:
                (place / f"{name}.txt").write_text(name)
        assert tree(tmp_path) == {"model": None, "model/new.txt": "new"}

    def test_starts_empty_after_a_killed_attempt(self, tmp_path: Path) -> None:
        (tmp_path / ".model.partial").mkdir()
        (tmp_path / ".model.partial" / "half.txt").write_text("half")
        (tmp_path / ".model.lock.partial").write_text("")
        with atomic_folder(tmp_path / "model") as place:
            assert list(place.iterdir()) == []
        assert tree(tmp_path) == {"model": None}


@pytest.fixture(params=[0o022, 0o077, 0o027], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestModes:
    def test_are_those_of_the_umask(self, tmp_path: Path, umask: int) -> None:
        write_text(tmp_path / "a.txt", "text")
        with atomic_folder(tmp_path / "model") as place:
            (place / "deep").mkdir(mode=0o700)
            (place / "deep" / "weights").touch(mode=0o600)
            (place / "tool.py").touch(mode=0o755)
        modes = {path.relative_to(tmp_path).as_posix(): mode(path) for path in tmp_path.rglob("*")}
        assert modes == {
            "a.txt": 0o666 & ~umask,
            "model": 0o777 & ~umask,
            "model/deep": 0o777 & ~umask,
            "model/deep/weights": 0o666 & ~umask,
            "model/tool.py": 0o666 & ~umask,
        }

    def test_of_a_private_folder_let_only_the_owner_in(self, tmp_path: Path, umask: int) -> None:
        with atomic_folder(tmp_path / "notes", private=True) as place:
            (place / "text").touch(mode=0o600)
        assert mode(tmp_path / "notes") == 0o700
        assert mode(tmp_path / "notes" / "text") == 0o600

    def test_of_a_model(self, tmp_path: Path, umask: int) -> None:
        save(tiny.model(layers=1), tiny.tokenizer(), tmp_path / "model")
        assert {mode(path) for path in (tmp_path / "model").iterdir()} == {0o666 & ~umask}


class TestWritableFolder:
    def test_is_created_and_stays_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b"
        assert make_writable_folder(path) == path == make_writable_folder(path)
        assert list(path.iterdir()) == []

    @pytest.mark.parametrize("below", ["", "out", "out/deeper"])
    def test_a_file_in_the_way_is_named(self, tmp_path: Path, below: str) -> None:
        (tmp_path / "file").write_text("precious")
        with pytest.raises(OutputError, match=r"cannot write to .*file"):
            make_writable_folder(tmp_path / "file" / below)
        assert tree(tmp_path) == {"file": "precious"}


def test_hash_of_a_file_longer_than_one_block(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "blob").write_bytes(content)
    assert sha256(tmp_path / "blob") == hashlib.sha256(content).hexdigest()


def test_what_is_being_written_is_not_among_the_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def looking(handle: int) -> None:
        seen.append({each.name for each in tmp_path.iterdir()})
        seen.append(contents(tmp_path))

    assert contents(tmp_path / "gone") == set()
    monkeypatch.setattr(os, "fsync", looking)
    write_text(tmp_path / "name.txt", "whole")
    assert len(seen[0]) == 1
    assert seen[1] == set()
    with atomic_folder(tmp_path / "folder"):
        assert contents(tmp_path) == {"name.txt"}
    (tmp_path / ".hidden").touch()
    assert contents(tmp_path) == {"name.txt", "folder", ".hidden"}


def test_a_linked_folder_shares_its_files_and_changes_none_of_them(tmp_path: Path) -> None:
    """Files whose mode would have to change, and what symbolic links lead to, become files of their own."""
    source = tmp_path / "source"
    with atomic_folder(source) as place:
        (place / "curves").mkdir()
        (place / "curves" / "events").write_text("curve")
        (place / "weights").write_text("weights")
    (source / "private").write_text("mine")
    (source / "private").chmod(0o600)
    (source / "link").symlink_to(source / "weights")
    with atomic_folder(tmp_path / "target") as place:
        link_folder(source, place)
    target = tmp_path / "target"
    assert (target / "weights").samefile(source / "weights")
    assert (target / "curves" / "events").samefile(source / "curves" / "events")
    assert not (target / "private").samefile(source / "private")
    assert (target / "private").read_text() == "mine"
    assert stat.S_IMODE((source / "private").stat().st_mode) == 0o600
    assert not (target / "link").is_symlink()
    assert (target / "link").read_text() == "weights"


def test_a_folder_is_copied_where_it_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    with atomic_folder(tmp_path / "source") as place:
        (place / "weights").write_text("weights")
    monkeypatch.setattr(os, "link", refuse)
    with atomic_folder(tmp_path / "target") as place:
        link_folder(tmp_path / "source", place)
    assert (tmp_path / "target" / "weights").read_text() == "weights"
    assert not (tmp_path / "target" / "weights").samefile(tmp_path / "source" / "weights")
