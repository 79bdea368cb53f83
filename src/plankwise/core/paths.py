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
LOCK = "lock"  # in a folder of partial predictions
PARTIAL = ".partial"  # ends the temporary names under which everything is written
MODEL_FILES = (".safetensors", ".bin", ".json", ".model", ".txt")  # endings, in the folder of a model
ROOM = 200  # bytes of a path that what is written inside of a folder may need
LONGEST_PATH = 4096
_KINDS: dict[str, Callable[[int], bool]] = {
    "a named pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


def check_file(path: Path) -> Path:
    """Refuse what reading would wait for, or find no end of: pipes, sockets and devices. Return the path.

    Raises:
        OSError: if it is one, is not there or cannot be looked at; its `strerror` says why.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a zero byte, or a lone surrogate
        raise OSError(errno.EINVAL, f"it is no name of a file: {error}", str(path)) from None
    kind = next((name for name, is_it in _KINDS.items() if is_it(mode)), None)
    if kind is not None:
        raise OSError(errno.EINVAL, f"it is {kind}; allowed: a file", str(path))
    return path


def check_files_of(folder: Path) -> None:
    """Refuse a model's folder with pipes or devices in it, or folders in place of files, before a library reads them.

    Raises:
        OSError: naming the first.
    """
    for each in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if check_file(each).is_dir() and each.suffix in MODEL_FILES:
                raise OSError(errno.EISDIR, "it is a folder; allowed: a file")
        except FileNotFoundError:  # a link to nothing is as good as none
            continue
        except OSError as error:
            raise OSError(f"{each.name}: {error.strerror}") from None


def check_folder(path: Path) -> Path:
    """Refuse a place where no folder can be made, or written to; nothing is made yet. Return the path.

    Raises:
        OutputError: with the reason.
    """
    if _exists(path) and not path.is_dir():
        raise OutputError(f"cannot write to {_shown(path)}: it is a file")
    _check_place(path)
    return path


def check_target(path: Path) -> Path:
    """Refuse a place where no file can be written, its folder being there; nothing is made yet. Return the path.

    Raises:
        OutputError: with the reason.
    """
    _check_place(path)
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {path.parent} to write {path.name} to")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; allowed: a file")
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write to {path}: it is no regular file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {path.parent}: {os.strerror(errno.EACCES)}")
    return path


def _check_place(path: Path) -> None:
    """Refuse a path that is too long for what is written there, or that nothing can be made at."""
    try:
        place = Path(os.path.abspath(path))  # noqa: PTH100 - links are not followed
        if len(os.fsencode(place)) + ROOM > LONGEST_PATH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        missing = [each for each in (place, *place.parents) if not os.path.lexists(each)]
        there = missing[-1].parent if missing else place
        if missing and not there.is_dir():
            reason = "it is a link to nothing" if there.is_symlink() and not there.exists() else "it is a file"
            raise OSError(errno.ENOTDIR, f"{there}: {reason}")
        for each in missing:
            with suppress(FileNotFoundError):
                (there / f".{each.name}.12345678{PARTIAL}").lstat()  # as long as names get that stand in for it
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
    """What was there before a command wrote anything.

    Attributes:
        folder: that is to be written to.
        names: what it held.
        missing: which folders have to be made for it, itself first.
    """

    folder: Path
    names: frozenset[str]
    missing: tuple[Path, ...]


def found_at(folder: Path) -> Found:
    """Look at a folder before anything is written to it."""
    names = frozenset(each.name for each in folder.iterdir()) if folder.is_dir() else frozenset[str]()
    return Found(folder, names, tuple(each for each in (folder, *folder.parents) if not each.exists()))


@contextmanager
def undone_if_refused(found: Found, keeps: Callable[[], bool]) -> Iterator[None]:
    """Leave what was found where an error refuses what was asked for: take away what was written since.

    Args:
        found: before that, by `found_at`; nobody else may be writing there.
        keeps: tells whether the folder holds work by now; then all of it stays.
    """
    try:
        yield
    except PlankwiseError:
        if not keeps():
            for each in found.folder.iterdir() if found.folder.is_dir() else ():
                if each.name not in found.names:
                    remove(each)
            for each in found.missing:
                with suppress(OSError):  # not empty: somebody else has come to use it
                    each.rmdir()
        raise


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
