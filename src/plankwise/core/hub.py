"""The Hugging Face Hub: one short test whether it can be reached, instead of half a minute of retries."""

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
_SECONDS_VALID = 60.0  # then the Hub is tried again
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
    """Request the Hub's front page in a thread: the look-up of a host name has no timeout of its own."""
    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=seconds)
        except Exception:  # the HTTP client raises many kinds; all of them mean no answer
            return
        answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answered.is_set()


def where_to_read(source: str) -> str:
    """Return where a model can be read from: `source`, or the cached copy of a Hub id if the Hub cannot be reached.

    Raises:
        ModelError: if it is neither a folder nor in the cache, and the Hub cannot be reached.
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
    """Return whether `source` is a path and not a Hub id, which is `NAME` or `OWNER/NAME`."""
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or Path(source).exists()


def absent(source: str) -> str:
    """Return the message for a `source` that does not exist; for a possible Hub id, also why it cannot be fetched."""
    if looks_like_path(source):
        return f"there is no folder {source}"
    why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{constants.ENDPOINT} cannot be reached"
    return f"there is no folder {source}; if it is meant as a Hub id, it is not in the cache, and {why}"


@contextmanager
def datasets_offline() -> Iterator[None]:
    """Make `datasets` use its cache at once while the Hub cannot be reached; it has no argument for that."""
    import datasets  # takes a second to import, and models do not need it

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = not reachable() or before[1]
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
