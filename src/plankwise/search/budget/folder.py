"""The folder of a search under a budget: it belongs to one search, and one process at a time writes to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from plankwise.core.claims import ExclusiveClaim
from plankwise.core.documents import read_yaml
from plankwise.core.errors import OutputError
from plankwise.core.files import contents, make_writable_folder, write_text
from plankwise.core.paths import check_folder, found_at, undone_if_refused
from plankwise.search.budget.log import FOLDER as CANDIDATES

DEFINITION, LOCK = "search.yaml", ".lock"


def refuse_taken(out: Path, definition: Mapping[str, Any] | None, *, resume: bool) -> None:
    """Refuse a folder that cannot be this search's; nothing is written.

    Args:
        out: the folder.
        definition: what makes the search different from others, as plain values; None where it is not known yet.
        resume: whether the folder may hold this very search.

    Raises:
        OutputError: if it cannot be written to, holds something else, or this search and `resume` is false.
    """
    check_folder(out)
    present = contents(out) - {LOCK}
    if not present:
        return
    if DEFINITION not in present:
        raise OutputError(f"{out} holds files that are not of a search; choose an empty or a new folder")
    if definition is not None:
        known = read_yaml(out / DEFINITION, "the search")[1]
        differing = [key for key in definition if not isinstance(known, dict) or known.get(key) != definition[key]]
        if differing:
            raise OutputError(
                f"{out} holds another search (it differs in {', '.join(differing)}); choose another folder"
            )
    if not resume:
        raise OutputError(f"{out} holds a search already; add --resume to continue it")


@contextmanager
def claimed(out: Path, definition: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """Claim the folder for this search while the context lasts.

    Raises:
        OutputError: as `refuse_taken` does, or if another process is at work there.
    """
    refuse_taken(out, definition, resume=resume)
    with ExitStack() as stack:
        found = found_at(out)
        make_writable_folder(out)
        stack.enter_context(ExclusiveClaim(out / LOCK, out))
        stack.enter_context(undone_if_refused(found, lambda: (out / CANDIDATES).exists()))
        write_text(out / DEFINITION, yaml.safe_dump(dict(definition), sort_keys=False, allow_unicode=True))
        yield
