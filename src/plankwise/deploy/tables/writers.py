"""Tables of predictions, block by block: each block makes bytes that stand by themselves and follow one another.

A packed file is a row of members or frames, one for each block, which every unpacker reads as one file; so it may be
cut behind any block. Parquet, whose index stands at the end, is kept as Arrow streams until all rows are there.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from plankwise.core.errors import OutputError
from plankwise.data.batching.pooling import Floats
from plankwise.data.table_io import SEPARATORS, check_kind
from plankwise.data.text_files import kind_of
from plankwise.deploy.predictor import chosen_labels

DECIMALS = 6  # of probabilities in text; Parquet holds them as float32
ROW_GROUP = 65_536
_as_line = json.JSONEncoder(ensure_ascii=False).encode  # made once, as json.dumps would for every row
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, 6, mtime=0),  # without the time equal rows give equal bytes
    ".xz": lzma.compress,
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


@dataclass(frozen=True)
class Layout:
    """The columns of a table of predictions.

    Attributes:
        passthrough: names of those that come first: the identifier or row number, and what was kept of the input.
        types: of these, in Parquet.
        labels: of the model.
        kind: `single_label` or `multi_label`.
    """

    passthrough: tuple[str, ...]
    types: tuple[Any, ...]
    labels: tuple[str, ...]
    kind: str

    @property
    def several(self) -> bool:
        """Whether a row has any number of labels."""
        return self.kind == "multi_label"

    @property
    def names(self) -> list[str]:
        """All columns."""
        predicted = "predicted_labels" if self.several else "predicted_label"
        return [*self.passthrough, predicted, *(f"probability_{label}" for label in self.labels)]

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

    def __init__(self, layout: Layout, pack: Callable[[bytes], bytes]) -> None:
        self.layout, self._pack = layout, pack

    def head(self) -> bytes:
        """Give what comes before the first block."""
        return self._pack(self._head())

    def block(self, passthrough: Sequence[Sequence[Any]], shares: Floats) -> bytes:
        """Write rows: what each carries, and its probabilities, [rows, labels]."""
        return self._pack(self._block(passthrough, shares)) if len(passthrough) else b""

    def finish(self, written: Path) -> Path:
        """Make the whole file of that of all blocks, which stays as it is, and give its path; text is whole already."""
        return written

    def _head(self) -> bytes:
        return b""

    @abstractmethod
    def _block(self, passthrough: Sequence[Sequence[Any]], shares: Floats) -> bytes: ...

    def _predicted(self, shares: Floats) -> list[Any]:
        """Give each row's label, or its list of labels."""
        chosen = chosen_labels(shares, self.layout.labels, self.layout.kind)
        return [list(labels) if self.layout.several else labels[0] for labels in chosen]


class Separated(Writer):
    """CSV and TSV; several labels are joined by the first of | ; , / that is in none of them."""

    def __init__(self, layout: Layout, pack: Callable[[bytes], bytes], separator: str) -> None:
        super().__init__(layout, pack)
        self._separator = separator
        self._joint = next((sign for sign in "|;,/" if not any(sign in label for label in layout.labels)), "|")

    def _head(self) -> bytes:
        return self._lines([self.layout.names])

    def _block(self, passthrough: Sequence[Sequence[Any]], shares: Floats) -> bytes:
        rows = zip(passthrough, self._predicted(shares), shares.round(DECIMALS).tolist(), strict=True)
        return self._lines([*map(as_text, first), self._joined(labels), *row] for first, labels, row in rows)

    def _joined(self, labels: Any) -> str:
        return self._joint.join(labels) if self.layout.several else labels

    def _lines(self, rows: Iterator[list[Any]] | list[list[str]]) -> bytes:
        text = io.StringIO(newline="")
        write = csv.writer(text, delimiter=self._separator, lineterminator="\n").writerow
        quoted = csv.writer(text, delimiter=self._separator, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow
        for row in rows:  # a lone carriage return would end the row, and is not quoted by every version of the library
            (quoted if any(isinstance(cell, str) and "\r" in cell for cell in row) else write)(row)
        return text.getvalue().encode("utf-8", "replace")


class JsonLines(Writer):
    """One JSON object on each line; several labels are a list."""

    def _block(self, passthrough: Sequence[Sequence[Any]], shares: Floats) -> bytes:
        names, shown = self.layout.names, shares.round(DECIMALS).tolist()
        rows = [
            dict(zip(names, [*map(as_json, first), labels, *row], strict=True))
            for first, labels, row in zip(passthrough, self._predicted(shares), shown, strict=True)
        ]
        try:
            return "".join(f"{_as_line(row)}\n" for row in rows).encode()
        except UnicodeEncodeError:  # a lone half of a surrogate pair can only stand as an escape
            return "".join(json.dumps(row) + "\n" for row in rows).encode()


class Parquet(Writer):
    """Parquet in row groups of 65,536; several labels are a list."""

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        label = pa.list_(pa.string()) if self.layout.several else pa.string()
        types = [*self.layout.types, label, *(pa.float32() for _ in self.layout.labels)]
        return pa.schema(list(zip(self.layout.names, types, strict=True)))

    def _block(self, passthrough: Sequence[Sequence[Any]], shares: Floats) -> bytes:
        cells = [*zip(*passthrough, strict=True), self._predicted(shares), *shares.T.astype(np.float32)]
        kinds = self.schema.types
        columns = [pa.array(_sound(each, kind), kind) for each, kind in zip(cells, kinds, strict=True)]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema) as stream:
            stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        return bytes(sink.getvalue())

    def finish(self, written: Path) -> Path:
        """Turn Arrow streams into Parquet, a row group at a time."""
        made = written.with_name(f"{written.name}.parquet")
        with pq.ParquetWriter(made, self.schema) as writer:
            held: list[pa.Table] = []
            for table in _streams(written):
                held.append(table)
                if sum(map(len, held)) >= ROW_GROUP:
                    writer.write_table(pa.concat_tables(held))
                    held = []
            if held:
                writer.write_table(pa.concat_tables(held))
        return made


def _sound(cells: Sequence[Any], kind: pa.DataType) -> Sequence[Any]:
    return [None if cell is None else as_text(cell) for cell in cells] if pa.types.is_string(kind) else cells


def _streams(path: Path) -> Iterator[pa.Table]:
    with pa.OSFile(str(path)) as file:
        while file.tell() < file.size():
            with pa.ipc.open_stream(file) as stream:
                yield stream.read_all()


def writer_for(path: Path, layout: Layout) -> Writer:
    """Choose the writer that a file's name asks for.

    Raises:
        DataError: for an ending that is no table's.
        OutputError: for packed Parquet, or two columns of one name.
    """
    check_kind(path)
    layout.check()
    kind, packing = kind_of(path), path.suffix.lower()
    if kind == ".parquet":
        if packing != kind:
            raise OutputError(f"{path}: Parquet is compressed in itself; allowed: {path.with_suffix('').name}")
        return Parquet(layout, bytes)
    pack = PACK.get(packing, bytes)
    return JsonLines(layout, pack) if kind == ".jsonl" else Separated(layout, pack, SEPARATORS[kind])


def as_text(cell: Any) -> str:
    """Write a cell of any table as text."""
    if isinstance(cell, str):
        return cell if cell.isascii() else cell.encode("utf-8", "replace").decode()
    if cell is None:
        return ""
    return json.dumps(cell, default=str, ensure_ascii=False) if isinstance(cell, (bool, list, dict)) else str(cell)


def as_json(cell: Any) -> Any:
    """Make a cell of any table what JSON can hold; infinities and what is no number become null."""
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    if isinstance(cell, (str, int, list, dict)) or cell is None:
        return cell
    return str(cell)
