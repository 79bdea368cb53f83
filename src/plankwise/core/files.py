"""Files that are either whole or absent: write under a temporary name, then rename."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plankwise.core.errors import OutputError

PARTIAL = ".partial"  # ends the temporary names under which everything here is written


def contents(folder: Path) -> set[str]:
    """Name what lies in `folder`, if it is there, less what is being written or what a kill left of that."""
    if not folder.exists():
        return set()
    names = {each.name for each in folder.iterdir()}
    return {name for name in names if not (name.startswith(".") and name.endswith(PARTIAL))}


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step: a reader sees the old file or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON in one step. NaN is refused: it is no JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path` to fill; it takes the place of `path` only if nothing failed."""
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if path.is_dir():
        shutil.rmtree(path)
    temporary.rename(path)


def make_writable_folder(path: Path) -> Path:
    """Create `path` if need be and prove that a file can be written there.

    Raises:
        OutputError: if it is no folder or cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path, prefix=".", suffix=PARTIAL):
            return path
    except OSError as error:
        raise OutputError(f"cannot write to {path}: {error.strerror or error}") from None


def sha256(path: Path) -> str:
    """Hash a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
