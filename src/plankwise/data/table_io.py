"""Reading tables of all kinds as a stream of rows; no message quotes the content of a cell.

This is the only reader of tables: for tasks, corpora, texts to predict and MIMIC-III alike.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa

from plankwise.core.errors import DataError, suggest
from plankwise.core.paths import check_file
from plankwise.data.json_objects import Malformed, parse_object
from plankwise.data.text_files import (
    COMPRESSED,
    DELIMITERS,
    TextFormat,
    checked_lines,
    kind_of,
    open_packed,
    open_parquet,
    open_text,
    readable,
    refuse_kind,
)

Cells = list[Any]  # of the columns that are read, in their order
Keys = Literal["first", "any", "every"]
KINDS = (".csv", ".tsv", ".jsonl", ".parquet")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
_ROWS_PER_READ = 256


def check_kind(path: Path) -> None:
    """Refuse a file that is not a table by its suffix.

    Raises:
        DataError: naming what is allowed.
    """
    if kind_of(path) not in KINDS:
        raise refuse_kind(path, KINDS)


@contextmanager
def open_rows(
    path: Path,
    columns: Sequence[str],
    form: TextFormat | None = None,
    *,
    keys: Keys = "first",
    multiline: bool = False,
    max_cell: int | None = None,
) -> Iterator[tuple[IO[bytes], Iterator[Cells | Malformed]]]:
    """Open a table; return the open file, for its position, and an iterator over the cells of some columns.

    Rows come in the order of the file; blank lines are no rows. In JSON lines, a key that a row lacks is null.

    Args:
        path: of a kind in `KINDS`.
        columns: to read.
        form: encoding and delimiter.
        keys: which rows of JSON lines must have all columns: the first, any (each column in some row), or every one.
        multiline: whether cells of TSV may hold both tabs and line breaks; such a cell most likely is several rows,
            swallowed by a stray quote.
        max_cell: characters of a cell of CSV or TSV; without a limit, a stray quote reads the whole file into one cell.

    Raises:
        DataError: if the file cannot be read, lacks a column or is not a table.
    """
    form = form or TextFormat()
    with readable(path, form.encoding), open_packed(path) as file:
        if kind_of(path) == ".parquet":
            yield file, _parquet(file, path, columns)
        elif kind_of(path) == ".jsonl":
            with open_text(file, form.encoding, newline="\n") as text:
                yield file, _json_lines(checked_lines(text, path, form.encoding), path, columns, keys)
        else:
            separator = form.delimiter or SEPARATORS[kind_of(path)]
            with open_text(file, form.encoding, newline="") as text, _limited(max_cell):
                lines = checked_lines(text, path, form.encoding)
                yield file, _separated(lines, path, columns, separator, multiline)


def read_rows(
    path: Path,
    columns: Sequence[str],
    form: TextFormat | None = None,
    *,
    keys: Keys = "first",
    multiline: bool = False,
) -> Iterator[Cells | Malformed]:
    """Yield the cells of some columns row by row; arguments and errors are those of `open_rows`."""
    with open_rows(path, columns, form, keys=keys, multiline=multiline) as (_, rows):
        yield from rows


def read_table(path: Path, columns: Sequence[str], form: TextFormat | None = None) -> dict[str, list[Any]]:
    """Read some columns of a table into memory; all cells of CSV and TSV are strings, empty ones included.

    Raises:
        DataError: if the file is missing, of another kind, or malformed; rows are named by number.
    """
    check_kind(path)
    rows: list[Cells] = []
    for number, row in enumerate(read_rows(path, columns, form, keys="any"), 1):
        if isinstance(row, Malformed):
            raise DataError(f"{path}, row {number}: {row}")
        rows.append(row)
    return {column: [row[place] for row in rows] for place, column in enumerate(columns)}


def read_header(path: Path, form: TextFormat | None = None) -> list[str]:
    """Read the names of the columns of a CSV or TSV file; none of an empty file.

    Raises:
        DataError: if the file cannot be read.
    """
    form = form or TextFormat()
    separator = form.delimiter or SEPARATORS[kind_of(path)]
    with readable(path, form.encoding), open_packed(path) as file, open_text(file, form.encoding, newline="") as text:
        return next(csv.reader(checked_lines(text, path, form.encoding), delimiter=separator), [])


@contextmanager
def _limited(max_cell: int | None) -> Iterator[None]:
    """Set the limit of a cell, which is global to Python's reader and 128 Ki characters by default.

    Without a limit nothing is restored in the end: several tables may be read at the same time.
    """
    before = csv.field_size_limit(sys.maxsize if max_cell is None else max_cell)
    try:
        yield
    finally:
        if max_cell is not None:
            csv.field_size_limit(before)


def _separated(
    lines: Iterable[str], path: Path, columns: Sequence[str], separator: str, multiline: bool
) -> Iterator[Cells | Malformed]:
    rows, began = csv.reader(lines, delimiter=separator, strict=True), 1
    try:
        header = next(rows, [])
        _check_delimiter(path, columns, header, separator)
        check_columns(path, columns, header)
        places = [header.index(column) for column in columns]
        began = rows.line_num + 1
        for row in rows:
            if not multiline and separator == "\t" and any("\t" in cell and "\n" in cell for cell in row):
                raise DataError(f"{path}: a quote near line {began} opens a cell over tabs and lines; double it")
            if len(row) == len(header):
                yield [row[place] for place in places]
            elif len(row) > 1 or "".join(row).strip():
                yield f"{len(row)} cells, the header has {len(header)} (near line {began})"
            began = rows.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}: not a table; {_shape_fault(str(error), began)}") from None


def _shape_fault(error: str, line: int) -> str:
    """Translate what Python's CSV reader says, which may quote a cell."""
    if "field limit" in error:
        return f"a cell is too long near line {line}"
    if "NUL" in error:  # up to Python 3.10
        return f"a NUL is out of place near line {line}"
    cut_off = ", or the file is cut off" if "unexpected end" in error else ""
    return f"a quote is out of place near line {line}{cut_off}"


def _check_delimiter(path: Path, columns: Sequence[str], header: Sequence[str], separator: str) -> None:
    """Refuse a header of one column that holds the delimiter of other tables."""
    others = [each for each in DELIMITERS if each != separator and each in "".join(header)]
    if len(header) != 1 or not others or header[0] in columns:
        return
    shown = {"\t": "tabs"}.get(others[0], f"'{others[0]}'")
    if kind_of(path) == ".tsv":
        advice = "name the file .csv" if others[0] == "," else f'name the file .csv and give delimiter: "{others[0]}"'
    else:
        advice = f"give delimiter: {json.dumps(others[0])}"
    raise DataError(f"{path}: its header is one column that holds {shown}; {advice}")


def _json_lines(lines: Iterable[str], path: Path, columns: Sequence[str], keys: Keys) -> Iterator[Cells | Malformed]:
    known: dict[str, None] = {}  # keys so far, in order
    for number, line in enumerate((line for line in lines if line.strip()), 1):
        row = parse_object(line)
        if isinstance(row, Malformed):
            yield row
            continue
        if keys == "every":
            check_columns(f"{path}, row {number}", columns, list(row))
        elif keys == "first" and not known:
            check_columns(path, columns, list(row))
        if keys == "any" or not known:
            known.update(dict.fromkeys(row))
        yield [row.get(column) for column in columns]
    if keys == "any":
        check_columns(path, columns, list(known))


def is_text(value: object) -> bool:
    """Return whether a value is a string without NULs that UTF-8 can encode; JSON can hold half a surrogate pair."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _parquet(file: IO[bytes], path: Path, columns: Sequence[str]) -> Iterator[Cells]:
    with open_parquet(file, path) as table:
        check_columns(path, columns, table.schema_arrow.names)
        for batch in table.iter_batches(batch_size=_ROWS_PER_READ, columns=list(dict.fromkeys(columns))):
            yield from map(list, zip(*(batch.column(column).to_pylist() for column in columns), strict=True))


def check_columns(path: Path | str, columns: Iterable[str], there: Sequence[str]) -> None:
    """Refuse a column that is missing, or there twice.

    Raises:
        DataError: naming it and the columns that there are.
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
    with readable(path), open_packed(path) as file, open_parquet(file, path) as table:
        check_columns(path, columns, table.schema_arrow.names)
        return [table.schema_arrow.field(column).type for column in columns]


def hash_and_count(path: Path) -> tuple[str, int | None]:
    """Hash a file, and count its rows where that needs neither decompressing nor parsing.

    Returns:
        SHA-256 of its bytes, and the number of its lines or Parquet rows, or None. Lines are an upper bound of rows:
        a quoted cell may hold several.

    Raises:
        DataError: if the file cannot be read.
    """
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    with readable(path):
        with check_file(path).open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
                lines, last = lines + block.count(b"\n"), block
        if path.suffix.lower() == ".parquet":
            with open_packed(path) as packed, open_parquet(packed, path) as table:
                return digest.hexdigest(), table.metadata.num_rows
    if path.suffix.lower() in COMPRESSED:
        return digest.hexdigest(), None
    lines += not last.endswith(b"\n")
    return digest.hexdigest(), max(0, lines - (kind_of(path) in SEPARATORS))
