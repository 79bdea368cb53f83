"""The same text in two splits: counted, said, and dropped from the earlier one where that is asked for."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from plankwise.data.cutting import Row, labels_of

logger = logging.getLogger(__name__)
Text = tuple[str, str]
PAIRS = (("development", "test"), ("train", "test"), ("train", "development"))
MEND = "`deduplicate: true` in the task, or --deduplicate, drops such rows from"


def without_overlap(name: str, splits: Mapping[str, list[Row]], drop: bool) -> dict[str, list[Row]]:
    """Count the rows whose text is in an earlier split too, say how many, and drop these there on request.

    Texts, or pairs of texts, are the same if they differ in case and spaces at most. Rows of test are never dropped.

    Args:
        name: of the task.
        splits: rows of train, development and test.
        drop: leave rows of train and development out whose text is in a later split.

    Returns:
        The splits.
    """
    kept = dict(splits)
    for earlier, later in PAIRS:
        one, other = (later, earlier) if not drop else (earlier, later)
        shared = _shared(kept[one], kept[other])
        if not any(shared):
            continue
        conflicting = sum(
            known is not None and known != {_label(row)} for row, known in zip(kept[one], shared, strict=True)
        )
        labels = f" ({conflicting} with another label there)" if conflicting else ""
        count, rows = len(shared) - shared.count(None), len(shared)
        if drop:
            kept[earlier] = [row for row, known in zip(kept[earlier], shared, strict=True) if known is None]
            logger.warning(
                "%s: %d of %d rows of %s dropped, their text is in %s too%s", name, count, rows, one, other, labels
            )
        else:
            logger.warning(
                "%s: %d of %d rows of %s have a text that is in %s too%s; %s %s",
                *(name, count, rows, one, other, labels, MEND, earlier),
            )
    return kept


def _shared(rows: Sequence[Row], others: Sequence[Row]) -> list[set[frozenset[str]] | None]:
    """Return for each row which labels its text has among the others, or nothing where it is not among them."""
    known: defaultdict[Text, set[frozenset[str]]] = defaultdict(set)
    for row in others:
        known[_text(row)].add(_label(row))
    return [known.get(_text(row)) for row in rows]


def _text(row: Row) -> Text:
    return _folded(row["text"]), _folded(row.get("text_pair") or "")


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _label(row: Row) -> frozenset[str]:
    return frozenset(labels_of(row))
