"""The candidates of a search on disk: one file each, written before the work begins and again when it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydantic

from plankwise.core.errors import CheckpointError
from plankwise.core.files import read_text, write_json
from plankwise.search.budget.candidate import Candidate, Failure, Outcome

FOLDER = "candidates"


class _Stored(pydantic.BaseModel):
    candidate: Candidate
    outcome: Outcome | None = None
    failure: Failure | None = None


class CandidateLog:
    """Every candidate that was proposed, in order. A killed search finds here what it was about to do.

    Args:
        folder: of the search.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._stored = list(self._read())

    @property
    def outcomes(self) -> list[Outcome]:
        """What was measured so far."""
        return [each.outcome for each in self._stored if each.outcome is not None]

    @property
    def failures(self) -> list[Failure]:
        """What could not be measured."""
        return [each.failure for each in self._stored if each.failure is not None]

    @property
    def pending(self) -> Candidate | None:
        """The candidate that a killed search was working on."""
        last = self._stored[-1] if self._stored else None
        return None if last is None or last.outcome or last.failure else last.candidate

    @property
    def candidates(self) -> list[Candidate]:
        """All that were proposed."""
        return [each.candidate for each in self._stored]

    def propose(self, candidate: Candidate) -> None:
        """Note a candidate before any work on it."""
        if self.pending == candidate:
            return
        self._stored.append(_Stored(candidate=candidate))
        self._write()

    def finish(self, found: Outcome | Failure) -> None:
        """Note what was measured of the candidate that was proposed last."""
        last = self._stored[-1]
        if isinstance(found, Outcome):
            last.outcome = found
        else:
            last.failure = found
        self._write()

    def _write(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        last = self._stored[-1].model_dump(mode="json")
        write_json(self._folder / f"{len(self._stored):03d}.json", last)

    def _read(self) -> Iterator[_Stored]:
        for path in sorted(self._folder.glob("*.json")):
            try:
                yield _Stored.model_validate_json(read_text(path))
            except (OSError, pydantic.ValidationError) as error:
                raise CheckpointError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
