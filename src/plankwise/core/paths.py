"""Paths that users name: what may be read, what can be written, and what killed processes left."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from plankwise.core.claims import ExclusiveClaim, is_claimed
from plankwise.core.errors import OutputError, PlankwiseError

logger = logging.getLogger(__name__)
LOCK = "lock"  # in a folder of unfinished predictions
PARTIAL = ".partial"  # suffix of all temporary names
MANIFEST = "manifest.json"  # in the folder of an artefact
MODEL_FILES = (".safetensors", ".bin", ".json", ".model", ".txt")  # suffixes in the folder of a model
ROOM = 200  # bytes of path length reserved for files inside a folder
LONGEST_PATH = 4096  # bytes, PATH_MAX of Linux
_KINDS: dict[str, Callable[[int], bool]] = {
    "a named pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


def check_file(path: Path) -> Path:
    """Return the path, unless it is a pipe, socket or device, which a reader would wait for or never finish.

    Raises:
        OSError: if it is one of these, does not exist or cannot be read; `strerror` has the reason.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a zero byte, or a lone surrogate
        raise OSError(errno.EINVAL, f"it is not a file name: {error}", str(path)) from None
    kind = next((name for name, is_it in _KINDS.items() if is_it(mode)), None)
    if kind is not None:
        raise OSError(errno.EINVAL, f"it is {kind}; allowed: a file", str(path))
    return path


def check_files_of(folder: Path) -> None:
    """Refuse a model's folder that holds pipes, devices, or folders named like files, before a library reads them.

    Raises:
        OSError: naming the first of them.
    """
    for each in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if check_file(each).is_dir() and each.suffix in MODEL_FILES:
                raise OSError(errno.EISDIR, "it is a folder; allowed: a file")
        except FileNotFoundError:  # a broken link counts as absent
            continue
        except OSError as error:
            raise OSError(f"{each.name}: {error.strerror}") from None


def check_folder(path: Path) -> Path:
    """Return the path if a folder can be made there or written to; nothing is written.

    Raises:
        OutputError: if not, with the reason.
    """
    if _exists(path) and not path.is_dir():
        raise OutputError(f"cannot write to {_shown(path)}: it is a file")
    _check_place(path)
    return path


def check_target(path: Path) -> Path:
    """Return the path if a file can be written there, in a folder that exists; nothing is written.

    Raises:
        OutputError: if not, with the reason.
    """
    _check_place(path)
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {path.parent} to write {path.name} to")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; allowed: a file")
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write to {path}: it is not a regular file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {path.parent}: {os.strerror(errno.EACCES)}")
    return path


def _check_place(path: Path) -> None:
    """Refuse a path that is too long for the files inside, or where nothing can be made."""
    try:
        place = Path(os.path.abspath(path))  # noqa: PTH100, Path.resolve would follow links
        if len(os.fsencode(place)) + ROOM > LONGEST_PATH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        missing = [each for each in (place, *place.parents) if not os.path.lexists(each)]
        there = missing[-1].parent if missing else place
        if missing and not there.is_dir():
            reason = "it is a broken link" if there.is_symlink() and not there.exists() else "it is a file"
            raise OSError(errno.ENOTDIR, f"{there}: {reason}")
        for each in missing:
            with suppress(FileNotFoundError):
                (there / f".{each.name}.12345678{PARTIAL}").lstat()  # raises if the longest temporary name is too long
        if there.is_dir() and not os.access(there, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write to {_shown(path)}: {getattr(error, 'strerror', None) or error}") from None


def _exists(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:
        return False


def _shown(path: Path, most: int = 120) -> str:
    text = str(path).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return text if len(text) <= most else f"{text[:most]}…"


def lock_of(temporary: Path) -> Path:
    """Return the path of the lock that a process holds while it fills this temporary folder."""
    return temporary.with_name(f"{temporary.name.removesuffix(PARTIAL)}.lock{PARTIAL}")


def remove_dead(folder: Path) -> None:
    """Remove the temporary folders of `atomic_folder` that killed processes left, and log each.

    A folder whose lock is held belongs to a live process, and stays.
    """
    for lock in sorted(folder.glob(f".*.lock{PARTIAL}")):
        temporary = lock.with_name(f"{lock.name.removesuffix(f'.lock{PARTIAL}')}{PARTIAL}")
        with suppress(OutputError, OSError), ExclusiveClaim(lock, temporary):
            if temporary.is_dir():
                shutil.rmtree(temporary)
                logger.info("removed %s, which a killed process left", temporary)


def tidy(folder: Path) -> None:
    """Remove what killed processes left in `folder`, and log what may still be of use, or in use."""
    remove_dead(folder)
    for each in sorted(folder.glob(f".*{PARTIAL}")) if folder.is_dir() else ():
        if each.is_dir() and not lock_of(each).exists() and not is_claimed(each / LOCK):
            hint = "predict --resume continues it, or remove it" if (each / LOCK).exists() else "remove it"
            logger.info("a killed process left %s; %s", each, hint)


@contextmanager
def alone_at(temporary: Path, path: Path) -> Iterator[None]:
    """Claim the temporary folder that will take the place of `path`; what killed processes left is removed first.

    Raises:
        OutputError: if another process is filling it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_dead(path.parent)
    with ExclusiveClaim(lock_of(temporary), path):
        yield


@dataclass(frozen=True)
class Found:
    """The state of an output folder before a command writes to it.

    Attributes:
        folder: to write to.
        names: of its contents.
        missing: folders that have to be made, the innermost first.
    """

    folder: Path
    names: frozenset[str]
    missing: tuple[Path, ...]


def found_at(folder: Path) -> Found:
    """Return the state of a folder before anything is written to it."""
    names = frozenset(each.name for each in folder.iterdir()) if folder.is_dir() else frozenset[str]()
    return Found(folder, names, tuple(each for each in (folder, *folder.parents) if not each.exists()))


@contextmanager
def undone_if_refused(found: Found, keeps: Callable[[], bool]) -> Iterator[None]:
    """Restore a folder if the context ends with a PlankwiseError: remove what was written since.

    Other errors, such as an interrupt, leave everything, so that the run can be resumed.

    Args:
        found: state to restore, from `found_at`; no other process may be writing there.
        keeps: returns whether the folder holds work that is worth keeping; then nothing is removed.
    """
    try:
        yield
    except PlankwiseError:
        if not keeps():
            for each in found.folder.iterdir() if found.folder.is_dir() else ():
                if each.name not in found.names:
                    remove(each)
            for each in found.missing:
                with suppress(OSError):  # not empty: another process uses it by now
                    each.rmdir()
        raise


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its contents."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
