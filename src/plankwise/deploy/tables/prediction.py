"""A table of texts in, a table of predictions out, in the same order and in bounded memory."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
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
from plankwise.data.table_io import check_kind, column_types, hash_and_count, read_rows
from plankwise.data.text_files import TextFormat
from plankwise.deploy.manifest import FILE_NAME, is_artefact
from plankwise.deploy.predictor import Predictor, blocks_of
from plankwise.deploy.tables.resumable import COUNTED, Unfinished
from plankwise.deploy.tables.screening import Block, Columns, Policy, characters, complaint, judge_lengths, screen
from plankwise.deploy.tables.writers import Layout, Writer, writer_for

logger = logging.getLogger(__name__)
ROW = "row"  # names the column of row numbers, which count from 1, where no identifier is given
ROWS_IN_LATENCY_MODE = 256  # of a block, behind which a killed run can go on
PROBED_ROWS = 64


def predict_table(
    predictor: Predictor,
    source: Path,
    out: Path,
    columns: Columns | None = None,
    policy: Policy | None = None,
    resume: bool = False,
    progress: bool = False,
    form: TextFormat | None = None,
) -> dict[str, Any]:
    """Predict every row of a table, in bounded memory, and write labels and probabilities in the same order.

    Args:
        predictor: an open model.
        source: CSV, TSV, JSON lines or Parquet, plain or packed, told apart by the ending.
        out: the same; it appears once it is whole.
        columns: of the input.
        policy: for rows that have a fault.
        resume: go on with what a killed run has left, or begin.
        progress: say beforehand roughly how long it takes, and show how far it is.
        form: encoding and delimiter of the input; the output has UTF-8 and commas.

    Returns:
        Counts of rows, and the time that this call took.

    Raises:
        DataError: if the input is unusable, or a row has a fault under `fail`; what was done before it is kept.
        OutputError: if the output cannot be written, or is there.
        CheckpointError: if what is there was made by another model, or from another input, or with other options.
    """
    columns, policy, form = columns or Columns(), policy or Policy(), form or TextFormat()
    check_places(source, out, form)
    predictor.check_texts(pairs=columns.text_pair is not None)
    writer = writer_for(out, _layout(predictor, source, out, columns))
    digest, expected = hash_and_count(source)
    probed = list(islice(read_rows(source, columns.texts + columns.passthrough, form), PROBED_ROWS))
    predictor.check_tokens(screen(1, probed, columns).texts)
    made_of = _made_of(predictor, digest, columns, policy, form)
    unfinished = Unfinished(out, made_of, resume, harmless=("on_error", "truncate"))
    began, before = perf_counter(), unfinished.progress.predicted
    if unfinished.is_whole:
        logger.info("%s is finished already; nothing was done", out)
    else:
        work = _Work(predictor, source, columns, policy, form, unfinished, writer)
        if progress:
            _announce(predictor, screen(1, probed, columns).texts, expected, unfinished.progress.rows)
        work.do(expected, progress)
    document = _document(unfinished, perf_counter() - began, before)
    if document["truncated"] or document["thinned"]:
        counts = {name: document[name] for name in COUNTED}
        logger.info("%s: %s", source, TextsRead(texts=document["predicted"], **counts))
    return document


def check_places(source: Path, out: Path, form: TextFormat | None = None) -> None:
    """Refuse files that cannot be read or written, before anything else is done.

    Raises:
        DataError: for the input.
        OutputError: for the output.
    """
    try:
        check_file(source)
    except FileNotFoundError:
        raise DataError(f"there is no file {source}") from None
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror}") from None
    if source.is_dir():
        raise DataError(f"there is no file {source}, but a folder of this name")
    check_kind(source)
    fault = (form or TextFormat()).fault(source)
    if fault is not None:
        raise DataError(fault)
    check_kind(out)
    check_target(out)
    tidy(out.parent)
    if out.exists() and out.samefile(source):
        raise OutputError(f"{out} is the input itself; choose another output")


class _Work:
    """One run over a table."""

    def __init__(
        self,
        predictor: Predictor,
        source: Path,
        columns: Columns,
        policy: Policy,
        form: TextFormat,
        unfinished: Unfinished,
        writer: Writer,
    ) -> None:
        self._predictor, self._source, self._columns, self._policy = predictor, source, columns, policy
        self._form, self._unfinished, self._writer = form, unfinished, writer

    def do(self, expected: int | None, shown: bool) -> None:
        """Predict what is left and put the file into its place."""
        with self._unfinished as unfinished, bar("predict", expected, shown) as show:
            try:
                if unfinished.progress.whole is None:
                    self._predict(unfinished, show)
                unfinished.finish(self._writer.finish)
            except PlankwiseError as error:
                if unfinished.progress.rows:
                    raise type(error)(f"{error}; {unfinished.progress.rows} rows are done, --resume goes on") from None
                raise

    def _predict(self, unfinished: Unfinished, show: Callable[[float], None]) -> None:
        if not unfinished.progress.output_bytes:
            unfinished.add(self._writer.head(), 0, 0, TextsRead(), ())
        done = float(unfinished.progress.rows)

        def watch(rows: float) -> None:
            nonlocal done
            done += rows
            show(done)

        for block, shares in self._predictor.run(self._encoded(unfinished.progress.rows), watch):
            data = self._writer.block(block.passthrough, shares)
            unfinished.add(data, block.rows, len(block.passthrough), block.read, block.faults)

    def _encoded(self, done: int) -> Iterator[tuple[Encoded, Block]]:
        """Read, screen and tokenize the rows behind those that are done; it runs in a thread of its own."""
        rows = islice(read_rows(self._source, self._columns.texts + self._columns.passthrough, self._form), done, None)
        most = self._predictor.buffer_size if self._predictor.mode == "throughput" else ROWS_IN_LATENCY_MODE
        first = done + 1
        for cells in blocks_of(rows, most, lambda each: characters(each, self._columns)):
            block = screen(first, cells, self._columns)
            encoded = self._predictor.encode(block.texts, self._policy.truncate)
            judge_lengths(block, encoded, self._policy.truncate)
            if block.faults and self._policy.on_error == "fail":
                raise DataError(f"{self._source}, {complaint(block.faults[0], self._predictor.truncation.max_length)}")
            block.texts = []
            yield encoded, block
            first += len(cells)


def _layout(predictor: Predictor, source: Path, out: Path, columns: Columns) -> Layout:
    """Name the columns of the output, with the types of the input's where both are Parquet."""
    numbered = columns.id is None
    types = (
        column_types(source, columns.passthrough)
        if out.suffix.lower() == ".parquet"
        else [None] * len(columns.passthrough)
    )
    return Layout(
        (*([ROW] if numbered else []), *columns.passthrough),
        (*([pa.int64()] if numbered else []), *types),
        predictor.labels,
        predictor.kind,
    )


def _made_of(predictor: Predictor, digest: str, columns: Columns, policy: Policy, form: TextFormat) -> dict[str, Any]:
    """Name all that predictions depend on; the number of threads is none of it."""
    how = {name: getattr(predictor, name) for name in ("mode", "tokens_per_batch", "look_ahead")}
    how |= asdict(predictor.truncation) | {name: value for name, value in asdict(form).items() if value is not None}
    return {"model": _model_hash(predictor), "input": digest, **asdict(columns), **asdict(policy), **how}


def _model_hash(predictor: Predictor) -> str:
    """Hash what a model is made of; one on the Hub goes by its name, one in memory by its description."""
    if predictor.source is None:
        return hashlib.sha256(predictor.deployed.manifest.model_dump_json().encode()).hexdigest()
    folder = Path(predictor.source)
    if is_artefact(folder):
        return sha256(folder / FILE_NAME)  # holds the hashes of all other files
    files = sorted(each for each in folder.glob("*") if each.suffix in MODEL_FILES and each.is_file())
    lines = [predictor.source] if not files else [f"{each.name} {sha256(each)}" for each in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _announce(predictor: Predictor, texts: list[Text], expected: int | None, done: int) -> None:
    """Say roughly what it costs, by a second's worth of the first rows."""
    if expected is None or not texts:
        return
    seconds = predictor.seconds_per_text(texts) * max(0, expected - done)
    runtime = predictor.deployed.runtime
    took, rows = duration(seconds), expected - done
    logger.info("about %d rows, roughly %s on %s, %d threads", rows, took, runtime.name, runtime.threads)


def _document(unfinished: Unfinished, seconds: float, before: int) -> dict[str, Any]:
    progress = unfinished.progress
    return {
        "out": str(unfinished.path),
        "rows": progress.rows,
        "predicted": progress.predicted,
        "skipped": progress.skipped,
        **{name: getattr(progress, name) for name in COUNTED},
        "errors": str(unfinished.faults_path) if progress.skipped else None,
        "resumed_at": before,
        "seconds": round(seconds, 3),
        "texts_per_second": round((progress.predicted - before) / seconds, 1) if progress.predicted > before else None,
    }
