"""Writers of tables of predictions, block by block: the bytes of each block are complete and can be appended.

A compressed file is a sequence of members or frames, one for each block, which every decompressor reads as one file; so
it may be cut after any block. Parquet has its index at the end, so its rows are kept as Arrow streams until all of them
are written.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from plankwise.core.errors import OutputError
from plankwise.data.batching.pooling import Floats
from plankwise.data.table_io import SEPARATORS, check_kind
from plankwise.data.text_files import kind_of
from plankwise.deploy.answers import Answer

DECIMALS = 6  # of probabilities in text; Parquet holds them as float32
ROW_GROUP = 65_536
_as_line = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would create an encoder for every row
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, 6, mtime=0),  # no time stamp: equal rows are equal bytes
    ".xz": lzma.compress,
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


@dataclass(frozen=True)
class OutputColumns:
    """The columns of a table of predictions.

    Attributes:
        passthrough: names of the columns copied from the input, or of the row number; they come first.
        types: of these in Parquet.
        labels: of the model.
        answer: kind of answer of the model.
    """

    passthrough: tuple[str, ...]
    types: tuple[Any, ...]
    labels: tuple[str, ...]
    answer: Answer

    @cached_property
    def predicted(self) -> dict[str, pa.DataType]:
        """The columns that hold predictions, with their types in Parquet."""
        return self.answer.column_types(self.labels)

    @cached_property
    def names(self) -> list[str]:
        """All columns."""
        return [*self.passthrough, *self.predicted]

    def check(self) -> None:
        """Refuse two columns of one name.

        Raises:
            OutputError: naming them.
        """
        for name in self.names:
            if self.names.count(name) > 1:
                raise OutputError(f"the output would have two columns '{name}'; leave it out of --keep or rename it")


class Writer(ABC):
    """Turns blocks of predictions into bytes."""

    def __init__(self, columns: OutputColumns, compress: Callable[[bytes], bytes]) -> None:
        self.columns, self._compress = columns, compress

    def head(self) -> bytes:
        """Return what comes before the first block."""
        return self._compress(self._head())

    def block(self, passthrough: Sequence[Sequence[Any]], probabilities: Floats) -> bytes:
        """Return the bytes of some rows.

        Args:
            passthrough: cells that each row copies from the input.
            probabilities: [rows, labels].
        """
        return self._compress(self._block(passthrough, probabilities)) if len(passthrough) else b""

    def finish(self, written: Path) -> Path:
        """Turn the file of all blocks into the final one and return its path; `written` stays as it is."""
        return written

    def _head(self) -> bytes:
        return b""

    @abstractmethod
    def _block(self, passthrough: Sequence[Sequence[Any]], probabilities: Floats) -> bytes: ...

    def _rows(self, passthrough: Sequence[Sequence[Any]], probabilities: Floats) -> Iterator[tuple[Any, Any]]:
        """Yield the copied cells and the predicted cells of each row, with numbers rounded for text."""
        columns = self.columns.answer.columns(probabilities, self.columns.labels)
        shown = [each.round(DECIMALS).tolist() if isinstance(each, np.ndarray) else each for each in columns]
        return zip(passthrough, zip(*shown, strict=True), strict=True)


class Separated(Writer):
    """CSV and TSV; lists of labels are joined by the first of | ; , / that no label contains."""

    def __init__(self, columns: OutputColumns, compress: Callable[[bytes], bytes], separator: str) -> None:
        super().__init__(columns, compress)
        self._separator = separator
        self._joint = next((sign for sign in "|;,/" if not any(sign in label for label in columns.labels)), "|")

    def _head(self) -> bytes:
        return self._lines([self.columns.names])

    def _block(self, passthrough: Sequence[Sequence[Any]], probabilities: Floats) -> bytes:
        rows = self._rows(passthrough, probabilities)
        return self._lines([*map(as_text, copied), *map(self._joined, predicted)] for copied, predicted in rows)

    def _joined(self, cell: Any) -> Any:
        return self._joint.join(map(as_text, cell)) if isinstance(cell, list) else cell

    def _lines(self, rows: Iterable[Sequence[Any]]) -> bytes:
        text = io.StringIO(newline="")
        write = csv.writer(text, delimiter=self._separator, lineterminator="\n").writerow
        quoted = csv.writer(text, delimiter=self._separator, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow
        for row in rows:  # a lone carriage return would end the row, and not every version of `csv` quotes it
            (quoted if any(isinstance(cell, str) and "\r" in cell for cell in row) else write)(row)
        return text.getvalue().encode("utf-8", "replace")


class JsonLines(Writer):
    """One JSON object per line; several labels are a list."""

    def _block(self, passthrough: Sequence[Sequence[Any]], probabilities: Floats) -> bytes:
        rows = [
            dict(zip(self.columns.names, [*map(as_json, copied), *predicted], strict=True))
            for copied, predicted in self._rows(passthrough, probabilities)
        ]
        try:
            return "".join(f"{_as_line(row)}\n" for row in rows).encode()
        except UnicodeEncodeError:  # half a surrogate pair can only be written as an escape
            return "".join(json.dumps(row) + "\n" for row in rows).encode()


class Parquet(Writer):
    """Parquet in row groups of 65,536; several labels are a list."""

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        types = [*self.columns.types, *self.columns.predicted.values()]
        return pa.schema(list(zip(self.columns.names, types, strict=True)))

    def _block(self, passthrough: Sequence[Sequence[Any]], probabilities: Floats) -> bytes:
        predicted = self.columns.answer.columns(probabilities, self.columns.labels)
        cells = [*zip(*passthrough, strict=True), *predicted]
        arrays = [pa.array(_cast(each, kind), kind) for each, kind in zip(cells, self.schema.types, strict=True)]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema) as stream:
            stream.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        return bytes(sink.getvalue())

    def finish(self, written: Path) -> Path:
        """Turn Arrow streams into Parquet, one row group at a time."""
        made = written.with_name(f"{written.name}.parquet")
        with pq.ParquetWriter(made, self.schema) as writer:
            held: list[pa.Table] = []
            for table in _streams(written):
                held.append(table)
                if sum(map(len, held)) >= ROW_GROUP:  # blocks are smaller than a row group
                    writer.write_table(pa.concat_tables(held))
                    held = []
            if held:
                writer.write_table(pa.concat_tables(held))
        return made


def _cast(cells: Any, kind: pa.DataType) -> Any:
    """Make cells what `pa.array` takes for a type."""
    if pa.types.is_string(kind):
        return [None if cell is None else as_text(cell) for cell in cells]
    return cells.astype(kind.to_pandas_dtype()) if isinstance(cells, np.ndarray) else cells


def _streams(path: Path) -> Iterator[pa.Table]:
    with pa.OSFile(str(path)) as file:
        while file.tell() < file.size():
            with pa.ipc.open_stream(file) as stream:
                yield stream.read_all()


def writer_for(path: Path, columns: OutputColumns) -> Writer:
    """Return the writer for the ending of a file's name.

    Raises:
        DataError: if the ending is not that of a table.
        OutputError: for compressed Parquet, or two columns of one name.
    """
    check_kind(path)
    columns.check()
    kind, ending = kind_of(path), path.suffix.lower()
    if kind == ".parquet":
        if ending != kind:
            raise OutputError(f"{path}: Parquet has its own compression; allowed: {path.with_suffix('').name}")
        return Parquet(columns, bytes)
    compress = COMPRESS.get(ending, bytes)
    return JsonLines(columns, compress) if kind == ".jsonl" else Separated(columns, compress, SEPARATORS[kind])


def as_text(cell: Any) -> str:
    """Convert a cell of any table to text."""
    if isinstance(cell, str):
        return cell if cell.isascii() else cell.encode("utf-8", "replace").decode()
    if cell is None:
        return ""
    return json.dumps(cell, default=str, ensure_ascii=False) if isinstance(cell, (bool, list, dict)) else str(cell)


def as_json(cell: Any) -> Any:
    """Convert a cell of any table to what JSON can hold; infinities and NaN become null."""
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    if isinstance(cell, (str, int, list, dict)) or cell is None:
        return cell
    return str(cell)
