"""MIMIC-III's tables: found, checked and streamed into DuckDB, with error messages that quote no cell.

Names of files and columns may be in upper or lower case, files plain or gzipped. Rows are parsed by `table_io` and go
to DuckDB in blocks of a few megabytes. DuckDB's own reader keeps all rows in memory when it has to preserve their
order, drops a last row that ends inside a quoted cell, and quotes rows in its messages.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from plankwise.core.errors import DataError, OutputError
from plankwise.core.packages import require
from plankwise.core.progress import bar
from plankwise.data.json_objects import Malformed
from plankwise.data.table_io import Cells, open_rows, read_header
from plankwise.data.text_files import bytes_read

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MAX_CELL = 16 << 20  # characters; a note of MIMIC-III has some 50,000
BLOCK_CHARACTERS, BLOCK_ROWS = 8 << 20, 20_000
ENDINGS = (".csv", ".csv.gz")
log = logging.getLogger(__name__)

# SQL from a column's text to a value: tools write ids as floats (1.0), and dates with or without a time.
CASTS = {
    "number": "TRY_CAST(TRY_CAST({0} AS DOUBLE) AS BIGINT)",
    "time": "TRY_CAST({0} AS TIMESTAMP)",
    "text": "nullif(trim({0}), '')",
    "note": "{0}",
}
TYPES = {"number": "BIGINT", "time": "TIMESTAMP", "text": "VARCHAR", "note": "VARCHAR"}
KIND_NAMES = {"number": "a whole number", "time": "a date"}


@dataclass(frozen=True)
class Source:
    """The file of one table.

    Attributes:
        path: of the file.
        columns: to read, as the header spells them.
        kinds: of these columns, by their names in lower case: a key of `CASTS`.
        absent: kinds of optional columns that the file lacks; they are empty in every row.
    """

    path: Path
    columns: tuple[str, ...]
    kinds: Mapping[str, str]
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> str:
        """SQL for a subquery of the view `block`: the columns, and `unreadable`, which names a malformed one."""
        values = {name: CASTS[kind].format(f"block.{name}") for name, kind in self.kinds.items()}
        empty = {name: f"NULL::{TYPES[kind]}" for name, kind in self.absent.items()}
        selected = ", ".join(f"{value} AS {name}" for name, value in {**values, **empty}.items())
        wrong = " ".join(
            f"WHEN trim(block.{name}) <> '' AND {value} IS NULL THEN '{name.upper()}'"
            for name, value in values.items()
            if self.kinds[name] in KIND_NAMES
        )
        return f"(SELECT {selected}, CASE {wrong} END AS unreadable FROM block)"


def find(folder: Path, table: str, kinds: Mapping[str, str], optional: Mapping[str, str] | None = None) -> Source:
    """Find a table's file and check that it has the columns named in `kinds`, in any case.

    Columns in `optional` may be missing; they are then empty, which is logged as a warning.

    Raises:
        DataError: if the folder, the file or a column is missing.
    """
    path = path_of(folder, table)
    if path is None:
        files = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_file()}
        tables = [path.name for name, path in files.items() if name.endswith(ENDINGS)]
        names = f"{table.upper()}.csv or {table.upper()}.csv.gz"
        raise DataError(f"{folder} holds no {names}; tables there: {_listed(tables)}")
    spelled = {name.strip().lower(): name for name in read_header(path)}
    missing = [name for name in kinds if name not in spelled]
    if missing:
        header = [name.strip() for name in spelled.values()]
        names = _listed(header)
        if not all(re.fullmatch(r"[A-Za-z_]\w{0,39}", each) for each in header):  # without a header, these may be data
            names = f"{len(header)} cells, not all of them names of columns"
        raise DataError(f"{path}: there is no column {missing[0].upper()}; its first line has {names}")
    absent = {name: kind for name, kind in (optional or {}).items() if name not in spelled}
    for name in absent:
        log.warning("%s: there is no column %s; it counts as empty", path, name.upper())
    read = {**kinds, **{name: kind for name, kind in (optional or {}).items() if name in spelled}}
    return Source(path, tuple(spelled[name] for name in read), read, absent)


def path_of(folder: Path, table: str) -> Path | None:
    """Return the path of a table's file, or None if the folder has none.

    Raises:
        DataError: if there is no folder.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; give the one that holds MIMIC-III's tables as --mimic-dir")
    files = {path.name.lower(): path for path in folder.iterdir() if path.is_file()}
    return next((files[table + ending] for ending in ENDINGS if table + ending in files), None)


def connect(folder: Path, memory_mb: int) -> DuckDBPyConnection:
    """Open a database in `folder`, which also takes what does not fit into memory.

    Raises:
        DataError: if DuckDB is not installed.
    """
    require("reading MIMIC-III", "duckdb", error=DataError)
    import duckdb

    connection = duckdb.connect()
    # Row groups are written as a whole; the default of 122,880 rows would be a gigabyte of notes.
    connection.execute(f"ATTACH {_quoted(str(folder / 'work.duckdb'))} AS work (ROW_GROUP_SIZE 2048)")
    connection.execute("USE work")
    for setting, value in {
        "temp_directory": _quoted(str(folder / "spill")),
        "memory_limit": f"'{memory_mb}MB'",
        "threads": "1",  # each thread has buffers of its own
        "preserve_insertion_order": "false",
        "enable_progress_bar": "false",
    }.items():
        connection.execute(f"SET {setting}={value}")
    return connection


def load(connection: DuckDBPyConnection, name: str, source: Source, query: str, progress: bool) -> None:
    """Create the table `name` by a query, in which `{rows}` stands for the rows of the file, block by block.

    Raises:
        DataError: for a malformed row, named by its number, or malformed numbers and dates, named by their column.
    """
    size = source.path.stat().st_size
    log.info("reading %s, %.1f MB", source.path.name, size / 1e6)
    query = query.format(rows=source.rows)
    with bar(f"reading {source.path.name}", size, progress) as show:
        for number, (block, done) in enumerate(_blocks(source)):
            with explained(source.path):
                connection.register("block", block)
                connection.execute(f"INSERT INTO {name} {query}" if number else f"CREATE TABLE {name} AS {query}")
                connection.unregister("block")
            show(done)
    wrong = f"SELECT unreadable, count(*) FROM {name} WHERE unreadable IS NOT NULL GROUP BY ALL ORDER BY ALL"
    for column, count in connection.execute(wrong).fetchall():
        kind = KIND_NAMES[source.kinds[column.lower()]]
        raise DataError(f"{source.path}: {count} rows hold something else than {kind} under {column}")


def _blocks(source: Source) -> Iterator[tuple[pa.Table, int]]:
    """Yield the needed columns in blocks of a few megabytes, at least one, and how many bytes of the file are read."""
    kept: list[Cells] = []
    characters = 0
    with open_rows(source.path, source.columns, max_cell=MAX_CELL) as (file, rows):
        for number, row in enumerate(_decoded(rows, source.path), 1):
            if isinstance(row, Malformed):
                raise DataError(f"{source.path}, row {number}: {row}")
            kept.append(row)
            characters += sum(map(len, row))
            if characters > BLOCK_CHARACTERS or len(kept) >= BLOCK_ROWS:
                yield _as_arrow(source, kept), bytes_read(file)
                kept, characters = [], 0
        yield _as_arrow(source, kept), bytes_read(file)


def _decoded(rows: Iterator[Cells | Malformed], path: Path) -> Iterator[Cells | Malformed]:
    """Pass rows through; the table reader's own message advises an option that reading MIMIC-III does not have."""
    try:
        yield from rows
    except UnicodeDecodeError:
        raise DataError(f"cannot read {path}: it is not UTF-8, as MIMIC-III is published") from None


def _as_arrow(source: Source, rows: Sequence[Cells]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in source.kinds)
    return pa.table({name: pa.array(column, pa.string()) for name, column in zip(source.kinds, columns, strict=True)})


@contextmanager
def explained(where: Path | str) -> Iterator[None]:
    """Turn an error of DuckDB into one line that quotes no data.

    Raises:
        DataError: if it needs more memory, or for any other error.
        OutputError: if the disk is full.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.endswith("duckdb"):
            raise
        kind, message = type(error).__name__, str(error)
        if "No space left" in message or "max_temp_directory_size" in message:
            raise OutputError(f"{where}: the disk of the output folder is too full to work on") from None
        if kind == "OutOfMemoryException":
            raise DataError(f"{where}: too little memory for DuckDB; give more with --memory") from None
        raise DataError(f"{where}: DuckDB fails with {kind}") from None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "nothing"
