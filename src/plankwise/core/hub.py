"""The Hub, or none: one quick look whether it can be reached, instead of half a minute of retries."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_session, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from plankwise.core.errors import ModelError

SECONDS_TO_ANSWER = 2.0
_SECONDS_VALID = 60.0  # a network that comes back is found again
_TIMEOUT = "HF_HUB_ETAG_TIMEOUT"
_seen: tuple[float, bool] | None = None


def reachable() -> bool:
    """Return whether the Hub answers within two seconds, or within HF_HUB_ETAG_TIMEOUT if that is set."""
    global _seen
    if constants.is_offline_mode():
        return False
    if _seen is None or time.monotonic() - _seen[0] > _SECONDS_VALID:
        _seen = (time.monotonic(), _answers(float(os.environ.get(_TIMEOUT) or SECONDS_TO_ANSWER)))
    return _seen[1]


def _answers(seconds: float) -> bool:
    """Ask for the Hub's front page; looking up a name heeds no timeout, so this waits from outside."""
    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=seconds)
        except Exception:  # whatever kind the client raises, there was no answer
            return
        answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answered.is_set()


def where_to_read(source: str) -> str:
    """Return where a model can be read from: `source` itself, or the cached copy of a Hub id that is out of reach.

    Raises:
        ModelError: if it is neither a folder, nor in the cache, and the Hub cannot be asked.
    """
    if Path(source).exists() or (not looks_like_path(source) and reachable()):
        return source
    try:
        found = try_to_load_from_cache(source, "config.json")
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise ModelError(absent(source))
    return str(Path(found).parent)


def looks_like_path(source: str) -> bool:
    """Distinguish a path from a Hub id, `NAME` or `OWNER/NAME`."""
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or Path(source).exists()


def absent(source: str) -> str:
    """Say that `source` is not here and, if it may be a Hub id, that it cannot be fetched."""
    if looks_like_path(source):
        return f"there is no folder {source}"
    why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{constants.ENDPOINT} cannot be reached"
    return f"there is no folder {source}; if it is meant as a Hub id, it is not in the cache, and {why}"


@contextmanager
def datasets_offline() -> Iterator[None]:
    """Let `datasets` look into its cache at once where the Hub cannot be reached; it has no argument for that."""
    import datasets  # takes a second, and models need it not

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = not reachable() or before[1]
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
