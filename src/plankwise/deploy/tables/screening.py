"""Which rows of a table hold text that the model can read, and what becomes of the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from plankwise.core.errors import DataError, suggest
from plankwise.core.records import TextsRead
from plankwise.data.batching.inputs import Encoded, Text
from plankwise.data.table_io import Cells, Malformed, is_text
from plankwise.deploy.tables.resumable import Fault

POLICIES = ("fail", "skip")
MALFORMED, MISSING, NOT_TEXT, EMPTY, OVER_LONG = "malformed", "missing", "not text", "empty", "over-long"


@dataclass(frozen=True)
class Columns:
    """The columns of the input.

    Attributes:
        text: to predict.
        text_pair: of a second text, for pair tasks.
        id: copied to the output; rows are numbered from 1 otherwise.
        keep: copied to the output as well.
    """

    text: str = "text"
    text_pair: str | None = None
    id: str | None = None
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.text == self.text_pair:
            raise DataError(f"the column '{self.text}' is named for both texts of a pair; allowed: two columns")

    @property
    def texts(self) -> list[str]:
        """Those that the model reads."""
        return [self.text, *([] if self.text_pair is None else [self.text_pair])]

    @property
    def passthrough(self) -> list[str]:
        """Those that are copied."""
        return [*([] if self.id is None else [self.id]), *self.keep]


@dataclass(frozen=True)
class Policy:
    """What to do with rows that have a fault: no text, none that can be read, or one longer than the model reads.

    Attributes:
        on_error: `fail` stops at the first; `skip` leaves such rows out of the output and lists them in
            `OUT.errors.jsonl` by number and fault.
        truncate: cut texts that are too long as training does; windows read them whole anyway.
    """

    on_error: str = "fail"
    truncate: bool = False

    def __post_init__(self) -> None:
        if self.on_error not in POLICIES:
            raise DataError(f"no policy on_error '{self.on_error}'; {suggest(self.on_error, POLICIES)}")


@dataclass
class Block:
    """Some rows of the input.

    Attributes:
        first: number of the first.
        rows: how many.
        texts: of those that have one.
        passthrough: of these, what the output shows beside the prediction.
        numbers: of these.
        faults: of the others.
        read: how much of these texts the model is given.
    """

    first: int
    rows: int
    texts: list[Text] = field(default_factory=list)
    passthrough: list[list[Any]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    read: TextsRead = field(default_factory=TextsRead)


def screen(first: int, rows: Sequence[Cells | Malformed], columns: Columns) -> Block:
    """Sort out which rows hold text.

    Args:
        first: number of the first row.
        rows: cells of the text columns, then of those that are carried; or what is wrong with a row out of shape.
        columns: which these are.
    """
    block, texts = Block(first, len(rows)), len(columns.texts)
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


def judge_lengths(block: Block, encoded: Encoded, truncate: bool) -> None:
    """Take out the texts that are too long, unless they may be cut; of the others, note how much is read."""
    block.read = encoded.read
    if truncate or not encoded.over_long:
        return
    for index, tokens in encoded.over_long.items():
        block.faults.append({"row": block.numbers[index], "fault": OVER_LONG, "tokens": tokens})
    block.faults.sort(key=lambda fault: int(fault["row"]))
    block.passthrough = [each for index, each in enumerate(block.passthrough) if index not in encoded.over_long]


def complaint(fault: Fault, max_length: int) -> str:
    """Say what is wrong with a row and what can be done, without its text."""
    if fault["fault"] == OVER_LONG:
        told = f"over-long, {fault['tokens']} tokens where the model reads {max_length}; --truncate cuts such texts"
    elif fault["fault"] == MALFORMED:
        told = f"{MALFORMED}, {fault['why']}"
    else:
        told = f"{fault['fault']}; allowed: text"
    return f"row {fault['row']}: {told}, --on-error skip leaves such rows out"


def characters(cells: Cells | Malformed, columns: Columns) -> int:
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
    if isinstance(cell, (list, dict)):
        cell = json.dumps(cell, ensure_ascii=False, default=str)
    return not isinstance(cell, str) or is_text(cell)
