"""The cache: folders that one process builds and all others read, either complete or absent."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from plankwise.core.claims import ExclusiveClaim
from plankwise.core.distributed import fail_together, is_main_process, wait_for_everyone
from plankwise.core.errors import OutputError, PlankwiseError
from plankwise.core.files import atomic_folder, write_json

SIZES = "sizes.json"  # in every folder of the cache: the sizes in bytes of its other files


def cache_folder() -> Path:
    """Return the folder of the cache: PLANKWISE_CACHE, or `plankwise` in the user's cache folder."""
    named = os.environ.get("PLANKWISE_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "plankwise"


def built_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Build `folder` in one process unless it is complete, while all other processes wait for it.

    All processes of a run have to call this. Other runs that need the same folder wait as well.

    Args:
        folder: in the cache; readable by its owner alone.
        build: fills a temporary folder, which then takes the place of `folder`.

    Raises:
        PlankwiseError: in every process, if `build` raised one.
        OutputError: in every process, if the folder cannot be written.
    """
    claim = ExclusiveClaim(Path(f"{folder}.lock"), folder, removes_lock=False)
    fault: PlankwiseError | None = None
    with ExitStack() as stack:
        if is_main_process():
            try:
                folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                claim.wait()
                stack.callback(claim.release)
            except OSError as error:
                fault = _unwritable(folder, error)
        wait_for_everyone()  # from here on the main process holds the claim
        if is_main_process() and fault is None and not _is_complete(folder):
            fault = _built(folder, build)
    if not is_main_process() and folder.parent.exists():
        claim.wait()  # not at a barrier, which gives up after half an hour: a large corpus takes longer
        claim.release()
    fail_together(fault)


def _built(folder: Path, build: Callable[[Path], None]) -> PlankwiseError | None:
    """Build the folder and return the error, if there was one, for all processes to raise."""
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


def _is_complete(folder: Path) -> bool:
    """Return whether the files of `folder` have the sizes that they had when it was built."""
    try:
        return bool(json.loads((folder / SIZES).read_text(encoding="utf-8")) == _sizes(folder))
    except (OSError, ValueError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != SIZES}
