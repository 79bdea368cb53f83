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
from glob import glob
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from plankwise.core.errors import DataError, suggest

Document = list[str]  # its lines, stripped, none of them empty
MOST_LINES = 256  # a longer document is cut, so that a file without blank lines is no single one
COMPRESSED: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".xz": lzma.open, ".zst": zstandard.open}
KINDS = (".txt", ".jsonl", ".parquet", ".csv", ".tsv")
_FAULTS = (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error, zstandard.ZstdError, pa.ArrowInvalid)


def find_files(patterns: Sequence[str]) -> list[Path]:
    """List the files that paths, folders and globs name, sorted, each once.

    Raises:
        DataError: if a pattern matches nothing, or a file is of no known kind.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            matches = sorted(each for each in path.rglob("*") if each.is_file() and kind_of(each) in KINDS)
        elif path.exists():
            matches = [path]
        else:
            found_paths = map(Path, glob(str(path), recursive=True))  # noqa: PTH207 - an absolute pattern
            matches = sorted(each for each in found_paths if each.is_file())
        if not matches:
            endings = ", ".join(KINDS)
            raise DataError(f"corpus files: '{pattern}' matches no file; allowed: {endings}, plain or {_packed()}")
        found.update(dict.fromkeys(matches))
    for path in found:
        if kind_of(path) not in KINDS:
            allowed = ", ".join(KINDS)
            raise DataError(f"{path}: no reader for '{kind_of(path)}' files; allowed: {allowed}, plain or {_packed()}")
    return list(found)


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
            with _open(path) as file:
                yield from _READERS[kind_of(path)](file, path, text)
        except _FAULTS as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise DataError(f"cannot read {path}: {reason}") from None


def _packed() -> str:
    return ", ".join(COMPRESSED)


def _open(path: Path) -> IO[bytes]:
    opened: IO[bytes] = COMPRESSED[path.suffix.lower()](path) if path.suffix.lower() in COMPRESSED else path.open("rb")
    return opened


def _plain(file: IO[bytes], path: Path, text: str) -> Iterator[Document]:
    lines: Document = []
    for raw in io.TextIOWrapper(file, encoding="utf-8-sig"):
        line = raw.strip()
        if line:
            lines.append(line)
        if lines and (not line or len(lines) == MOST_LINES):
            yield lines
            lines = []
    if lines:
        yield lines


def _json_lines(file: IO[bytes], path: Path, text: str) -> Iterator[Document]:
    for number, raw in enumerate(io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n"), 1):
        if raw.strip():
            try:
                row = json.loads(raw)
            except ValueError:
                raise DataError(f"{path}:{number}: not a line of JSON") from None
            if not isinstance(row, dict) or text not in row:
                keys = row if isinstance(row, dict) else ()
                raise DataError(f"{path}:{number}: there is no key '{text}'; {suggest(text, keys)}")
            yield from _rows(row[text], path, number)


def _parquet(file: IO[bytes], path: Path, text: str) -> Iterator[Document]:
    with tempfile.TemporaryFile() as copy:
        if path.suffix.lower() in COMPRESSED:  # its index stands at the end, so it has to be unpacked first
            shutil.copyfileobj(file, copy)
        table = pq.ParquetFile(copy if path.suffix.lower() in COMPRESSED else path)
        if text not in table.schema_arrow.names:
            raise DataError(f"{path}: there is no column '{text}'; {suggest(text, table.schema_arrow.names)}")
        number = 0
        for batch in table.iter_batches(batch_size=1000, columns=[text]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield from _rows(value, path, number)


def _table(file: IO[bytes], path: Path, text: str) -> Iterator[Document]:
    csv.field_size_limit(sys.maxsize)
    separator = "," if kind_of(path) == ".csv" else "\t"
    rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), delimiter=separator, strict=True)
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
    """Cut the text of one row into lines; a row without text gives nothing."""
    if value is None:
        return
    if not isinstance(value, str):
        raise DataError(f"{path}, row {number}: its text is {type(value).__name__}, not a string")
    lines = [line.strip() for line in value.splitlines() if line.strip()]
    for start in range(0, len(lines), MOST_LINES):
        yield lines[start : start + MOST_LINES]


_READERS = {".txt": _plain, ".jsonl": _json_lines, ".parquet": _parquet, ".csv": _table, ".tsv": _table}
