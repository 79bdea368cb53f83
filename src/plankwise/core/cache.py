"""The cache: folders that one process builds and all others read, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock

from plankwise.core.distributed import fail_together, is_main_process, wait_for_everyone
from plankwise.core.errors import OutputError, PlankwiseError
from plankwise.core.files import atomic_folder, write_json

SIZES = "sizes.json"  # of the other files in a folder of the cache


def cache_folder() -> Path:
    """Name the folder of the cache: PLANKWISE_CACHE, or `plankwise` in the user's cache folder."""
    named = os.environ.get("PLANKWISE_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "plankwise"


def built_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Let one process build `folder`, readable by its owner alone; everyone else waits and finds it whole.

    They wait at a lock: a barrier gives up after half an hour, and a large corpus takes longer.

    Raises:
        PlankwiseError: of the kind that fits, in every process; `OutputError` if it cannot be written.
    """
    fault: PlankwiseError | None = None
    with ExitStack() as held:
        if is_main_process():
            try:
                folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                held.enter_context(FileLock(f"{folder}.lock"))
            except OSError as error:
                fault = _unwritable(folder, error)
        wait_for_everyone()
        if is_main_process() and fault is None and not _is_whole(folder):
            fault = _built(folder, build)
    if not is_main_process() and folder.parent.exists():
        with FileLock(f"{folder}.lock"):
            pass
    fail_together(fault)


def _built(folder: Path, build: Callable[[Path], None]) -> PlankwiseError | None:
    try:
        with atomic_folder(folder, private=True) as temporary:
            build(temporary)
            write_json(temporary / SIZES, _sizes(temporary))
    except OSError as error:
        return _unwritable(folder, error)
    except PlankwiseError as error:
        return error
    return None


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write to {folder.parent}: {error.strerror or error}")


def _is_whole(folder: Path) -> bool:
    """Tell whether the files of `folder` are as long as they were when it was built."""
    try:
        return bool(json.loads((folder / SIZES).read_text(encoding="utf-8")) == _sizes(folder))
    except (OSError, ValueError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != SIZES}
