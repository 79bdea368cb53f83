"""Predicts a table of texts into a table of predictions, in the same order and in bounded memory."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa

from plankwise.core.errors import DataError, OutputError, PlankwiseError
from plankwise.core.files import sha256
from plankwise.core.paths import MODEL_FILES, check_file, check_target, tidy
from plankwise.core.progress import bar, duration
from plankwise.core.records import TextsRead
from plankwise.data.batching.inputs import Encoded, Text
from plankwise.data.json_objects import Malformed
from plankwise.data.table_io import Cells, check_kind, column_types, hash_and_count, read_rows
from plankwise.data.text_files import TextFormat
from plankwise.deploy.manifest import FILE_NAME, is_artefact
from plankwise.deploy.predictor import Predictor, blocks_of
from plankwise.deploy.tables.resumable import COUNTED, ResumableFile
from plankwise.deploy.tables.screening import (
    FaultPolicy,
    InputColumns,
    ScreenedBlock,
    count_characters,
    describe_fault,
    screen,
    screen_lengths,
)
from plankwise.deploy.tables.writers import OutputColumns, Writer, writer_for

logger = logging.getLogger(__name__)
ROW = "row"  # name of the column of row numbers, from 1, if there is no identifier
ROWS_IN_LATENCY_MODE = 256  # of a block, after which a killed run can resume
PROBED_ROWS = 64
HARMLESS = ("on_error", "truncate")  # options that may change on resuming, as long as no row was skipped or cut


def predict_table(
    predictor: Predictor,
    source: Path,
    out: Path,
    columns: InputColumns | None = None,
    *,
    policy: FaultPolicy | None = None,
    resume: bool = False,
    progress: bool = False,
    text_format: TextFormat | None = None,
) -> dict[str, Any]:
    """Predict every row of a table and write labels and probabilities in the same order, in bounded memory.

    Args:
        predictor: an open model.
        source: CSV, TSV, JSON lines or Parquet, plain or compressed; the ending decides.
        out: another such file; it appears once it is complete.
        columns: of the input.
        policy: for faulty rows.
        resume: continue what a killed run has left, if there is anything.
        progress: log an estimate of the time, and show a progress bar.
        text_format: encoding and delimiter of the input; the output has UTF-8 and commas.

    Returns:
        Counts of rows, and the time of this call.

    Raises:
        DataError: if the input is unusable, or a row is faulty under `fail`; what was done before it is kept.
        OutputError: if the output cannot be written, or exists already.
        CheckpointError: if what exists was made by another model, from another input or with other options.
    """
    text_format = text_format or TextFormat()
    check_places(source, out, text_format)
    job = _Job(predictor, source, columns or InputColumns(), policy or FaultPolicy(), text_format)
    predictor.check_texts(pairs=job.columns.text_pair is not None)
    writer = writer_for(out, job.output_columns(out))
    digest, expected = hash_and_count(source)
    probed = screen(1, list(islice(job.rows(), PROBED_ROWS)), job.columns).texts
    predictor.check_tokens(probed)
    file = ResumableFile(out, job.made_of(digest), resume, harmless=HARMLESS)
    began, before = perf_counter(), file.progress.predicted
    if file.is_whole:
        logger.info("%s is complete already; nothing was done", out)
    else:
        if progress and expected is not None and probed:
            _log_estimate(predictor, probed, max(0, expected - file.progress.rows))
        _fill(file, job, writer, expected=expected, shown=progress)
    return _document(file, job, perf_counter() - began, before)


def check_places(source: Path, out: Path, text_format: TextFormat | None = None) -> None:
    """Refuse files that cannot be read or written.

    Raises:
        DataError: if `source` cannot be read.
        OutputError: if `out` cannot be written.
    """
    try:
        check_file(source)
    except FileNotFoundError:
        raise DataError(f"there is no file {source}") from None
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror}") from None
    if source.is_dir():
        raise DataError(f"{source} is a folder; allowed: a file")
    check_kind(source)
    fault = (text_format or TextFormat()).fault(source)
    if fault is not None:
        raise DataError(fault)
    check_kind(out)
    check_target(out)
    tidy(out.parent)
    if out.exists() and out.samefile(source):
        raise OutputError(f"{out} is the input itself; choose another output")


@dataclass(frozen=True)
class _Job:
    """What is predicted, and how.

    Attributes:
        predictor: an open model.
        source: the table.
        columns: of the table.
        policy: for faulty rows.
        text_format: of the table.
    """

    predictor: Predictor
    source: Path
    columns: InputColumns
    policy: FaultPolicy
    text_format: TextFormat

    def rows(self) -> Iterator[Cells | Malformed]:
        """Read the cells of the columns that are used, row by row."""
        return read_rows(self.source, self.columns.texts + self.columns.passthrough, self.text_format)

    def output_columns(self, out: Path) -> OutputColumns:
        """Return the columns of the output, with the types of the input's if both are Parquet."""
        copied, numbered = self.columns.passthrough, self.columns.id is None
        is_parquet = out.suffix.lower() == ".parquet"
        types = column_types(self.source, copied) if is_parquet else [None] * len(copied)
        return OutputColumns(
            (*([ROW] if numbered else []), *copied),
            (*([pa.int64()] if numbered else []), *types),
            self.predictor.labels,
            self.predictor.answer,
        )

    def made_of(self, digest: str) -> dict[str, Any]:
        """Return everything that predictions depend on, by name; the number of threads is not among it."""
        options = {name: getattr(self.predictor, name) for name in ("mode", "tokens_per_batch", "buffer_size")}
        given = {name: value for name, value in asdict(self.text_format).items() if value is not None}
        return {
            "model": _model_hash(self.predictor),
            "input": digest,
            **asdict(self.columns),
            **asdict(self.policy),
            **options,
            **asdict(self.predictor.truncation),
            **given,
        }

    def blocks(self, done: int) -> Iterator[tuple[Encoded, ScreenedBlock]]:
        """Read, screen and tokenize the rows after the first `done`; this runs in a separate thread."""
        predictor, first = self.predictor, done + 1
        max_rows = predictor.buffer_size if predictor.mode == "throughput" else ROWS_IN_LATENCY_MODE
        rest = islice(self.rows(), done, None)
        for rows in blocks_of(rest, max_rows, lambda row: count_characters(row, self.columns)):
            block = screen(first, rows, self.columns)
            encoded = predictor.encode(block.texts, self.policy.truncate)
            screen_lengths(block, encoded, self.policy.truncate)
            if block.faults and self.policy.on_error == "fail":
                fault = describe_fault(block.faults[0], predictor.truncation.max_length)
                raise DataError(f"{self.source}, {fault}")
            block.texts = []  # not needed any more; blocks in flight are to take little memory
            yield encoded, block
            first += len(rows)


def _fill(file: ResumableFile, job: _Job, writer: Writer, *, expected: int | None, shown: bool) -> None:
    """Predict the rows that are left and put the file into its place."""
    with file, bar("predict", expected, shown) as show:
        try:
            if file.progress.whole is None:
                _predict_rest(file, job, writer, show)
            file.finish(writer.finish)
        except PlankwiseError as error:
            if file.progress.rows:
                raise type(error)(f"{error}; {file.progress.rows} rows are done, --resume continues") from None
            raise


def _predict_rest(file: ResumableFile, job: _Job, writer: Writer, show: Callable[[float], None]) -> None:
    if not file.progress.output_bytes:
        file.add(writer.head())
    done = float(file.progress.rows)

    def on_progress(rows: float) -> None:
        nonlocal done
        done += rows
        show(done)

    for block, probabilities in job.predictor.run(job.blocks(file.progress.rows), on_progress):
        data = writer.block(block.passthrough, probabilities)
        file.add(data, rows=block.rows, predicted=len(block.passthrough), read=block.read, faults=block.faults)


def _model_hash(predictor: Predictor) -> str:
    """Hash the files of a model, or the name of a model on the Hub, or the manifest of a model in memory."""
    if predictor.source is None:
        return hashlib.sha256(predictor.deployed.manifest.model_dump_json().encode()).hexdigest()
    return source_hash(predictor.source)


def source_hash(source: str) -> str:
    """Hash the files of a folder with a model or an artefact, or the name of a model on the Hub."""
    folder = Path(source)
    if is_artefact(folder):
        return sha256(folder / FILE_NAME)  # holds the hashes of all other files
    files = sorted(each for each in folder.glob("*") if each.suffix in MODEL_FILES and each.is_file())
    lines = [source] if not files else [f"{each.name} {sha256(each)}" for each in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _log_estimate(predictor: Predictor, texts: list[Text], rows: int) -> None:
    """Log roughly how long some rows take, measured on a few texts in about a second."""
    seconds, runtime = predictor.seconds_per_text(texts) * rows, predictor.deployed.runtime
    logger.info("about %d rows, roughly %s on %s, %d threads", rows, duration(seconds), runtime.name, runtime.threads)


def _document(file: ResumableFile, job: _Job, seconds: float, before: int) -> dict[str, Any]:
    progress, source = file.progress, job.source
    counts = {name: getattr(progress, name) for name in COUNTED}
    if progress.truncated or progress.thinned:
        logger.info("%s: %s", source, TextsRead(texts=progress.predicted, **counts))
    return {
        "out": str(file.path),
        "rows": progress.rows,
        "predicted": progress.predicted,
        "skipped": progress.skipped,
        **counts,
        "errors": str(file.faults_path) if progress.skipped else None,
        "caveats": list(job.predictor.deployed.manifest.caveats),
        "resumed_at": before,
        "seconds": round(seconds, 3),
        "texts_per_second": round((progress.predicted - before) / seconds, 1) if progress.predicted > before else None,
    }
