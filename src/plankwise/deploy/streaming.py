"""Runs blocks of texts: one thread reads and tokenizes, one thread per stream runs batches, the caller collects.

Blocks come out in the order they went in. Only a few are in flight at any time, so that memory does not grow with the
number of texts. Within a block, inputs are sorted by length.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

import numpy as np

from plankwise.core.errors import ModelError
from plankwise.data.batching.inputs import Encoded, Numbers
from plankwise.data.batching.pooling import Floats
from plankwise.data.batching.token_budget import padded_batch, starts_of, token_budget_batches
from plankwise.deploy.runtimes import Runtime

Passthrough = TypeVar("Passthrough")  # comes out beside a block as it went in
ProgressCallback = Callable[[float], None]  # called by one thread at a time with the number of texts just finished
BLOCKS_IN_FLIGHT = 3  # one is tokenized, one run, one collected
JOIN_TIMEOUT_S = 5.0  # for a thread that waits in the caller's own iterator


@dataclass(frozen=True)
class BatchRunner:
    """Cuts blocks into batches and runs them.

    Attributes:
        runtime: called from `runtime.streams` threads.
        padding: value that fills up each input, by its name.
        labels: number of labels of the model.
        budget: padded tokens of a batch; if None, each input is a batch.
    """

    runtime: Runtime
    padding: Mapping[str, int]
    labels: int
    budget: int | None

    def batches(self, encoded: Encoded) -> list[Numbers]:
        """Cut a block into batches."""
        return token_budget_batches(encoded.lengths, self.budget)

    def logits(self, encoded: Encoded, starts: Numbers, chosen: Numbers) -> Floats:
        """Run one batch, [chosen, labels].

        Raises:
            ModelError: if the logits have another shape, or one is not a finite number.
        """
        found = np.asarray(self.runtime(padded_batch(encoded, starts, chosen, self.padding)), dtype=np.float64)
        if found.shape != (len(chosen), self.labels):
            raise ModelError(f"the model returned logits {list(found.shape)}; expected: [{len(chosen)}, {self.labels}]")
        if not np.isfinite(found).all():
            raise ModelError("the model returned a logit that is not a finite number")
        return found

    def all_logits(self, encoded: Encoded) -> Floats:
        """Run a block in the calling thread, [inputs, labels]."""
        starts = starts_of(encoded.lengths)
        found: Floats = np.zeros((len(encoded.lengths), self.labels))
        for chosen in self.batches(encoded):
            found[chosen] = self.logits(encoded, starts, chosen)
        return found


class _BlockInFlight(Generic[Passthrough]):
    """A block in flight, until its last batch is done or one has failed."""

    def __init__(self, encoded: Encoded, passthrough: Passthrough, labels: int, batches: int) -> None:
        self.encoded, self.passthrough = encoded, passthrough
        self.starts = starts_of(encoded.lengths)
        self.logits: Floats = np.zeros((len(encoded.lengths), labels))
        self.error: BaseException | None = None
        self._left, self._lock, self.done = batches, threading.Lock(), threading.Event()
        if not batches:
            self.done.set()

    def count_down(self) -> None:
        with self._lock:
            self._left -= 1
            if not self._left:
                self.done.set()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.done.set()


class _Threads(Generic[Passthrough]):
    """The threads that work for the caller; each of their waits ends when `stop` is called."""

    def __init__(
        self, runner: BatchRunner, blocks: Iterable[tuple[Encoded, Passthrough]], on_progress: ProgressCallback
    ) -> None:
        self._runner, self._blocks, self._on_progress = runner, blocks, on_progress
        self.ordered: SimpleQueue[_BlockInFlight[Passthrough] | BaseException | None] = SimpleQueue()
        self._tasks: SimpleQueue[tuple[_BlockInFlight[Passthrough], Numbers] | None] = SimpleQueue()
        self.room = threading.Semaphore(BLOCKS_IN_FLIGHT)
        self._stopped, self._progress_lock = False, threading.Lock()
        self._producer = threading.Thread(target=self._produce, name="plankwise-tokenize", daemon=True)
        self._workers = [
            threading.Thread(target=self._work, name=f"plankwise-stream-{number}", daemon=True)
            for number in range(runner.runtime.streams)
        ]
        for thread in (self._producer, *self._workers):
            thread.start()

    def _produce(self) -> None:
        """Queue blocks; an error in their source is queued after the blocks before it."""
        ending: BaseException | None = None
        source = iter(self._blocks)
        try:
            self.room.acquire()
            while not self._stopped and (drawn := next(source, None)) is not None:
                self._put(*drawn)
                self.room.acquire()
        except BaseException as error:  # raised in the caller's thread
            ending = error
        finally:
            getattr(source, "close", lambda: None)()  # a generator may hold an open file
            self.ordered.put(ending)

    def _put(self, encoded: Encoded, passthrough: Passthrough) -> None:
        batches = self._runner.batches(encoded)
        pending = _BlockInFlight(encoded, passthrough, self._runner.labels, len(batches))
        self.ordered.put(pending)
        for chosen in batches:
            self._tasks.put((pending, chosen))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            pending, chosen = task
            if self._stopped or pending.error is not None:
                continue
            try:
                encoded = pending.encoded
                pending.logits[chosen] = self._runner.logits(encoded, pending.starts, chosen)
                with self._progress_lock:
                    self._on_progress(len(chosen) / len(encoded.lengths) * len(encoded.inputs_of))
                pending.count_down()
            except BaseException as error:  # raised in the caller's thread
                pending.fail(error)

    def stop(self) -> None:
        """End all threads: batches that are running are finished, those that wait are dropped."""
        self._stopped = True
        self.room.release()
        self._producer.join(JOIN_TIMEOUT_S)
        for _ in self._workers:
            self._tasks.put(None)
        for thread in self._workers:
            thread.join()


def run_blocks(
    runner: BatchRunner,
    blocks: Iterable[tuple[Encoded, Passthrough]],
    on_progress: ProgressCallback = lambda texts: None,
) -> Iterator[tuple[Encoded, Passthrough, Floats]]:
    """Yield each block with what came with it and the logits of its inputs, [inputs, labels], in order.

    An error in `blocks` or in the runtime is raised here, after the blocks before it. Closing the generator ends all
    threads.

    Args:
        runner: of the model.
        blocks: drawn in a separate thread, a few ahead, each with an object that is passed through.
        on_progress: called after each batch with the number of texts it finished, which may be a fraction.
    """
    threads = _Threads(runner, blocks, on_progress)
    try:
        while (pending := threads.ordered.get()) is not None:
            if isinstance(pending, BaseException):
                raise pending
            pending.done.wait()
            if pending.error is not None:
                raise pending.error
            yield pending.encoded, pending.passthrough, pending.logits
            threads.room.release()
    finally:
        threads.stop()
