"""Tables of many kinds as one stream of rows, read a little at a time; nothing here quotes what is in a cell.

The one reader of tables with labels and of tables to predict.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from plankwise.core.errors import DataError, suggest
from plankwise.core.paths import check_file
from plankwise.data.text_files import (
    COMPRESSED,
    DELIMITERS,
    FAULTS,
    TextFormat,
    checked_lines,
    kind_of,
    open_packed,
    open_parquet,
    open_text,
    reason_of,
    refuse_kind,
)

Cells = list[Any]  # of the columns that were asked for, in their order
Malformed = str  # what is wrong with the shape of a row
Reader = Callable[[IO[bytes], Path, Sequence[str], TextFormat], Iterator["Cells | Malformed"]]
KINDS = (".csv", ".tsv", ".jsonl", ".parquet")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
_ROWS_AT_ONCE = 256


def check_kind(path: Path) -> None:
    """Refuse a file whose name does not say that it is a table.

    Raises:
        DataError: naming what is allowed.
    """
    if kind_of(path) not in KINDS:
        raise refuse_kind(path, KINDS)


def read_rows(
    path: Path, columns: Sequence[str], form: TextFormat | None = None, sparse: bool = False
) -> Iterator[Cells | Malformed]:
    """Read the cells of some columns row by row, in the order of the file.

    Blank lines are no rows. In JSON lines a key that a row lacks is null.

    Args:
        path: of a kind in `KINDS`.
        columns: to read.
        form: of the text.
        sparse: whether it is enough that any row of JSON lines has a key; otherwise the first row has to have all.

    Raises:
        DataError: if the file cannot be read, lacks a column or is not a table.
    """
    form = form or TextFormat()
    readers: dict[str, Reader] = {
        ".csv": _separated,
        ".tsv": _separated,
        ".jsonl": partial(_json_lines, sparse=sparse),
        ".parquet": _parquet,
    }
    try:
        with open_packed(path) as file:
            yield from readers[kind_of(path)](file, path, columns, form)
    except FAULTS as error:
        raise DataError(f"cannot read {path}: {reason_of(error, path, form.encoding)}") from None


def read_table(path: Path, columns: Sequence[str], form: TextFormat | None = None) -> dict[str, list[Any]]:
    """Read some columns of a table into memory; cells of CSV and TSV are strings, empty ones too.

    Raises:
        DataError: if the file is missing, of another kind, or malformed; rows are named by number.
    """
    check_kind(path)
    rows: list[Cells] = []
    for number, row in enumerate(read_rows(path, columns, form, sparse=True), 1):
        if isinstance(row, Malformed):
            raise DataError(f"{path}, row {number}: {row}")
        rows.append(row)
    return (
        dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)) if rows else {each: [] for each in columns}
    )


def separated_rows(
    lines: Iterable[str],
    path: Path,
    columns: Sequence[str],
    separator: str,
    swallowing: bool = False,
) -> Iterator[Cells | Malformed]:
    """Read rows of CSV or TSV.

    Args:
        lines: of the table.
        path: for messages.
        columns: to read.
        separator: between cells.
        swallowing: allow cells that hold tabs and line breaks; in TSV these are most likely other rows.

    Raises:
        DataError: if a column is not there, or a quote is out of place.
    """
    csv.field_size_limit(sys.maxsize)
    rows, began = csv.reader(lines, delimiter=separator, strict=True), 1
    try:
        header = next(rows, [])
        _check_delimiter(path, columns, header, separator)
        check_columns(path, columns, header)
        places = [header.index(column) for column in columns]
        began = rows.line_num + 1
        for row in rows:
            if not swallowing and separator == "\t" and any("\t" in cell and "\n" in cell for cell in row):
                raise DataError(f"{path}: a quote near line {began} opens a cell over tabs and lines; double it")
            if len(row) == len(header):
                yield [row[place] for place in places]
            elif len(row) > 1 or "".join(row).strip():
                yield f"{len(row)} cells, the header has {len(header)} (near line {began})"
            began = rows.line_num + 1
    except csv.Error as error:
        what = "a NUL" if "NUL" in str(error) else "a quote"  # NULs up to Python 3.10
        raise DataError(f"{path}: not a table; {what} is out of place near line {began}") from None


def _separated(file: IO[bytes], path: Path, columns: Sequence[str], form: TextFormat) -> Iterator[Cells | Malformed]:
    separator = form.delimiter or SEPARATORS[kind_of(path)]
    with open_text(file, form.encoding, newline="") as read:
        yield from separated_rows(checked_lines(read, path, form.encoding), path, columns, separator)


def _check_delimiter(path: Path, columns: Sequence[str], header: Sequence[str], separator: str) -> None:
    """Refuse a header of one column that holds what separates the cells of other tables."""
    others = [each for each in DELIMITERS if each != separator and each in "".join(header)]
    if len(header) != 1 or not others or header[0] in columns:
        return
    shown = {"\t": "tabs"}.get(others[0], f"'{others[0]}'")
    if kind_of(path) == ".tsv":
        mend = "name the file .csv" if others[0] == "," else f'name the file .csv and give delimiter: "{others[0]}"'
    else:
        mend = f"give delimiter: {json.dumps(others[0])}"
    raise DataError(f"{path}: its header is one column that holds {shown}; {mend}")


def _json_lines(
    file: IO[bytes], path: Path, columns: Sequence[str], form: TextFormat, sparse: bool
) -> Iterator[Cells | Malformed]:
    known: dict[str, None] = {}
    with open_text(file, form.encoding, newline="\n") as read:
        for line in checked_lines(read, path, form.encoding):
            if not line.strip():
                continue
            row = parse_object(line)
            if isinstance(row, Malformed):
                yield row
                continue
            if not known and not sparse:
                check_columns(path, columns, list(row))
            if not known or sparse:
                known.update(dict.fromkeys(row))
            yield [row.get(column) for column in columns]
    if sparse:
        check_columns(path, columns, list(known))


def parse_object(line: str) -> dict[str, Any] | Malformed:
    """Parse a line of JSON that is to hold an object, or return what is wrong with it."""
    try:
        row = _DECODER.decode(line.strip())
    except _TwiceError:
        return "a key is there twice"
    except (ValueError, RecursionError):
        return "not a line of JSON"
    return row if isinstance(row, dict) else "not a JSON object"


class _TwiceError(ValueError):
    """Two keys of one name in one object, of which Python would keep the last."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _TwiceError
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def is_text(value: object) -> bool:
    """Return whether a value is a string that UTF-8 can hold, without NULs; JSON can hold half a surrogate pair."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _parquet(file: IO[bytes], path: Path, columns: Sequence[str], form: TextFormat) -> Iterator[Cells]:
    with open_parquet(file, path) as table:
        check_columns(path, columns, table.schema_arrow.names)
        for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(dict.fromkeys(columns))):
            yield from map(list, zip(*(batch.column(column).to_pylist() for column in columns), strict=True))


def check_columns(path: Path | str, columns: Iterable[str], there: Sequence[str]) -> None:
    """Refuse a column that is not there, or there twice.

    Raises:
        DataError: naming it, and those that there are.
    """
    for column in columns:
        if column not in there:
            raise DataError(f"{path}: there is no column '{column}'; {suggest(column, there)}")
        if there.count(column) > 1:
            raise DataError(f"{path}: there are {there.count(column)} columns '{column}'; allowed: one")


def column_types(path: Path, columns: Sequence[str]) -> list[pa.DataType]:
    """Return the types of columns of a Parquet file; cells of other tables are text."""
    if kind_of(path) != ".parquet":
        return [pa.string() for _ in columns]
    try:
        with open_packed(path) as file, open_parquet(file, path) as table:
            check_columns(path, columns, table.schema_arrow.names)
            return [table.schema_arrow.field(column).type for column in columns]
    except FAULTS as error:
        raise DataError(f"cannot read {path}: {reason_of(error, path)}") from None


def hash_and_count(path: Path) -> tuple[str, int | None]:
    """Hash a file, and count its rows as far as that can be known without unpacking or parsing it.

    Returns:
        SHA-256 of its bytes, and the number of its lines or of its Parquet rows; a quoted cell may hold several lines.
    """
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    try:
        with check_file(path).open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
                lines, last = lines + block.count(b"\n"), block
        if path.suffix.lower() == ".parquet":
            with open_packed(path) as packed, open_parquet(packed, path) as table:
                return digest.hexdigest(), table.metadata.num_rows
    except FAULTS as error:
        raise DataError(f"cannot read {path}: {reason_of(error, path)}") from None
    if path.suffix.lower() in COMPRESSED:
        return digest.hexdigest(), None
    lines += not last.endswith(b"\n")
    return digest.hexdigest(), max(0, lines - (kind_of(path) in SEPARATORS))
