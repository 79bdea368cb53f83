"""Text files of many kinds as one stream of documents."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import IO, Any

from datasets import Dataset

from plankwise.core.errors import DataError, suggest
from plankwise.data.table_io import SEPARATORS, Malformed, check_columns, parse_object, separated_rows
from plankwise.data.text_files import (
    COMPRESSED,
    FAULTS,
    checked_lines,
    kind_of,
    open_packed,
    open_parquet,
    open_text,
    reason_of,
    refuse_kind,
)

Document = list[str]  # its lines, stripped, none of them empty
MOST_LINES = 256  # a longer document is cut, so that a file without blank lines is no single one
MOST_CHARACTERS = 100_000  # a longer line is cut too, so that a file without line ends is no single one
ROWS_PER_READ = 32
KINDS = (".txt", ".jsonl", ".parquet", ".csv", ".tsv")


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
                raise refuse_kind(path, KINDS)
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


def documents_of(files: Sequence[Path], text: str, encoding: str | None = None) -> Iterator[Document]:
    """Read files one after the other, as a stream.

    Args:
        files: by `find_files`.
        text: key or column of the text, for kinds that have one.
        encoding: of text files; UTF-8 by default.

    Raises:
        DataError: if one cannot be read; rows are named by number, never quoted.
    """
    for path in files:
        try:
            with open_packed(path) as file:
                yield from _READERS[kind_of(path)](file, path, text, encoding)
        except FAULTS as error:
            raise DataError(f"cannot read {path}: {reason_of(error, path, encoding)}") from None


def _plain(file: IO[bytes], path: Path, text: str, encoding: str | None) -> Iterator[Document]:
    lines: Document = []
    with open_text(file, encoding) as read:
        for raw in checked_lines(iter(lambda: read.readline(MOST_CHARACTERS), ""), path, encoding):
            line = raw.strip()
            if line:
                lines.append(line)
            if lines and (not line or len(lines) == MOST_LINES):
                yield lines
                lines = []
    if lines:
        yield lines


def _json_lines(file: IO[bytes], path: Path, text: str, encoding: str | None) -> Iterator[Document]:
    with open_text(file, encoding, newline="\n") as read:
        for number, raw in enumerate(checked_lines(read, path, encoding), 1):
            if not raw.strip():
                continue
            row = parse_object(raw)
            if isinstance(row, Malformed):
                raise DataError(f"{path}:{number}: {row}")
            if text not in row:
                raise DataError(f"{path}:{number}: there is no key '{text}'; {suggest(text, row)}")
            yield from _rows(row[text], path, number)


def _parquet(file: IO[bytes], path: Path, text: str, encoding: str | None) -> Iterator[Document]:
    with open_parquet(file, path) as table:
        check_columns(path, [text], table.schema_arrow.names)
        number = 0
        for batch in table.iter_batches(batch_size=1000, columns=[text]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield from _rows(value, path, number)


def _table(file: IO[bytes], path: Path, text: str, encoding: str | None) -> Iterator[Document]:
    with open_text(file, encoding, newline="") as read:
        lines = checked_lines(read, path, encoding)
        rows = separated_rows(lines, path, [text], SEPARATORS[kind_of(path)], swallowing=True)
        for number, row in enumerate(rows, 1):
            if isinstance(row, Malformed):
                raise DataError(f"{path}, row {number}: {row}")
            yield from _rows(row[0], path, number)


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
