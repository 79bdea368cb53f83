"""Tables of many kinds as one stream of rows, read a little at a time; nothing here quotes what is in a cell."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from plankwise.core.errors import DataError, suggest
from plankwise.core.places import check_file
from plankwise.data.streams import COMPRESSED, FAULTS, kind_of, open_packed, open_parquet, reason_of

Cells = list[Any]  # of the columns that were asked for, in their order
KINDS = (".csv", ".tsv", ".jsonl", ".parquet")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
_ROWS_AT_ONCE = 256


def check_kind(path: Path) -> None:
    """Refuse a file whose name does not say that it is a table.

    Raises:
        DataError: naming what is allowed.
    """
    if kind_of(path) not in KINDS:
        packed = ", ".join(COMPRESSED)
        raise DataError(f"{path}: no table of kind '{kind_of(path)}'; allowed: {', '.join(KINDS)}, plain or {packed}")


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Cells | None]:
    """Read the cells of some columns row by row, in the order of the file; nothing stands for a row out of shape.

    Blank lines are no rows. In JSON lines the first row tells the columns; a key that a later one lacks is null.

    Raises:
        DataError: if the file cannot be read, lacks a column or is no table.
    """
    try:
        with open_packed(path) as file:
            yield from _READERS[kind_of(path)](file, path, columns)
    except FAULTS as error:
        raise DataError(f"cannot read {path}: {reason_of(error)}") from None


def _separated(file: IO[bytes], path: Path, columns: Sequence[str]) -> Iterator[Cells | None]:
    csv.field_size_limit(sys.maxsize)
    tabs = kind_of(path) == ".tsv"
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as read:
        rows = csv.reader(read, delimiter=SEPARATORS[kind_of(path)], strict=True)
        try:
            header = next(rows, [])
            check_columns(path, columns, header)
            places = [header.index(column) for column in columns]
            for row in filter(None, rows):
                if tabs and any("\t" in cell and "\n" in cell for cell in row):
                    raise DataError(f"{path}: a quote near line {rows.line_num} opens a cell over tabs and lines")
                yield [row[place] for place in places] if len(row) == len(header) else None
        except csv.Error:
            raise DataError(f"{path}: not a table; a quote is out of place near line {rows.line_num}") from None


def _json_lines(file: IO[bytes], path: Path, columns: Sequence[str]) -> Iterator[Cells | None]:
    first = True
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n") as read:
        for line in read:
            if not line.strip():
                continue
            row = _parsed(line)
            if first and row is not None:
                check_columns(path, columns, list(row))
                first = False
            yield None if row is None else [row.get(column) for column in columns]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _parquet(file: IO[bytes], path: Path, columns: Sequence[str]) -> Iterator[Cells | None]:
    with open_parquet(file, path) as table:
        check_columns(path, columns, table.schema_arrow.names)
        for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(dict.fromkeys(columns))):
            yield from map(list, zip(*(batch.column(column).to_pylist() for column in columns), strict=True))


def check_columns(path: Path, columns: Iterable[str], there: Sequence[str]) -> None:
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
    """Give the types of columns of a Parquet file; cells of other tables are text."""
    if kind_of(path) != ".parquet":
        return [pa.string() for _ in columns]
    try:
        with open_packed(path) as file, open_parquet(file, path) as table:
            check_columns(path, columns, table.schema_arrow.names)
            return [table.schema_arrow.field(column).type for column in columns]
    except FAULTS as error:
        raise DataError(f"cannot read {path}: {reason_of(error)}") from None


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
        raise DataError(f"cannot read {path}: {reason_of(error)}") from None
    if path.suffix.lower() in COMPRESSED:
        return digest.hexdigest(), None
    lines += not last.endswith(b"\n")
    return digest.hexdigest(), max(0, lines - (kind_of(path) in SEPARATORS))


_READERS = {".csv": _separated, ".tsv": _separated, ".jsonl": _json_lines, ".parquet": _parquet}
