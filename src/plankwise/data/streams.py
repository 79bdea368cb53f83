"""Text files of many kinds as one stream of documents."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from plankwise.core.errors import DataError, suggest
from plankwise.core.places import check_file

Document = list[str]  # its lines, stripped, none of them empty
MOST_LINES = 256  # a longer document is cut, so that a file without blank lines is no single one
MOST_CHARACTERS = 100_000  # a longer line is cut too, so that a file without line ends is no single one
ROWS_PER_READ = 32
COMPRESSED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".zst": lambda path: pa.input_stream(str(path), compression="zstd"),  # notices a file that was cut off
}
KINDS = (".txt", ".jsonl", ".parquet", ".csv", ".tsv")
FAULTS = (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error, pa.ArrowException)


def find_files(patterns: Sequence[str]) -> list[Path]:
    """List the files that paths, folders and globs name, sorted, each once; in folders, hidden ones are passed over.

    Raises:
        DataError: if a pattern matches nothing, or a file is of no known kind.
    """
    found: dict[Path, Path] = {}
    allowed = f"allowed: {', '.join(KINDS)}, plain or {', '.join(COMPRESSED)}"
    for pattern in patterns:
        try:
            matches = _matches(pattern)
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, a user unknown, a zero byte
            raise DataError(f"corpus files: '{pattern}': {getattr(error, 'strerror', None) or error}") from None
        if not matches:
            raise DataError(f"corpus files: '{pattern}' matches no file; {allowed}")
        for path in matches:
            if kind_of(path) not in KINDS:
                raise DataError(f"{path}: no reader for '{kind_of(path)}' files; {allowed}")
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _matches(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        inside = (each for each in path.rglob("*") if each.is_file() and kind_of(each) in KINDS)
        return sorted(each for each in inside if not any(part[0] == "." for part in each.relative_to(path).parts))
    if path.exists():
        return [path]
    found = map(Path, glob(str(path), recursive=True))  # noqa: PTH207 - an absolute pattern
    return sorted(each for each in found if each.is_file())


def kind_of(path: Path) -> str:
    """Give the ending that says what is in a file, below the one that says how it is packed."""
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return inner.suffix.lower()


def documents_of(files: Sequence[Path], text: str) -> Iterator[Document]:
    """Read files one after the other, as a stream.

    Args:
        files: by `find_files`.
        text: key or column of the text, for kinds that have one.

    Raises:
        DataError: if one cannot be read; rows are named by number, never quoted.
    """
    for path in files:
        try:
            with open_packed(path) as file:
                yield from _READERS[kind_of(path)](file, path, text)
        except FAULTS as error:
            raise DataError(f"cannot read {path}: {reason_of(error)}") from None


def reason_of(error: BaseException) -> str:
    """Say why a file cannot be read, without a word of what is in it."""
    return getattr(error, "strerror", None) or type(error).__name__


def open_packed(path: Path) -> IO[bytes]:
    """Open a file, packed or not, for reading what is in it; `FAULTS` are what may go wrong from then on."""
    check_file(path)
    opened: IO[bytes] = COMPRESSED[path.suffix.lower()](path) if path.suffix.lower() in COMPRESSED else path.open("rb")
    return opened


def _plain(file: IO[bytes], path: Path, text: str) -> Iterator[Document]:
    lines: Document = []
    with io.TextIOWrapper(file, encoding="utf-8-sig") as read:
        for raw in iter(lambda: read.readline(MOST_CHARACTERS), ""):
            line = raw.strip()
            if line:
                lines.append(line)
            if lines and (not line or len(lines) == MOST_LINES):
                yield lines
                lines = []
    if lines:
        yield lines


def _json_lines(file: IO[bytes], path: Path, text: str) -> Iterator[Document]:
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n") as read:
        for number, raw in enumerate(read, 1):
            if raw.strip():
                yield from _rows(_value(raw, text, f"{path}:{number}"), path, number)


def _value(raw: str, text: str, where: str) -> Any:
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not a line of JSON") from None
    if not isinstance(row, dict) or text not in row:
        raise DataError(f"{where}: there is no key '{text}'; {suggest(text, row if isinstance(row, dict) else ())}")
    return row[text]


def _parquet(file: IO[bytes], path: Path, text: str) -> Iterator[Document]:
    with open_parquet(file, path) as table:
        if text not in table.schema_arrow.names:
            raise DataError(f"{path}: there is no column '{text}'; {suggest(text, table.schema_arrow.names)}")
        number = 0
        for batch in table.iter_batches(batch_size=1000, columns=[text]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield from _rows(value, path, number)


@contextmanager
def open_parquet(file: IO[bytes], path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file that `open_packed` has opened."""
    with tempfile.TemporaryFile() as copy:
        if path.suffix.lower() in COMPRESSED:  # its index stands at the end, so it has to be unpacked first
            shutil.copyfileobj(file, copy)
        yield pq.ParquetFile(copy if path.suffix.lower() in COMPRESSED else path)


def _table(file: IO[bytes], path: Path, text: str) -> Iterator[Document]:
    csv.field_size_limit(sys.maxsize)
    separator = "," if kind_of(path) == ".csv" else "\t"
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as read:
        rows = csv.reader(read, delimiter=separator, strict=True)
        try:
            header = next(rows, [])
            if text not in header:
                raise DataError(f"{path}: there is no column '{text}'; {suggest(text, header)}")
            column = header.index(text)
            for number, row in enumerate(rows, 1):
                if row and len(row) != len(header):
                    raise DataError(f"{path}, row {number}: {len(row)} cells, the header has {len(header)}")
                if row:
                    yield from _rows(row[column], path, number)
        except csv.Error:
            raise DataError(f"{path}: not a table; a quote is out of place near line {rows.line_num}") from None


def _rows(value: Any, path: Path, number: int) -> Iterator[Document]:
    if value is not None and not isinstance(value, str):
        raise DataError(f"{path}, row {number}: its text is {type(value).__name__}, not a string")
    yield from cut_row(value)


def cut_row(value: str | None) -> Iterator[Document]:
    """Cut the text of one row into lines and documents; a row without text gives none.

    A lone half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes the replacement character.
    """
    sound = (value or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    read = io.StringIO(sound, newline=None)
    pieces = (raw.strip() for raw in iter(lambda: read.readline(MOST_CHARACTERS), ""))
    lines = [line for line in pieces if line]
    for start in range(0, len(lines), MOST_LINES):
        yield lines[start : start + MOST_LINES]


def texts_of(data: Dataset, column: str = "text") -> Iterator[str]:
    """Read a column as a stream, a few rows at a time: a thousand long texts would be much memory."""
    for batch in data.select_columns([column]).with_format("arrow").iter(ROWS_PER_READ):
        yield from (text for text in batch.column(column).to_pylist() if text is not None)


_READERS = {".txt": _plain, ".jsonl": _json_lines, ".parquet": _parquet, ".csv": _table, ".tsv": _table}
