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
from plankwise.core.progress import bar
from plankwise.deploy.batches import Encoded, Text
from plankwise.deploy.manifest import FILE_NAME, is_artefact
from plankwise.deploy.predictor import Predictor, blocks_of
from plankwise.deploy.screening import Block, Columns, Policy, characters, complaint, judge_lengths, screen
from plankwise.deploy.table_rows import check_kind, column_types, hash_and_count, read_rows
from plankwise.deploy.table_writers import Layout, Writer, writer_for
from plankwise.deploy.unfinished import Unfinished

logger = logging.getLogger(__name__)
ROW = "row"  # names the column of row numbers, which count from 1, where no identifier is given
ROWS_IN_LATENCY_MODE = 256  # of a block, behind which a killed run can go on
PROBED_ROWS = 64
MODEL_FILES = (".safetensors", ".bin", ".json", ".model", ".txt")


def predict_table(
    predictor: Predictor,
    source: Path,
    out: Path,
    columns: Columns | None = None,
    policy: Policy | None = None,
    resume: bool = False,
    progress: bool = False,
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

    Returns:
        Counts of rows, and the time that this call took.

    Raises:
        DataError: if the input is unusable, or a row has a fault under `fail`; what was done before it is kept.
        OutputError: if the output cannot be written, or is there.
        CheckpointError: if what is there was made by another model, or from another input, or with other options.
    """
    columns, policy = columns or Columns(), policy or Policy()
    check_places(source, out)
    predictor.check_texts(pairs=columns.text_pair is not None)
    writer = writer_for(out, _layout(predictor, source, out, columns))
    digest, expected = hash_and_count(source)
    probed = list(islice(read_rows(source, columns.texts + columns.carried), PROBED_ROWS))
    predictor.check_tokens(screen(1, probed, columns).texts)
    made_of = _made_of(predictor, digest, columns, policy)
    unfinished = Unfinished(out, made_of, resume, harmless=("on_error", "truncate"))
    began, before = perf_counter(), unfinished.progress.predicted
    if unfinished.is_whole:
        logger.info("%s is finished already; nothing was done", out)
    else:
        work = _Work(predictor, source, columns, policy, unfinished, writer)
        if progress:
            _announce(predictor, screen(1, probed, columns).texts, expected, unfinished.progress.rows)
        work.do(expected, progress)
    return _document(unfinished, perf_counter() - began, before)


def check_places(source: Path, out: Path) -> None:
    """Refuse files that cannot be read or written, before anything else is done.

    Raises:
        DataError: for the input.
        OutputError: for the output.
    """
    if not source.is_file():
        raise DataError(f"there is no file {source}")
    check_kind(source)
    check_kind(out)
    if not out.parent.is_dir():
        raise OutputError(f"there is no folder {out.parent} to write {out.name} to")
    if out.is_dir():
        raise OutputError(f"{out} is a folder; allowed: a file")
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
        unfinished: Unfinished,
        writer: Writer,
    ) -> None:
        self._predictor, self._source, self._columns, self._policy = predictor, source, columns, policy
        self._unfinished, self._writer = unfinished, writer

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
            unfinished.add(self._writer.head(), 0, 0, 0, ())
        done = float(unfinished.progress.rows)

        def watch(rows: float) -> None:
            nonlocal done
            done += rows
            show(done)

        for block, shares in self._predictor.run(self._encoded(unfinished.progress.rows), watch):
            data = self._writer.block(block.carried, shares)
            unfinished.add(data, block.rows, len(block.carried), block.truncated, block.faults)

    def _encoded(self, done: int) -> Iterator[tuple[Encoded, Block]]:
        """Read, screen and tokenize the rows behind those that are done; it runs in a thread of its own."""
        rows = islice(read_rows(self._source, self._columns.texts + self._columns.carried), done, None)
        most = self._predictor.look_ahead if self._predictor.mode == "throughput" else ROWS_IN_LATENCY_MODE
        first = done + 1
        for cells in blocks_of(rows, most, lambda each: characters(each, self._columns)):
            block = screen(first, cells, self._columns)
            encoded = self._predictor.encode(block.texts, self._policy.truncate)
            judge_lengths(block, encoded, self._policy.truncate)
            if block.faults and self._policy.on_error == "fail":
                raise DataError(f"{self._source}, {complaint(block.faults[0], self._predictor.reading.max_length)}")
            block.texts = []
            yield encoded, block
            first += len(cells)


def _layout(predictor: Predictor, source: Path, out: Path, columns: Columns) -> Layout:
    """Name the columns of the output, with the types of the input's where both are Parquet."""
    numbered = columns.id is None
    types = column_types(source, columns.carried) if out.suffix.lower() == ".parquet" else [None] * len(columns.carried)
    return Layout(
        (*([ROW] if numbered else []), *columns.carried),
        (*([pa.int64()] if numbered else []), *types),
        predictor.labels,
        predictor.kind,
    )


def _made_of(predictor: Predictor, digest: str, columns: Columns, policy: Policy) -> dict[str, Any]:
    """Name all that predictions depend on; the number of threads is none of it."""
    how = {name: getattr(predictor, name) for name in ("mode", "tokens_per_batch", "look_ahead")}
    reading = asdict(predictor.reading)
    return {"model": _model_hash(predictor), "input": digest, **asdict(columns), **asdict(policy), **how, **reading}


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
    size, unit = (1, "s") if seconds < 120 else (60, "min") if seconds < 7200 else (3600, "h")
    took = f"{seconds / size:.0f} {unit}"
    logger.info("about %d rows, roughly %s on %s, %d threads", expected - done, took, runtime.name, runtime.threads)


def _document(unfinished: Unfinished, seconds: float, before: int) -> dict[str, Any]:
    progress = unfinished.progress
    return {
        "out": str(unfinished.path),
        "rows": progress.rows,
        "predicted": progress.predicted,
        "skipped": progress.skipped,
        "truncated": progress.truncated,
        "errors": str(unfinished.faults_path) if progress.skipped else None,
        "resumed_at": before,
        "seconds": round(seconds, 3),
        "texts_per_second": round((progress.predicted - before) / seconds, 1) if progress.predicted > before else None,
    }
