"""Cells of a table as labels of a fine-tuned classifier, matched by name and never by position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from plankwise.core.errors import DataError, suggest
from plankwise.data.tasks.labels import folded, parts_of, plain, read_label, shown_counts

SEPARATORS = ("|", ";", ",")
NO_LABELS = "--label '' leaves the rows unlabelled"
_MAX_SHOWN = 60  # characters of a label; anything longer may be a text, which no message quotes
_MAX_DISTINCT = 50  # values of a column of labels; a column with more may hold texts


def read_names(options: Iterable[str]) -> dict[str, str]:
    """Read the options `--map RAW=LABEL`.

    Example:
        >>> read_names(["0=hate", "1=none"])
        {'0': 'hate', '1': 'none'}

    Raises:
        DataError: if one is not of this form, or one raw label is mapped twice.
    """
    names: dict[str, str] = {}
    for option in options:
        raw, equals, label = (part.strip() for part in option.partition("="))
        if not (raw and equals and label):
            raise DataError(f"--map '{option}' is not of the form RAW=LABEL, such as 0=hate")
        if names.get(plain(raw), label) != label:
            raise DataError(f"--map names '{raw}' twice, as '{names[plain(raw)]}' and as '{label}'; allowed: once")
        names[plain(raw)] = label
    return names


class LabelMatcher:
    """Finds the label of the model that a raw label means, and remembers which names of the mapping were of use.

    A raw label is matched by the mapping, else as it is written, else ignoring case, spaces and Unicode form. A number
    is a name like any other: "0" is neither the first label nor `LABEL_0`.
    """

    def __init__(self, labels: Sequence[str], names: Mapping[str, str] | None = None) -> None:
        """Check the mapping.

        Args:
            labels: of the model.
            names: from raw labels to labels of the model.

        Raises:
            DataError: if a raw label is mapped to a label that the model does not have.
        """
        self.labels, self._used = tuple(labels), set[str]()
        self._found: dict[tuple[type, str], tuple[str, str | None]] = {}
        self._names: dict[str, str] = {}
        for raw, name in (names or {}).items():
            target = self._by_name(name)
            if target is None:
                raise DataError(f"--map {raw}={name}: the model has no label '{name}'; {suggest(name, labels)}")
            self._names[plain(raw)] = target
        self._known = {*map(plain, labels), *self._names}

    def match(self, raw: Any) -> str | None:
        """Return the label of the model that a raw label means, or None if it means none of them.

        Raises:
            ValueError: if the cell is not a label, saying why; see `read_label`.
        """
        written, label = self._find(raw)
        self._used.add(plain(written))
        return label

    def fits(self, raws: Iterable[Any]) -> bool:
        """Return whether each of some raw labels means a label of the model; this counts as no use of the mapping."""
        try:
            return all(self._find(raw)[1] is not None for raw in raws)
        except ValueError:
            return False

    def check_used(self) -> None:
        """Refuse a mapping of which a raw label was never met.

        Raises:
            DataError: naming it.
        """
        unused = [raw for raw in self._names if raw not in self._used]
        if unused:
            raise DataError(f"--map {unused[0]}={self._names[unused[0]]}: no row has the label '{unused[0]}'")

    def mismatch(self, unknown: Counter[str], column: str, where: str) -> DataError:
        """Return the error for raw labels that mean no label of the model, with both lists.

        Args:
            unknown: these, as they are written, with their counts.
            column: that holds them.
            where: path of the table.
        """
        if len(unknown) > _MAX_DISTINCT or any(len(each) > _MAX_SHOWN for each in unknown):
            shown, example = f"holds {len(unknown)} values that are not labels of the model", "RAW"
        else:
            shown = f"holds labels that the model does not have: {shown_counts(unknown.most_common())}"
            example = min(unknown)
        return DataError(
            f"{where}: the column '{column}' {shown}; the model's are {', '.join(self.labels)}. Labels are matched by "
            f"name: give --map '{example}=LABEL' for each, or --label for another column; {NO_LABELS}"
        )

    def _find(self, raw: Any) -> tuple[str, str | None]:
        """Return a raw label as it is written, and the label of the model that it means."""
        key = (type(raw), str(raw))  # 1, 1.0 and True are equal, but are not written alike
        if key not in self._found:
            written = read_label(raw, self._known)
            self._found[key] = written, self._names.get(plain(written)) or self._by_name(written)
        return self._found[key]

    def _by_name(self, name: str) -> str | None:
        if name in self.labels:
            return name
        alike = [label for label in self.labels if folded(label) == folded(name)]
        return alike[0] if len(alike) == 1 else None


def is_unlabelled(cell: Any) -> bool:
    """Return whether a label cell is empty. An empty list is not: it says that none of the labels applies."""
    return not isinstance(cell, (list, dict)) and not folded(plain(cell))


def raw_labels(cell: Any, several: bool, separator: str | None) -> list[Any]:
    """Return the raw labels in a cell.

    Args:
        cell: of a label column.
        several: whether a row may have any number of labels.
        separator: between several labels in one string.
    """
    if not several:
        return [cell]
    if isinstance(cell, list) or separator is not None:
        return parts_of(cell, separator or SEPARATORS[0])
    return [cell]


def guess_separator(cells: Iterable[Any], matcher: LabelMatcher, where: str) -> str | None:
    """Return what separates the labels in the cells of a multi-label column, or None if no cell holds several.

    A separator is one by which every cell falls into labels of the model. If there is none, the first that occurs is
    returned, so that the labels that do not fit can be named.

    Raises:
        DataError: if there are two.
    """
    written = {str(cell) for cell in cells if not isinstance(cell, list) and not is_unlabelled(cell)}
    there = [each for each in SEPARATORS if any(each in cell for cell in written)]
    whole: list[str | None] = [None] if matcher.fits(written) else []
    fitting = [each for each in there if matcher.fits(chain.from_iterable(parts_of(cell, each) for cell in written))]
    if len(whole) + len(fitting) > 1:
        shown = " or ".join("one label a row" if each is None else f"'{each}'" for each in (*whole, *fitting))
        raise DataError(f"{where}: its labels are separated by {shown}; choose by --label-separator")
    return next(iter((*whole, *fitting, *there)), None)
