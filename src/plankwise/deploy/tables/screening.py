"""Screening: the rows of a table that hold text the model can read, and the faults of the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from plankwise.core.errors import DataError, suggest
from plankwise.core.records import TextsRead
from plankwise.data.batching.inputs import Encoded, Text
from plankwise.data.json_objects import Malformed
from plankwise.data.table_io import Cells, is_text
from plankwise.deploy.tables.resumable import Fault

POLICIES = ("fail", "skip")
MALFORMED, MISSING, NOT_TEXT, EMPTY, OVER_LONG = "malformed", "missing", "not text", "empty", "over-long"


@dataclass(frozen=True)
class InputColumns:
    """The columns of the input.

    Attributes:
        text: the column of the text.
        text_pair: the column of a second text, for pair tasks.
        id: a column to copy to the output; if None, rows are numbered from 1.
        keep: other columns to copy to the output.
    """

    text: str = "text"
    text_pair: str | None = None
    id: str | None = None
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.text == self.text_pair:
            raise DataError(f"the column '{self.text}' is given for both texts of a pair; allowed: two columns")

    @property
    def texts(self) -> list[str]:
        """The columns that the model reads."""
        return [self.text, *([] if self.text_pair is None else [self.text_pair])]

    @property
    def passthrough(self) -> list[str]:
        """The columns that are copied to the output."""
        return [*([] if self.id is None else [self.id]), *self.keep]


@dataclass(frozen=True)
class FaultPolicy:
    """What to do with faulty rows: those without text, with unreadable text, or with more text than the model reads.

    Attributes:
        on_error: `fail` stops at the first one; `skip` leaves them out of the output and lists them by number and fault
            in `OUT.errors.jsonl`.
        truncate: cut texts that are too long, as training does; not needed for windows, which read them whole.
    """

    on_error: str = "fail"
    truncate: bool = False

    def __post_init__(self) -> None:
        if self.on_error not in POLICIES:
            raise DataError(f"no policy on_error '{self.on_error}'; {suggest(self.on_error, POLICIES)}")


@dataclass
class ScreenedBlock:
    """Some consecutive rows of the input.

    Attributes:
        first: number of the first row.
        rows: number of rows.
        texts: of the rows without a fault.
        passthrough: cells that these rows copy to the output.
        numbers: row numbers of these rows.
        faults: of the other rows.
        read: how much of these texts the model is given.
    """

    first: int
    rows: int
    texts: list[Text] = field(default_factory=list)
    passthrough: list[list[Any]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    read: TextsRead = field(default_factory=TextsRead)


def screen(first: int, rows: Sequence[Cells | Malformed], columns: InputColumns) -> ScreenedBlock:
    """Separate the rows that hold text from those with a fault.

    Args:
        first: number of the first row.
        rows: cells of the text columns, then of the copied columns; or what is wrong with a malformed row.
        columns: of the input.
    """
    block, texts = ScreenedBlock(first, len(rows)), len(columns.texts)
    for number, cells in enumerate(rows, first):
        fault = MALFORMED if isinstance(cells, Malformed) else _fault(cells[:texts], cells[texts:])
        if fault is not None or isinstance(cells, Malformed):
            why = {"why": cells} if isinstance(cells, Malformed) else {}
            block.faults.append({"row": number, "fault": fault, **why})
            continue
        block.texts.append(cells[0] if texts == 1 else (cells[0], cells[1]))
        block.passthrough.append(cells[texts:] if columns.id is not None else [number, *cells[texts:]])
        block.numbers.append(number)
    return block


def screen_lengths(block: ScreenedBlock, encoded: Encoded, truncate: bool) -> None:
    """Move texts that are too long to the faults, unless they may be cut, and record how much of the others is read."""
    block.read = encoded.read
    if truncate or not encoded.over_long:
        return
    for index, tokens in encoded.over_long.items():
        block.faults.append({"row": block.numbers[index], "fault": OVER_LONG, "tokens": tokens})
    # Faults of form come before those of length in the list, but rows are reported in the order of the input.
    block.faults.sort(key=lambda fault: int(fault["row"]))
    block.passthrough = [each for index, each in enumerate(block.passthrough) if index not in encoded.over_long]


def describe_fault(fault: Fault, max_length: int) -> str:
    """Describe what is wrong with a row and what can be done about it, without quoting its text."""
    if fault["fault"] == OVER_LONG:
        what = f"over-long, {fault['tokens']} tokens where the model reads {max_length}; --truncate cuts such texts"
    elif fault["fault"] == MALFORMED:
        what = f"{MALFORMED}, {fault['why']}"
    else:
        what = f"{fault['fault']}; allowed: text"
    return f"row {fault['row']}: {what}, --on-error skip leaves such rows out"


def count_characters(cells: Cells | Malformed, columns: InputColumns) -> int:
    """Count the characters of a row's texts."""
    texts = () if isinstance(cells, Malformed) else cells[: len(columns.texts)]
    return sum(len(cell) for cell in texts if isinstance(cell, str))


def _fault(texts: Cells, passthrough: Cells) -> str | None:
    for cell in texts:
        if cell is None:
            return MISSING
        if not is_text(cell):
            return NOT_TEXT
        if not cell.strip():
            return EMPTY
    return None if all(map(_can_be_written, passthrough)) else NOT_TEXT


def _can_be_written(cell: Any) -> bool:
    if isinstance(cell, (list, dict)):  # written as JSON, which may hold text that UTF-8 cannot
        cell = json.dumps(cell, ensure_ascii=False, default=str)
    return not isinstance(cell, str) or is_text(cell)
