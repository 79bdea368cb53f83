"""MIMIC-III's tables as DuckDB reads them: typed, streamed, and with error messages that quote no cell.

Names of files and columns may be in upper or lower case, files plain or gzipped. DuckDB's own messages about a
malformed row quote it, so none of them is passed on.
"""

from __future__ import annotations

import csv
import gzip
import logging
import re
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from plankwise.core.errors import DataError, OutputError
from plankwise.data.progress import Bar, bar

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LONGEST_ROW = 16 << 20  # bytes; a note of MIMIC-III has some 50 kB
BLOCK = 1 << 20
ENDINGS = (".csv", ".csv.gz")
log = logging.getLogger(__name__)

# How a column's text becomes a value: ids may have been written as floats, dates with or without a time.
CASTS = {
    "number": "TRY_CAST(TRY_CAST({0} AS DOUBLE) AS BIGINT)",
    "time": "TRY_CAST({0} AS TIMESTAMP)",
    "text": "trim({0})",
    "note": "{0}",
}
_REASONS = (  # what DuckDB says, and what is said of it
    ("Expected Number of Columns", "it has another number of cells than the header"),
    ("Maximum line size", f"it is longer than {LONGEST_ROW >> 20} MB"),
    ("unicode", "it is not UTF-8"),
    ("unterminated quote", "a quoted cell does not end as it should"),
    ("GZIP", "the gzip stream is damaged"),
)


@dataclass(frozen=True)
class Source:
    """One table's file: where it is, how its columns are written there, and the kinds of those that are needed."""

    path: Path
    header: tuple[str, ...]
    kinds: Mapping[str, str]

    @property
    def rows(self) -> str:
        """Give SQL for a subquery of the needed columns, named in lower case, and `unreadable`, a column's name."""
        columns = ", ".join(f"{_quoted(name)}: 'VARCHAR'" for name in self.header)
        options = {
            "auto_detect": "false",
            "header": "true",
            "delim": "','",
            "quote": "'\"'",
            "escape": "'\"'",
            "compression": "'gzip'" if self.path.suffix == ".gz" else "'none'",
            "parallel": "false",  # a reader that starts amid a file has to guess whether a line break is quoted
            "max_line_size": str(LONGEST_ROW),
            "buffer_size": str(2 * LONGEST_ROW),
            "columns": f"{{{columns}}}",
        }
        written = ", ".join(f"{key}={value}" for key, value in options.items())
        places = {name: _identifier(self.header[_position(self.header, name)]) for name in self.kinds}
        values = {name: CASTS[kind].format(places[name]) for name, kind in self.kinds.items()}
        selected = ", ".join(f"{value} AS {_identifier(name)}" for name, value in values.items())
        wrong = " ".join(
            f"WHEN trim({places[name]}) <> '' AND {values[name]} IS NULL THEN {_quoted(name.upper())}"
            for name in self.kinds
            if self.kinds[name] in ("number", "time")
        )
        return (
            f"(SELECT {selected}, CASE {wrong} END AS unreadable "
            f"FROM read_csv({_quoted(_literal(self.path))}, {written}))"
        )


def find(folder: Path, table: str, kinds: Mapping[str, str]) -> Source:
    """Find a table's file and check that it has the columns named in `kinds`, in any case.

    Raises:
        DataError: if the folder, the file or a column is missing.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; give the one that holds MIMIC-III's tables as --mimic-dir")
    files = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_file()}
    path = next((files[table + ending] for ending in ENDINGS if table + ending in files), None)
    if path is None:
        tables = [path.name for name, path in files.items() if name.endswith(ENDINGS)]
        raise DataError(
            f"{folder} holds no {table.upper()}.csv or {table.upper()}.csv.gz; tables there: {_listed(tables)}"
        )
    with refused(path), _opened(path) as file:
        line = file.readline(LONGEST_ROW).decode("utf-8-sig")
    header = tuple(name.strip() for name in next(csv.reader([line.rstrip("\r\n")]), []))
    missing = [name for name in kinds if name not in [each.lower() for each in header]]
    if missing:
        names = [each for each in header if re.fullmatch(r"\w{1,40}", each)]  # a file without header starts with data
        shown = _listed(names) if len(names) == len(header) else f"{len(header)} cells that are no column names"
        raise DataError(f"{path}: there is no column {missing[0].upper()}; its first line has {shown}")
    return Source(path, header, kinds)


def check_whole(source: Source, progress: bool) -> None:
    """Read a file once to see that its quotes pair up: DuckDB drops a last row that ends inside a quoted cell.

    Raises:
        DataError: if they do not, or a gzip stream is damaged or cut off.
    """
    size, quotes = source.path.stat().st_size, 0
    log.info("checking %s, %.1f MB", source.path.name, size / 1e6)
    with (
        bar(f"checking {source.path.name}", size, progress) as show,
        refused(source.path),
        source.path.open("rb") as raw,
        _decompressed(source.path, raw) as file,
    ):
        while block := file.read(BLOCK):
            quotes += block.count(b'"')
            show(raw.tell())
    if quotes % 2:
        raise DataError(f"{source.path}: a quoted cell never ends; the file is cut off, or a quote is not doubled")


def connect(folder: Path, memory_mb: int) -> DuckDBPyConnection:
    """Open a database in `folder`, where it also puts what does not fit into memory.

    Raises:
        DataError: if DuckDB is not installed.
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        raise DataError("reading MIMIC-III needs DuckDB: pip install 'plankwise[mimic]'") from None
    connection = duckdb.connect(str(folder / "work.duckdb"))
    for setting, value in {
        "temp_directory": _quoted(str(folder / "spill")),
        "memory_limit": f"'{memory_mb}MB'",
        "threads": "1",  # each thread has buffers of its own
        "preserve_insertion_order": "false",
        "enable_progress_bar": "false",
        "TimeZone": "'UTC'",
    }.items():
        connection.execute(f"SET {setting}={value}")
    return connection


def load(connection: DuckDBPyConnection, name: str, source: Source, query: str, progress: bool) -> None:
    """Make the table `name` from `query`, whose `{rows}` stands for the file's rows, and check that all were readable.

    Raises:
        DataError: for a malformed row, named by its line, or a number or date that is none, named by its column.
    """
    log.info("reading %s", source.path.name)
    statement = f"CREATE TABLE {name} AS {query.format(rows=source.rows)}"
    with bar(f"reading {source.path.name}", 100, progress) as show, refused(source.path), _watched(connection, show):
        connection.execute(statement)
    wrong = connection.execute(
        f"SELECT unreadable, count(*) FROM {name} WHERE unreadable IS NOT NULL GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    if wrong:
        column, count = wrong[0]
        kind = {"number": "a whole number", "time": "a date"}[source.kinds[column.lower()]]
        raise DataError(f"{source.path}: {count} rows hold something else than {kind} under {column}")


@contextmanager
def refused(where: Path | str) -> Iterator[None]:
    """Turn every failure of reading into one line that names the place and quotes nothing.

    Raises:
        DataError: what was read is damaged, or more memory is needed.
        OutputError: the disk is full.
    """
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{where}: the gzip stream is damaged or cut off") from None
    except UnicodeDecodeError:
        raise DataError(f"{where}: it is not UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot read {where}: {error.strerror or 'unknown reason'}") from None
    except Exception as error:
        if not type(error).__module__.endswith("duckdb"):
            raise
        raise _explained(type(error).__name__, str(error), where) from None


def _explained(kind: str, message: str, where: Path | str) -> DataError | OutputError:
    if kind == "OutOfMemoryException":
        if "disk" in message or "temp_directory_size" in message:
            return OutputError(f"{where}: the disk of the output folder is too full to work on")
        return DataError(f"{where}: too little memory for DuckDB; give more with --memory")
    if "No space left" in message:
        return OutputError(f"{where}: the disk of the output folder is full")
    line = re.search(r"CSV Error on Line: (\d+)", message)
    tail = "\n".join(message.splitlines()[2:]) if line else message
    reason = next((said for words, said in _REASONS if words in tail), "it cannot be read as a table")
    row = f", row {int(line[1]) - 1}" if line else ""  # DuckDB counts the header
    return DataError(f"{where}{row}: {reason}")


@contextmanager
def _watched(connection: DuckDBPyConnection, show: Bar) -> Iterator[None]:
    """Show how far the running query is, in percent."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            show(max(0, int(connection.query_progress())))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw, _decompressed(path, raw) as file:
        yield file


def _decompressed(path: Path, raw: IO[bytes]) -> IO[bytes]:
    return gzip.open(raw) if path.suffix == ".gz" else raw  # type: ignore[return-value]


def _position(header: Sequence[str], name: str) -> int:
    return [each.lower() for each in header].index(name)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _literal(path: Path) -> str:
    return re.sub(r"([*?[])", r"[\1]", str(path))  # DuckDB would take these for a pattern


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(names) if names else "none"
