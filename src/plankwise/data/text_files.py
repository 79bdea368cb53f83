"""Opening files of text and tables: compressed or not, in UTF-8 or a named encoding; a wrong one is recognized."""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import shlex
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pydantic

from plankwise.core.errors import DataError
from plankwise.core.paths import check_file

COMPRESSED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".zst": lambda path: pa.input_stream(str(path), compression="zstd"),  # of zstd readers, this one notices a cut
}
_COMPRESSIONS = {".gz": "gzip", ".xz": "xz", ".zst": "zstd"}
FAULTS = (OSError, EOFError, UnicodeError, lzma.LZMAError, zlib.error, pa.ArrowException)
DELIMITERS = (",", ";", "\t", "|")
SNIFFED_BYTES = 1 << 20
_BOMS = {  # UTF-32 first: its marks begin like those of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NARROW, _WIDE = ("cp125", "iso8859", "mac-"), ("utf-16", "utf-32")
_MAGIC = {
    b"PK\x03\x04": "a ZIP or Excel file; save it as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "an Excel file; save it as CSV in UTF-8",
    b"\x1f\x8b": "packed by gzip; let its name end in .gz",
    b"\xfd7zXZ": "packed by xz; let its name end in .xz",
    b"\x28\xb5\x2f\xfd": "packed by zstd; let its name end in .zst",
    b"PAR1": "Parquet; let its name end in .parquet",
}
_UNPACKERS = {".bz2": "bunzip2 --keep", ".zip": "unzip"}
_SPREADSHEETS = {".xlsx": "openpyxl", ".xls": "xlrd", ".ods": "odfpy"}


@dataclass(frozen=True)
class TextFormat:
    """Encoding and delimiter of a table.

    Attributes:
        encoding: of its characters, as Python names it; UTF-8, with or without a byte-order mark, by default.
        delimiter: between the cells of CSV; a comma by default.
    """

    encoding: str | None = None
    delimiter: str | None = None

    def __post_init__(self) -> None:
        try:
            check_encoding(self.encoding)
        except ValueError as error:
            raise DataError(str(error)) from None
        if self.delimiter not in (None, *DELIMITERS):
            shown = ", ".join(map(repr, DELIMITERS))
            raise DataError(f"delimiter {self.delimiter!r} is not supported; allowed: {shown}")

    def fault(self, path: Path) -> str | None:
        """Return why these settings do not fit a file of its kind, or None."""
        if self.delimiter is not None and kind_of(path) != ".csv":
            return f"delimiter is for .csv files, not {path}"
        if self.encoding is not None and kind_of(path) == ".parquet":
            return f"encoding is for text files, not {path}"
        return None


def check_encoding(name: str | None) -> str | None:
    """Return the name of a text encoding unchanged.

    Raises:
        ValueError: if Python knows no such encoding.
    """
    try:
        if name is not None:
            "".encode(name)  # refuses codecs that are not of text, such as hex
    except (LookupError, ValueError):
        raise ValueError(
            f"no encoding '{name}'; allowed: utf-8, cp1252, utf-16 and all others that Python has"
        ) from None
    return name


EncodingName = Annotated[str, pydantic.AfterValidator(check_encoding)]


def kind_of(path: Path) -> str:
    """Return the lower-case suffix of a file that names its content, before the one of its compression."""
    return unpacked(path).suffix.lower()


def unpacked(path: Path) -> Path:
    """Return the name of a file without the suffix of its compression."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED else path


def open_packed(path: Path) -> IO[bytes]:
    """Open a file, compressed or not, for reading its content; use it within `readable`."""
    check_file(path)
    opened: IO[bytes] = COMPRESSED[path.suffix.lower()](path) if path.suffix.lower() in COMPRESSED else path.open("rb")
    return opened


def bytes_read(file: IO[bytes]) -> int:
    """Return how many bytes on disk are read of a plain or gzipped file that `open_packed` has opened."""
    on_disk: IO[bytes] = getattr(file, "fileobj", file)
    return on_disk.tell()


@contextmanager
def readable(path: Path, encoding: str | None = None) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into one line that quotes none of its content.

    Raises:
        DataError: if it cannot be opened, decompressed or decoded.
    """
    try:
        yield
    except FAULTS as error:
        raise DataError(f"cannot read {path}: {_reason(error, path, encoding)}") from None


@contextmanager
def open_parquet(file: IO[bytes], path: Path) -> Iterator[pq.ParquetFile]:
    """Return the reader of a Parquet file that `open_packed` has opened."""
    with tempfile.TemporaryFile() as copy:
        if path.suffix.lower() in COMPRESSED:  # its index is at the end, so it has to be decompressed first
            shutil.copyfileobj(file, copy)
        yield pq.ParquetFile(copy if path.suffix.lower() in COMPRESSED else path)


def open_text(file: IO[bytes], encoding: str | None, newline: str | None = None) -> io.TextIOWrapper:
    """Decode what `open_packed` has opened."""
    return io.TextIOWrapper(file, encoding=encoding or "utf-8", newline=newline)


def checked_lines(lines: Iterable[str], path: Path, encoding: str | None) -> Iterator[str]:
    """Yield lines without a byte-order mark.

    Raises:
        DataError: if they can be decoded and yet are in another encoding: UTF-16 without a mark reads as UTF-8 full of
            NULs, and UTF-8 reads as any encoding of one byte per character.
    """
    if encoding is not None and _is_other(encoding, _likely_encoding(_head(path))):
        raise DataError(f"cannot read {path}: {_not_in(encoding, path)}")
    rest = iter(lines)
    first = next(rest, "").removeprefix("\ufeff")
    if "\0" in first:
        raise DataError(f"cannot read {path}: {_not_in(encoding, path)}")
    if first:
        yield first
    yield from rest


def read_lines(path: Path, encoding: str | None = None) -> list[str]:
    """Read the lines of a text file, compressed or not, stripped.

    Raises:
        DataError: if it cannot be read.
    """
    with readable(path, encoding), open_packed(path) as file, open_text(file, encoding) as read:
        return [line.strip() for line in checked_lines(read, path, encoding)]


def _reason(error: BaseException, path: Path, encoding: str | None) -> str:
    """Return why a file cannot be read; messages of libraries may quote its content."""
    said = getattr(error, "strerror", None)
    if said:
        return str(said)
    if isinstance(error, UnicodeError):
        return "its text is not UTF-8" if kind_of(path) == ".parquet" else _not_in(encoding, path)
    if path.suffix.lower() in _COMPRESSIONS and not isinstance(error, pa.ArrowException):
        return f"the {_COMPRESSIONS[path.suffix.lower()]} stream is damaged or cut off"
    return "it is no Parquet file, or damaged" if kind_of(path) == ".parquet" else type(error).__name__


def conversion(path: Path) -> str | None:
    """Return the command that converts a file to a kind that can be read, or None."""
    kind, source = path.suffix.lower(), shlex.quote(str(path))
    if kind == ".json":
        target = shlex.quote(str(path.with_suffix(".jsonl")))
        lines = _head(path).split(b"\n", 2)
        if len(lines) > 2 and all(line.lstrip().startswith(b"{") for line in lines[:2]):
            return f"mv {source} {target}"  # JSON lines by another name
        code = "import json, sys; [print(json.dumps(row)) for row in json.load(open(sys.argv[1], encoding='utf-8'))]"
        return f'python -c "{code}" {source} > {target}'
    if kind in _UNPACKERS:
        return f"{_UNPACKERS[kind]} {source}"
    if kind in _SPREADSHEETS:
        target = shlex.quote(str(path.with_suffix(".csv")))
        code = (
            "import pandas, sys; pandas.read_excel(sys.argv[1], dtype=str, keep_default_na=False)"
            ".to_csv(sys.argv[2], index=False)"
        )
        return f'pip install {_SPREADSHEETS[kind]} && python -c "{code}" {source} {target}'
    return None


def refuse_kind(path: Path, allowed: Iterable[str]) -> DataError:
    """Return the error for a file of a kind that cannot be read."""
    command = conversion(path) if path.is_file() else None
    convert = f"; to convert it: {command}" if command else ""
    said = f"allowed: {', '.join(allowed)}, plain or {', '.join(COMPRESSED)}"
    return DataError(f"{path}: no reader for '{kind_of(path)}' files; {said}{convert}")


def _not_in(encoding: str | None, path: Path) -> str:
    wanted = (encoding or "UTF-8").upper()
    head = _head(path)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return f"it is not text but {kind}"
    likely = _likely_encoding(head)
    if likely is None:
        return f"it is not text in {wanted}, nor in another encoding that can be recognized"
    if likely == (encoding or "utf-8").lower():
        return f"it is not {wanted} throughout; part of it is damaged, or in another encoding"
    return (
        f"it is not {wanted}, most likely {likely}; give encoding: {likely} (--encoding {likely} at the command line)"
    )


def _is_other(encoding: str, likely: str | None) -> bool:
    """Return whether a file is evidently in another encoding, although `encoding` can decode it."""
    name = codecs.lookup(encoding).name
    if name.startswith(_NARROW):
        return likely not in ("cp1252", "latin-1", None)
    return name.startswith(_WIDE) and likely is not None and not likely.startswith(_WIDE)


def _head(path: Path) -> bytes:
    """Read the beginning of a file's content, compressed or not."""
    try:
        with open_packed(path) as file:
            return file.read(SNIFFED_BYTES)
    except FAULTS:
        return b""


def _likely_encoding(head: bytes) -> str | None:
    """Guess the encoding of a file by its byte-order mark, its NULs and its bytes."""
    for mark, name in _BOMS.items():
        if head.startswith(mark):
            return name
    zeros = [head[side::2].count(0) for side in (0, 1)]
    if any(zeros):
        lopsided = max(zeros) > 20 * min(zeros) and max(zeros) > len(head) // 8
        return ("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le") if lopsided else None
    try:
        read = codecs.getincrementaldecoder("utf-8")().decode(head)
        return "cp1252" if read.isascii() else "utf-8"
    except UnicodeError:
        return "cp1252" if not any(byte in head for byte in b"\x81\x8d\x8f\x90\x9d") else "latin-1"
