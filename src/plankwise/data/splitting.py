"""Cutting one split off another: seeded and stratified, and every label that is cut off also stays in train.

Rows of one label each are cut by scikit-learn; rows of several by iterative stratification (Sechidis, Tsoumakas,
Vlahavas 2011, "On the Stratification of Multi-Label Data"). Rows with a score are cut by chance alone.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from plankwise.core.errors import DataError
from plankwise.data.tasks.labels import shown_counts

# id, text, text_pair (or None), label: a name, a list of names for multi-label, or a number.
LabelledText = dict[str, Any]
logger = logging.getLogger(__name__)


def labels_of(row: LabelledText) -> list[Any]:
    """Return the labels of a row as a list; of a row with a score that alone."""
    label = row["label"]
    return list(label) if isinstance(label, list) else [label]


def cut(
    rows: Sequence[LabelledText], share: float, seed: int, what: str, secret: bool = False
) -> tuple[list[LabelledText], list[LabelledText]]:
    """Cut a seeded share off some rows, stratified by label; every label of the rows taken occurs in those kept.

    Rows with a label that no other row has are kept and logged; the share is taken of the other rows.

    Args:
        rows: to cut.
        share: of them to take.
        seed: of the choice.
        what: name of the split that is cut off, for messages.
        secret: whether labels are left out of messages.

    Returns:
        The rows kept and those taken.

    Raises:
        DataError: if there are too few rows.
    """
    scored = bool(rows) and isinstance(rows[0]["label"], float)
    counts = Counter(label for row in rows for label in set(labels_of(row)) if not scored)
    single = {label for label, count in counts.items() if count == 1}
    rare = [row for row in rows if single.intersection(labels_of(row))]
    common = [row for row in rows if not single.intersection(labels_of(row))]
    try:
        kept, taken = _divide(common, share, seed)
    except ValueError:
        why = f", {len(rare)} of which have a label of their own" if rare and len(rows) > 1 else ""
        raise DataError(
            f"{what}: cannot cut {share:.0%} off {len(rows)} rows{why}; give this split as a file"
        ) from None
    back, taken = ([], taken) if scored else _unlearnable([*kept, *rare], taken)
    for held, why in ((rare, "stay in train, being the only ones"), (back, "go back to train, which has no other")):
        if held:
            some = Counter(chain.from_iterable(map(labels_of, held)))
            few = [(label, count) for label, count in some.items() if held is back or label in single]
            shown = "" if secret else f": {shown_counts(few)}"
            logger.warning("%s: %d rows %s of their labels%s", what, len(held), why, shown)
    return [*kept, *rare, *back], taken


def _divide(rows: list[LabelledText], share: float, seed: int) -> tuple[list[LabelledText], list[LabelledText]]:
    if rows and isinstance(rows[0]["label"], list):
        taken = iteratively_stratified([labels_of(row) for row in rows], share, seed)
        if taken.all() or not taken.any():
            raise ValueError("nothing on one side")
        return [rows[at] for at in np.flatnonzero(~taken)], [rows[at] for at in np.flatnonzero(taken)]
    keys = [row["label"] for row in rows if not isinstance(row["label"], float)]
    counts = Counter(keys)
    smaller = min(round(share * len(rows)), len(rows) - round(share * len(rows)))
    stratify = keys if len(counts) > 1 and smaller >= len(counts) else None
    kept, taken = train_test_split(rows, test_size=share, random_state=seed, shuffle=True, stratify=stratify)
    return kept, taken


def _unlearnable(kept: list[LabelledText], taken: list[LabelledText]) -> tuple[list[LabelledText], list[LabelledText]]:
    """Split `taken` into rows that must go back, because no kept row has their label, and the rest.

    Stratification alone does not prevent this where the share is large or labels are many.
    """
    seen = set(chain.from_iterable(map(labels_of, kept)))
    back: list[LabelledText] = []
    rest: list[LabelledText] = []
    for row in taken:
        missing = set(labels_of(row)) - seen
        (back if missing else rest).append(row)
        seen |= missing
    return back, rest


def iteratively_stratified(labels: Sequence[Sequence[str]], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose rows of several labels such that each label gives its share, the rarest label first.

    Args:
        labels: of each row.
        share: of the rows to take.
        seed: of the order of the rows and of ties.

    Returns:
        Whether each row is taken.
    """
    draw = np.random.default_rng(seed)
    names = sorted(set(chain.from_iterable(labels)))
    flags = np.array([[name in row for name in names] for row in map(set, labels)], bool).reshape(
        len(labels), len(names)
    )
    order = draw.permutation(len(labels))
    taken = math.ceil(share * len(labels) - 1e-9)  # as scikit-learn rounds; 1e-9 absorbs errors of the product
    room = np.array([len(labels) - taken, taken])
    wanted = room[:, None] / len(labels) * flags.sum(axis=0)  # of each label, [sides, labels]
    left, side = flags.sum(axis=0), np.full(len(labels), -1)
    while True:
        here = int(np.argmin(np.where(left > 0, left, len(labels) + 1))) if left.any() else None
        for row in order[(side[order] < 0) & (flags[order, here] if here is not None else True)]:
            side[row] = _neediest(wanted[:, here] if here is not None else room, room, draw)
            wanted[side[row]] -= flags[row]
            room[side[row]] -= 1
            left -= flags[row]
        if here is None:
            chosen: NDArray[np.bool_] = side == 1
            return chosen


def _neediest(wanted: NDArray[Any], room: NDArray[Any], draw: np.random.Generator) -> int:
    """Return the side with room that wants a label most; ties go to the one with more room, then to chance."""
    open_ = np.flatnonzero(room > 0)
    for need in (wanted, room):
        open_ = open_[need[open_] > need[open_].max() - 1e-9]
    return int(open_[0] if len(open_) == 1 else draw.choice(open_))
