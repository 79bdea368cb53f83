"""Files and folders that are either complete or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from plankwise.core.errors import OutputError
from plankwise.core.paths import PARTIAL, alone_at, check_file, check_folder


def contents(folder: Path) -> set[str]:
    """Return the names in `folder` without temporary ones; an absent folder has none."""
    if not folder.exists():
        return set()
    names = {each.name for each in folder.iterdir()}
    return {name for name in names if not (name.startswith(".") and name.endswith(PARTIAL))}


def read_text(path: Path, encoding: str = "utf-8", max_bytes: int | None = None) -> str:
    """Return the text of a file.

    Raises:
        OSError: if it cannot be read, is not a regular file, or is larger than `max_bytes`; `strerror` has the reason.
        UnicodeDecodeError: if it is not text in this encoding.
    """
    size = check_file(path).stat().st_size
    if max_bytes is not None and size > max_bytes:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes; allowed: up to {max_bytes:,}", str(path))
    return path.read_text(encoding=encoding)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically: a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with temporary.open("x", encoding="utf-8") as file:  # not mkstemp, whose files are readable by the owner alone
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` atomically as indented JSON. NaN is refused: JSON does not have it."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def atomic_folder(path: Path, private: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which replaces `path` when the context ends without an error.

    Temporary folders that killed processes left beside `path` are removed first.

    Args:
        path: of the folder.
        private: whether only its owner may read it, as for folders with texts. Otherwise all files get the modes of
            the umask, whatever the library that wrote them chose.

    Raises:
        OutputError: if `path` cannot be written to, or another process is writing to it.
    """
    check_folder(path)
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    with alone_at(temporary, path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700 if private else 0o777)
        allowed = stat.S_IMODE(temporary.stat().st_mode)
        try:
            yield temporary
            if not private:
                _open_up(temporary, allowed)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if path.is_dir():
            shutil.rmtree(path)
        temporary.rename(path)


def link_folder(source: Path, target: Path) -> None:
    """Fill the new folder `target` with the files of `source`: as hard links where that is possible, else as copies.

    Only files that `atomic_folder` would not have to change are linked: a link shares its mode and owner with the
    original. What is linked must be replaced as a whole later on, never written to in place.
    """
    allowed = stat.S_IMODE(target.stat().st_mode) & 0o666

    def link(original: str, copy: str) -> str:
        real = os.path.realpath(original)  # a hard link of a symbolic link would be that link, not the file
        found = Path(real).stat()
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == allowed:
            with suppress(OSError):  # another file system, or one without hard links
                os.link(real, copy)
                return copy
        return str(shutil.copy2(real, copy))

    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=link)


def _open_up(folder: Path, allowed: int) -> None:
    """Set the mode of a folder and of everything in it to `allowed`; files are not executable."""
    folder.chmod(allowed)
    for each in folder.rglob("*"):
        if not each.is_symlink():
            each.chmod(allowed if each.is_dir() else allowed & 0o666)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder and the folders in it."""
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def make_writable_folder(path: Path) -> Path:
    """Create `path` if need be and prove that a file can be written there.

    Raises:
        OutputError: if it is not a folder or cannot be written to.
    """
    check_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path, prefix=".", suffix=PARTIAL):
            return path
    except OSError as error:
        raise OutputError(f"cannot write to {path}: {error.strerror or error}") from None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with check_file(path).open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
