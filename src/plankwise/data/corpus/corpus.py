"""Running text as a task: any number of files of any size, read as a stream and never whole in memory.

The text is written once into an Arrow file, which is memory-mapped. The file is cached under the hash of its sources
and settings, so that a second run, or a second process, finds it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import compress
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import datasets
import numpy as np
import pyarrow as pa
import pydantic
from datasets import Dataset, DatasetDict

from plankwise.core.cache import built_once, cache_folder
from plankwise.core.errors import DataError, suggest
from plankwise.core.files import sha256, write_json
from plankwise.core.numbers import Bounds, Seed
from plankwise.core.recipe import settings
from plankwise.data.corpus.contamination import ContaminationFilter
from plankwise.data.corpus.duplicates import LineHashes, hash_line
from plankwise.data.corpus.streams import Document, cut_row, documents_of, find_files, texts_of
from plankwise.data.task import DEVELOPMENT, TRAIN, Access, Task
from plankwise.data.text_files import COMPRESSED, EncodingName, TextFormat, kind_of

logger = logging.getLogger(__name__)
FORMAT = 2  # of cache entries; part of their keys
ROWS_PER_WRITE = 1000
CHARACTERS_PER_WRITE = 4_000_000
CONTAMINATED = "contaminated_lines_dropped"
FEATURES = datasets.Features({"id": datasets.Value("string"), "text": datasets.Value("large_string")})


@settings
class Corpus:
    """Running text to train a language model on.

    Attributes:
        files: files, folders or globs of .txt, .jsonl, .parquet, .csv and .tsv, plain or as .gz, .xz or .zst. In .txt
            a blank line ends a document; elsewhere each row is one.
        dataset: a `datasets` id or local dataset folder instead of files.
        configuration: of that dataset.
        split: of that dataset.
        text: key or column of the text.
        encoding: of text files, such as cp1252 or utf-16; UTF-8 by default.
        title: name of the corpus in reports.
        deduplicate: drop every line that is equal to an earlier line of the corpus.
        held_out: share of the documents to measure perplexity on; chosen by content, so that equal documents fall on
            the same side.
        access: `credentialed` keeps all text out of records, reports, logs and messages.
        split_seed: seed of what is held out.
    """

    kinds: ClassVar[tuple[str, ...]] = ("masked_lm",)
    name: Literal["corpus"] = "corpus"
    files: Annotated[tuple[str, ...], pydantic.Field(min_length=1)] | None = None
    dataset: str | None = None
    configuration: str | None = None
    split: str = "train"
    text: str = "text"
    encoding: EncodingName | None = None
    title: str | None = None
    deduplicate: bool = False
    held_out: Annotated[float, Bounds(0, 0.5, "most of the corpus is for training", above=True, below=True)] = 0.01
    access: Access = "open"
    split_seed: Seed = 0

    @pydantic.model_validator(mode="after")
    def _files_or_dataset(self) -> Corpus:
        if (self.files is None) == (self.dataset is None):
            raise ValueError("give either files or dataset")
        if self.encoding is not None and self.dataset is not None:
            raise ValueError("encoding is for files, not a dataset")
        return self

    def load(self, contamination: ContaminationFilter | None = None) -> Task:
        """Open the corpus from the cache, after writing it there if it is missing.

        Args:
            contamination: finds the lines to leave out; `counts.json` and the log count them.

        Raises:
            DataError: if nothing is found, a file cannot be read, or a split would be empty.
        """
        folder, key = self._written(contamination)
        counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        logger.info("corpus: %s", ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items()))
        splits = DatasetDict({part: Dataset.from_file(str(folder / f"{part}.arrow")) for part in (TRAIN, DEVELOPMENT)})
        title = self.title or (Path(self.files[0]).name.split(".")[0] if self.files else str(self.dataset))
        hashes = {part: f"{key}/{part}" for part in splits}
        return Task(title, splits, (), "masked_lm", ("masked_accuracy",), self.access, hashes)

    def count_contaminated(self, contamination: ContaminationFilter) -> int:
        """Count the lines that `contamination` finds; the corpus without them is cached, as `load` would do it."""
        counts = json.loads((self._written(contamination)[0] / "counts.json").read_text(encoding="utf-8"))
        return int(counts[CONTAMINATED])

    def _written(self, contamination: ContaminationFilter | None) -> tuple[Path, str]:
        """Return the folder in the cache, which is written if it is missing, and its key."""
        key, read = self._source()
        if contamination is not None:
            key = _key([key], [contamination.identity])
        folder = cache_folder() / "corpora" / key
        build = functools.partial(
            write_corpus,
            read,
            deduplicate=self.deduplicate,
            held_out=self.held_out,
            split_seed=self.split_seed,
            contamination=contamination,
        )
        built_once(folder, build)
        return folder, key

    def _source(self) -> tuple[str, Callable[[], Iterable[Document]]]:
        """Return the key of the content, and a function that begins to read it from the start."""
        how = [FORMAT, self.text, self.deduplicate, self.held_out, self.split_seed]
        if self.files is not None:
            files = find_files(self.files)
            if self.encoding is not None:
                how.append(self.encoding)  # only if given: older entries have no encoding in their keys
            for fault in filter(None, (TextFormat(self.encoding).fault(path) for path in files)):
                raise DataError(fault)
            return _key(how, [identity_of(path) for path in files]), lambda: documents_of(
                files, self.text, self.encoding
            )
        data = _load_dataset(self)
        return _key(how, [data._fingerprint]), lambda: _rows(data, self.text)


def write_corpus(
    read: Callable[[], Iterable[Document]],
    folder: Path,
    *,
    deduplicate: bool,
    held_out: float,
    split_seed: int,
    rows_per_write: int = ROWS_PER_WRITE,
    contamination: ContaminationFilter | None = None,
) -> None:
    """Write `train.arrow`, `development.arrow` and `counts.json`.

    Args:
        read: begins to read the documents from the start; called twice to deduplicate.
        folder: to write to.
        deduplicate: whether a line is dropped if an equal one came before it.
        held_out: share of the documents for development.
        split_seed: seed of what is held out.
        rows_per_write: documents of a batch of the Arrow files, at most.
        contamination: finds the lines to leave out.

    Raises:
        DataError: if a part would be empty, or the documents change between the two passes.
    """
    logger.info("reading the corpus into %s", folder.parent)
    repeated = _find_repeated(read(), folder) if deduplicate else None
    counts = {"documents": 0, "lines": 0, "repeated_lines_dropped": 0, "characters": 0}
    counts |= {} if contamination is None else {CONTAMINATED: 0}
    paths = [folder / f"{part}.arrow" for part in (TRAIN, DEVELOPMENT)]
    with _Writer(paths[0], rows_per_write) as train, _Writer(paths[1], rows_per_write) as development:
        for kept in _kept_lines(read(), repeated, contamination, counts):
            text = "\n".join(kept)
            counts["documents"] += 1
            counts["lines"] += len(kept)
            counts["characters"] += len(text)
            # By content and not by chance, so that equal documents fall into the same part.
            out = hash_line(f"{split_seed}/{text}") / 2.0**64 < held_out
            (development if out else train).add(str(counts["documents"]), text)
    for part, rows in ((TRAIN, train.rows), (DEVELOPMENT, development.rows)):
        if not rows:
            raise DataError(f"the corpus has {counts['documents']} documents; its {part} part would be empty")
    write_json(folder / "counts.json", counts)


def _kept_lines(
    documents: Iterable[Document],
    repeated: np.ndarray | None,
    contamination: ContaminationFilter | None,
    counts: dict[str, int],
) -> Iterator[Document]:
    """Yield the documents without the lines to drop, which are counted; documents that become empty are left out."""
    line = 0
    for document in documents:
        known = None if repeated is None else repeated[line : line + len(document)]
        kept = document if known is None else list(compress(document, ~known))
        line += len(document)
        counts["repeated_lines_dropped"] += len(document) - len(kept)
        if contamination is not None:
            clean = [each for each in kept if not contamination.matches(each)]
            counts[CONTAMINATED] += len(kept) - len(clean)
            kept = clean
        if kept:
            yield kept
    if repeated is not None and line != len(repeated):
        raise DataError("the corpus changed while it was read")


class _Writer:
    """An Arrow stream that texts are written to, many at a time."""

    def __init__(self, path: Path, rows_per_write: int) -> None:
        self.rows = 0
        self._rows_per_write = rows_per_write
        self._schema = FEATURES.arrow_schema
        self._stream = pa.ipc.new_stream(str(path), self._schema)
        self._waiting: list[tuple[str, str]] = []
        self._characters = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, fault: type[BaseException] | None, *_: object) -> None:
        if fault is None:
            self._flush()
        self._stream.close()

    def add(self, number: str, text: str) -> None:
        self.rows += 1
        self._characters += len(text)
        self._waiting.append((number, text))
        if len(self._waiting) >= self._rows_per_write or self._characters >= CHARACTERS_PER_WRITE:
            self._flush()

    def _flush(self) -> None:
        columns = [list(column) for column in zip(*self._waiting, strict=True)] or [[], []]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._stream.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._waiting, self._characters = [], 0


def _find_repeated(documents: Iterable[Document], folder: Path) -> np.ndarray:
    with LineHashes(folder / "lines.hashes") as hashes:
        for document in documents:
            hashes.add(document)
        return hashes.repeated()


def identity_of(path: Path) -> str:
    """Return what identifies a file: its kind, its compression and the hash of its bytes.

    Raises:
        DataError: if the file cannot be read.
    """
    packed = path.suffix.lower() if path.suffix.lower() in COMPRESSED else ""
    try:
        return f"{kind_of(path)}{packed} {sha256(path)}"
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _key(how: list[object], what: list[str]) -> str:
    return hashlib.sha256(json.dumps([how, what]).encode()).hexdigest()[:32]


def _load_dataset(corpus: Corpus) -> Dataset:
    try:
        data = datasets.load_dataset(str(corpus.dataset), corpus.configuration, split=corpus.split)
    except Exception as error:  # the library raises many types, most of them its own
        said = "" if corpus.access == "credentialed" else str(error).partition("\n")[0]  # may quote a row
        raise DataError(f"cannot load the dataset {corpus.dataset}: {said or type(error).__name__}") from None
    if corpus.text not in data.column_names:
        raise DataError(f"{corpus.dataset}: no column '{corpus.text}'; {suggest(corpus.text, data.column_names)}")
    kind = getattr(data.features[corpus.text], "dtype", "list")
    if kind not in ("string", "large_string"):
        raise DataError(f"{corpus.dataset}: the column '{corpus.text}' holds {kind}, not strings")
    return data


def _rows(data: Dataset, column: str) -> Iterator[Document]:
    for text in texts_of(data, column):
        yield from cut_row(text)
