"""The folder of a search that several workers of one machine share: what they take turns at, and who may join."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from plankwise.core.claims import ExclusiveClaim
from plankwise.core.files import make_writable_folder, write_text
from plankwise.core.paths import found_at, undone_if_refused
from plankwise.core.records import Record
from plankwise.evaluation.benchmark.paired_timing import PairedTiming, time_pairs
from plankwise.run import pipeline
from plankwise.run.pipeline import Checked
from plankwise.search.budget.evaluation import MODELS
from plankwise.search.budget.folder import DEFINITION, LOCK, refuse_taken

DATABASE, LOCKS = "trials.db", ".locks"
ORIGINAL, TIMING, END = "original", "timing", "end"  # what one worker at a time does


@contextmanager
def joined(out: Path, definition: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """Make the folder this search's, or join those that work there already.

    Raises:
        OutputError: if it holds another search or something else, or this very search and `resume` is false.
    """
    found = found_at(out)
    with undone_if_refused(found, lambda: (out / MODELS).exists() or DEFINITION in found.names):
        with claimed_alone(out, resume=resume, definition=definition):
            write_text(out / DEFINITION, yaml.safe_dump(dict(definition), sort_keys=False, allow_unicode=True))
        yield


@contextmanager
def claimed_alone(out: Path, *, resume: bool, definition: Mapping[str, Any]) -> Iterator[None]:
    """Hold the folder while it is looked at and its definition is written."""
    refuse_taken(out, definition, resume=resume)
    make_writable_folder(out)
    claim = ExclusiveClaim(out / LOCK, out, removes_lock=False)
    claim.wait()
    try:
        refuse_taken(out, definition, resume=resume)  # another worker may have been quicker
        yield
    finally:
        claim.release()


@contextmanager
def one_at_a_time(out: Path, what: str) -> Iterator[None]:
    """Wait until no other worker on this machine does the same, and keep it to this one while the context lasts.

    Args:
        out: the search's folder.
        what: is done, such as `timing`.
    """
    (out / LOCKS).mkdir(parents=True, exist_ok=True)
    claim = ExclusiveClaim(out / LOCKS / what, out, removes_lock=False)
    claim.wait()
    try:
        yield
    finally:
        claim.release()


def run_alone(checked: Checked, folder: Path, **how: Any) -> Record:
    """Run a recipe; a worker that needs the same model waits and finds it made."""
    with one_at_a_time(folder.parent.parent, f"model-{folder.name}"):
        return pipeline.run(checked, folder, **how)


def time_alone(folders: Mapping[str, str | Path], texts: Sequence[Any], *, out: Path) -> Mapping[str, PairedTiming]:
    """Time models while no other worker times any; what others train meanwhile slows all models of a round alike."""
    with one_at_a_time(out, TIMING):
        return time_pairs(folders, texts)
