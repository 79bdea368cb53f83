"""Which errors people label: a seeded sample of the false positives and false negatives of both models.

The thesis (Jäger) labels 100 of each kind and model by error class. Both models' samples follow one random order of all
examples, so that an error which both make is drawn for both, and labelled once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from plankwise.core.errors import DataError, suggest
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.metrics import decide

Kind = Literal["false positive", "false negative"]
KINDS: tuple[Kind, ...] = ("false positive", "false negative")
MODELS = ("baseline", "compressed")
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class DrawnError:
    """One example that a model gets wrong.

    Attributes:
        row: its index in the split.
        kind: of the error, with respect to the class that is reviewed.
        predicted: wrong classes that were chosen for it, one or two.
        models: whose samples it is in.
    """

    row: int
    kind: Kind
    predicted: tuple[int, ...]
    models: tuple[str, ...]


@dataclass(frozen=True)
class Drawn:
    """A sample of errors.

    Attributes:
        errors: each example once, in the order in which they are shown.
        counts: of each model and kind, how many errors there are and how many were drawn.
    """

    errors: tuple[DrawnError, ...]
    counts: dict[str, dict[Kind, tuple[int, int]]]


def reviewed_class(labels: NDArray[np.int64], classes: Sequence[str], wanted: str | None) -> int:
    """Return the index of the class whose false positives and negatives are drawn.

    Args:
        labels: of the examples.
        classes: names, by index.
        wanted: a name; by default the rarer one of two.

    Raises:
        DataError: if there is no such class, or there are more than two and none is named.
    """
    if wanted is not None:
        if wanted not in classes:
            raise DataError(f"--class {wanted}: {suggest(wanted, classes)}")
        return list(classes).index(wanted)
    if len(classes) > 2:
        raise DataError(f"there are {len(classes)} classes; name one with --class: {', '.join(classes)}")
    return int(np.bincount(labels, minlength=2).argmin())


def draw_errors(pair: Pair, index: int, count: int, seed: int) -> Drawn:
    """Draw up to `count` false positives and as many false negatives of each model.

    Args:
        pair: labels and logits of both models, of a task with one label for each example.
        index: of the class that is reviewed.
        count: of each kind and model; where there are fewer, all are taken.
        seed: of the order.
    """
    order = np.random.default_rng(seed).permutation(len(pair.labels))
    chosen = {"baseline": decide(pair.baseline), "compressed": decide(pair.compressed)}
    drawn: dict[tuple[int, Kind], list[str]] = {}
    counts: dict[str, dict[Kind, tuple[int, int]]] = {}
    for model in MODELS:
        counts[model] = {}
        for kind in KINDS:
            wrong = _errors(pair.labels, chosen[model], index, kind)
            rows = [int(row) for row in order if wrong[row]][:count]
            counts[model][kind] = (int(wrong.sum()), len(rows))
            for row in rows:
                drawn.setdefault((row, kind), []).append(model)
    errors = [
        DrawnError(row, kind, _predicted(row, models, chosen), tuple(models)) for (row, kind), models in drawn.items()
    ]
    shown = np.random.default_rng(seed + 1).permutation(len(errors))  # the order must not tell which model erred
    return Drawn(tuple(errors[each] for each in shown), counts)


def _errors(labels: NDArray[np.int64], chosen: NDArray[np.int64], index: int, kind: Kind) -> Flags:
    if kind == "false positive":
        return np.asarray((chosen == index) & (labels != index))
    return np.asarray((labels == index) & (chosen != index))


def _predicted(row: int, models: Sequence[str], chosen: dict[str, NDArray[np.int64]]) -> tuple[int, ...]:
    """Return the wrong classes in a fixed order, so that it does not tell which model chose which."""
    return tuple(sorted({int(chosen[model][row]) for model in models}))
