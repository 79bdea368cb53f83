"""MIMIC-III's tables: found, checked and streamed into DuckDB, with error messages that quote no cell.

Names of files and columns may be in upper or lower case, files plain or gzipped. Rows are parsed here, in blocks of a
few megabytes. DuckDB's own reader, told to read long rows in order, holds on to all of them; it drops a last row that
ends inside a quoted cell; and its messages quote the rows that they are about.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyarrow as pa

from plankwise.core.errors import DataError, OutputError
from plankwise.core.packages import require
from plankwise.core.progress import bar

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LONGEST_CELL = 16 << 20  # characters; a note of MIMIC-III has some 50,000
BLOCK_CHARACTERS, BLOCK_ROWS = 8 << 20, 20_000
ENDINGS = (".csv", ".csv.gz")
log = logging.getLogger(__name__)

# How a column's text becomes a value: ids may have been written as floats, dates with or without a time.
CASTS = {
    "number": "TRY_CAST(TRY_CAST({0} AS DOUBLE) AS BIGINT)",
    "time": "TRY_CAST({0} AS TIMESTAMP)",
    "text": "nullif(trim({0}), '')",
    "note": "{0}",
}
TYPES = {"number": "BIGINT", "time": "TIMESTAMP", "text": "VARCHAR", "note": "VARCHAR"}
KIND_NAMES = {"number": "a whole number", "time": "a date"}
_CSV_ERRORS = (  # what Python says, and what is said of it
    ("unexpected end", "a quoted cell never ends; the file is cut off, or a quote is not doubled"),
    ("expected after", "a quoted cell does not end as it should; a quote is not doubled"),
    ("field limit", "a cell is too long"),
)


@dataclass(frozen=True)
class Source:
    """One table's file: where it is, its header in lower case, and the kinds of the columns that are read.

    Columns in `absent` are wanted and not in the file; they are empty in every row.
    """

    path: Path
    header: tuple[str, ...]
    kinds: Mapping[str, str]
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> str:
        """Give SQL for a subquery of the needed columns of the view `block`, and `unreadable`, a column's name."""
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

    Those in `optional` may be missing; they are then empty, and a warning says so.

    Raises:
        DataError: if the folder, the file or a column is missing.
    """
    path = path_of(folder, table)
    if path is None:
        files = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_file()}
        tables = [path.name for name, path in files.items() if name.endswith(ENDINGS)]
        names = f"{table.upper()}.csv or {table.upper()}.csv.gz"
        raise DataError(f"{folder} holds no {names}; tables there: {_listed(tables)}")
    with _reading(path) as (_, rows):
        header = [name.strip() for name in next(rows, [])]
    missing = [name for name in kinds if name not in [each.lower() for each in header]]
    if missing:
        names = _listed(header)
        if not all(re.fullmatch(r"[A-Za-z_]\w{0,39}", each) for each in header):  # a file without header: data
            names = f"{len(header)} cells, not all of them names of columns"
        raise DataError(f"{path}: there is no column {missing[0].upper()}; its first line has {names}")
    there = tuple(name.lower() for name in header)
    absent = {name: kind for name, kind in (optional or {}).items() if name not in there}
    for name in absent:
        log.warning("%s: there is no column %s; it counts as empty", path, name.upper())
    found = {name: kind for name, kind in (optional or {}).items() if name in there}
    return Source(path, there, {**kinds, **found}, absent)


def path_of(folder: Path, table: str) -> Path | None:
    """Return the path of a table's file; None where the folder holds none.

    Raises:
        DataError: if there is no folder.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; give the one that holds MIMIC-III's tables as --mimic-dir")
    files = {path.name.lower(): path for path in folder.iterdir() if path.is_file()}
    return next((files[table + ending] for ending in ENDINGS if table + ending in files), None)


def connect(folder: Path, memory_mb: int) -> DuckDBPyConnection:
    """Open a database in `folder`, where it also puts what does not fit into memory.

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
    """Make the table `name` from `query`, whose `{rows}` stands for the file's rows, a block at a time.

    Raises:
        DataError: for a malformed row, named by its number, or a number or date that is none, named by its column.
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
    """Give the needed columns as blocks of a few megabytes, at least one, and how many bytes of the file are read."""
    places = [source.header.index(name) for name in source.kinds]
    kept: list[list[str]] = []
    with _reading(source.path) as (raw, rows):
        next(rows)
        characters = 0
        for number, row in enumerate(rows, 1):
            if not row:
                continue  # an empty line
            if len(row) != len(source.header):
                cells = f"{len(row)} cells where the header has {len(source.header)}"
                raise DataError(f"{source.path}, row {number}: {cells}")
            kept.append([row[place] for place in places])
            characters += sum(map(len, kept[-1]))
            if characters > BLOCK_CHARACTERS or len(kept) >= BLOCK_ROWS:
                yield _as_table(source, kept), raw.tell()
                kept, characters = [], 0
        yield _as_table(source, kept), raw.tell()


def _as_table(source: Source, rows: Sequence[Sequence[str]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in source.kinds)
    return pa.table({name: pa.array(column, pa.string()) for name, column in zip(source.kinds, columns, strict=True)})


@contextmanager
def _reading(path: Path) -> Iterator[tuple[IO[bytes], Iterator[list[str]]]]:
    """Open a table; give the file, for its position, and its rows, header first. All failures become one line."""
    row = 0

    def counted(rows: Iterator[list[str]]) -> Iterator[list[str]]:
        nonlocal row
        for each in rows:
            yield each
            row += 1

    longest = csv.field_size_limit(LONGEST_CELL)
    try:
        with (
            path.open("rb") as raw,
            _plain(path, raw) as file,
            io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text,
        ):
            yield raw, counted(csv.reader(text, strict=True))
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path}: the gzip stream is damaged or cut off") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}, about row {row}: it is not UTF-8") from None
    except csv.Error as error:
        said = next((said for words, said in _CSV_ERRORS if words in str(error)), "it cannot be read as a table")
        raise DataError(f"{path}, row {row}: {said}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or 'unknown reason'}") from None
    finally:
        csv.field_size_limit(longest)


def _plain(path: Path, raw: IO[bytes]) -> IO[bytes]:
    return gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw  # type: ignore[return-value]


@contextmanager
def explained(where: Path | str) -> Iterator[None]:
    """Turn a failure of DuckDB into one line that quotes nothing of what it worked on.

    Raises:
        DataError: more memory is needed.
        OutputError: the disk is full.
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
        raise DataError(f"{where}: DuckDB refuses it with {kind}") from None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "nothing"
