"""Cells of a table as scores, for a model that answers with a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from plankwise.core.errors import DataError
from plankwise.data.given.labels import NO_LABELS
from plankwise.data.tasks.scores import read_score


class ScoreMatcher:
    """Reads numbers where a `LabelMatcher` finds labels; there is nothing to map."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        """Refuse a mapping.

        Raises:
            DataError: if there is one.
        """
        if names:
            raise DataError("--map is for labels, and the model answers with a score; leave it out")

    def match(self, raw: Any) -> float:
        """Return the score in a cell.

        Raises:
            ValueError: if it holds none, saying why.
        """
        return read_score(raw)

    def fits(self, raws: Iterable[Any]) -> bool:
        """Return whether all cells are scores."""
        try:
            return all(isinstance(read_score(raw), float) for raw in raws)
        except ValueError:
            return False

    def check_used(self) -> None:
        """Do nothing: there is no mapping that could be of no use."""

    def mismatch(self, unknown: Counter[str], column: str, where: str) -> DataError:
        """Return the error for cells that are no scores; `match` has refused them before."""
        return DataError(f"{where}: the column '{column}' holds {len(unknown)} cells without a score; {NO_LABELS}")
