"""Files of text and tables as one stream of documents."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

from datasets import Dataset

from plankwise.core.errors import DataError
from plankwise.data.json_objects import Malformed
from plankwise.data.table_io import read_rows
from plankwise.data.text_files import (
    COMPRESSED,
    TextFormat,
    checked_lines,
    kind_of,
    open_packed,
    open_text,
    readable,
    refuse_kind,
)

Document = list[str]  # its lines, stripped, none of them empty
MAX_LINES = 256  # of a document; a longer one is cut, so that a file without blank lines does not become a single one
MAX_CHARACTERS = 100_000  # of a line; a longer one is cut, so that a file without line ends does not become one line
ROWS_PER_READ = 32
KINDS = (".txt", ".jsonl", ".parquet", ".csv", ".tsv")


def find_files(patterns: Sequence[str]) -> list[Path]:
    """Return the files that paths, folders and globs name, sorted, each once; hidden files in folders are skipped.

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


def documents_of(
    files: Sequence[Path], text: str, encoding: str | None = None, max_characters: int = MAX_CHARACTERS
) -> Iterator[Document]:
    """Yield the documents of some files, one after the other.

    Args:
        files: by `find_files`.
        text: key or column of the text; unused for .txt.
        encoding: of text files; UTF-8 by default.
        max_characters: a longer line is cut.

    Raises:
        DataError: if a file cannot be read; rows are named by number, never quoted.
    """
    for path in files:
        if kind_of(path) == ".txt":
            yield from _plain(path, encoding, max_characters)
            continue
        rows = read_rows(path, [text], TextFormat(encoding), keys="every", multiline=True)
        for number, row in enumerate(rows, 1):
            if isinstance(row, Malformed):
                raise DataError(f"{path}, row {number}: {row}")
            if row[0] is not None and not isinstance(row[0], str):
                raise DataError(f"{path}, row {number}: its text is {type(row[0]).__name__}, not a string")
            yield from cut_row(row[0], max_characters)


def _plain(path: Path, encoding: str | None, max_characters: int) -> Iterator[Document]:
    """Yield the documents of a text file, which blank lines separate."""
    lines: Document = []
    with readable(path, encoding), open_packed(path) as file, open_text(file, encoding) as read:
        for raw in checked_lines(iter(lambda: read.readline(max_characters), ""), path, encoding):
            line = raw.strip()
            if line:
                lines.append(line)
            if lines and (not line or len(lines) == MAX_LINES):
                yield lines
                lines = []
    if lines:
        yield lines


def cut_row(value: str | None, max_characters: int = MAX_CHARACTERS) -> Iterator[Document]:
    """Cut the text of one row into documents of lines; a row without text gives none.

    A lone half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes the replacement character.
    """
    sound = (value or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    read = io.StringIO(sound, newline=None)
    pieces = (raw.strip() for raw in iter(lambda: read.readline(max_characters), ""))
    lines = [line for line in pieces if line]
    for start in range(0, len(lines), MAX_LINES):
        yield lines[start : start + MAX_LINES]


def texts_of(data: Dataset, column: str = "text") -> Iterator[str]:
    """Yield a column, a few rows at a time: a thousand long texts would need much memory."""
    for batch in data.select_columns([column]).with_format("arrow").iter(ROWS_PER_READ):
        yield from (text for text in batch.column(column).to_pylist() if text is not None)
