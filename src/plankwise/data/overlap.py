"""Texts that are in two splits: counted, logged, and on request dropped from the earlier split."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Mapping

from plankwise.data.splitting import LabelledText, labels_of

logger = logging.getLogger(__name__)
PAIRS = (("development", "test"), ("train", "test"), ("train", "development"))
ADVICE = "`deduplicate: true` in the task, or --deduplicate, drops such rows from"


def without_overlap(name: str, splits: Mapping[str, list[LabelledText]], drop: bool) -> dict[str, list[LabelledText]]:
    """Log how many rows have a text that is in another split too, and on request drop them from the earlier split.

    Texts, or pairs of texts, are the same if they differ at most in case and white space. Rows of test are never
    dropped.

    Args:
        name: of the task.
        splits: rows of train, development and test.
        drop: whether rows of train and development are dropped if their text is in a later split.

    Returns:
        The splits.
    """
    kept = dict(splits)
    keys = {part: list(map(text_key, rows)) for part, rows in kept.items()}
    for earlier, later in PAIRS:
        one, other = (earlier, later) if drop else (later, earlier)
        known: defaultdict[bytes, set[frozenset[str]]] = defaultdict(set)
        for key, row in zip(keys[other], kept[other], strict=True):
            known[key].add(frozenset(labels_of(row)))
        shared = [(row, known[key]) for key, row in zip(keys[one], kept[one], strict=True) if key in known]
        if not shared:
            continue
        conflicting = sum(labels != {frozenset(labels_of(row))} for row, labels in shared)
        with_other = f" ({conflicting} with another label there)" if conflicting else ""
        said = (name, len(shared), len(kept[one]), one)
        if drop:
            logger.warning("%s: %d of %d rows of %s dropped, their text is in %s too%s", *said, other, with_other)
            kept[one] = [row for key, row in zip(keys[one], kept[one], strict=True) if key not in known]
            keys[one] = [key for key in keys[one] if key not in known]
        else:
            shown = "%s: %d of %d rows of %s have a text that is in %s too%s; %s %s"
            logger.warning(shown, *said, other, with_other, ADVICE, earlier)
    return kept


def text_key(row: LabelledText) -> bytes:
    """Hash the text or texts of a row, ignoring case and white space."""
    texts = (row["text"], row.get("text_pair") or "")
    folded = "\0".join(" ".join(text.split()).casefold() for text in texts)
    return hashlib.blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=16).digest()
