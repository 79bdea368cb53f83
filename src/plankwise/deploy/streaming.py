"""Blocks of texts through a runtime: one thread reads and tokenizes, one for each stream runs, the caller collects.

Blocks come out in the order they went in. No more than a few are on the way at any time, so that a stream of any
length takes the same memory; within a block inputs are sorted by length.
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

Carried = TypeVar("Carried")
Watch = Callable[[float], None]  # called from one thread at a time with how many texts it has just finished
BLOCKS_ON_THE_WAY = 3  # one is being tokenized, one run, one collected
PATIENCE = 5.0  # seconds for a thread that waits in the caller's own iterator


@dataclass(frozen=True)
class Streams:
    """What runs blocks.

    Attributes:
        runtime: called from `runtime.streams` threads.
        padding: the value that fills up each input, by its name.
        labels: how many the model has.
        budget: padded tokens of a batch; one input at a time where there is none.
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
            ModelError: if a logit is no number.
        """
        found = np.asarray(self.runtime(padded_batch(encoded, starts, chosen, self.padding)), dtype=np.float64)
        if found.shape != (len(chosen), self.labels):
            raise ModelError(f"the model gave logits {list(found.shape)} where [{len(chosen)}, {self.labels}] was due")
        if not np.isfinite(found).all():
            raise ModelError("the model gave a logit that is not a finite number")
        return found

    def all_logits(self, encoded: Encoded) -> Floats:
        """Run a block here and now, [inputs, labels]."""
        starts = starts_of(encoded.lengths)
        found: Floats = np.zeros((len(encoded.lengths), self.labels))
        for chosen in self.batches(encoded):
            found[chosen] = self.logits(encoded, starts, chosen)
        return found


class _Pending(Generic[Carried]):
    """A block on the way, until its last batch is done or one has failed."""

    def __init__(self, encoded: Encoded, passthrough: Carried, labels: int, batches: int) -> None:
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


class _Threads(Generic[Carried]):
    """The threads beside the caller; every wait of theirs ends when `stop` is called."""

    def __init__(
        self, streams: Streams, blocks: Iterable[tuple[Encoded, Carried]], watch: Watch, ahead: int = BLOCKS_ON_THE_WAY
    ) -> None:
        self._streams, self._blocks, self._watch = streams, blocks, watch
        self.ordered: SimpleQueue[_Pending[Carried] | BaseException | None] = SimpleQueue()
        self._tasks: SimpleQueue[tuple[_Pending[Carried], Numbers] | None] = SimpleQueue()
        self.room = threading.Semaphore(ahead)
        self._stopped, self._watching = False, threading.Lock()
        self._producer = threading.Thread(target=self._produce, name="plankwise-tokenize", daemon=True)
        self._workers = [
            threading.Thread(target=self._work, name=f"plankwise-stream-{number}", daemon=True)
            for number in range(streams.runtime.streams)
        ]
        for thread in (self._producer, *self._workers):
            thread.start()

    def _produce(self) -> None:
        """Put blocks on the way; whatever ends them, its turn comes after the blocks before it."""
        ending: BaseException | None = None
        source = iter(self._blocks)
        try:
            self.room.acquire()
            while not self._stopped and (drawn := next(source, None)) is not None:
                self._put(*drawn)
                self.room.acquire()
        except BaseException as error:  # the caller raises it
            ending = error
        finally:
            getattr(source, "close", lambda: None)()  # a generator may hold a file open
            self.ordered.put(ending)

    def _put(self, encoded: Encoded, passthrough: Carried) -> None:
        batches = self._streams.batches(encoded)
        pending = _Pending(encoded, passthrough, self._streams.labels, len(batches))
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
                pending.logits[chosen] = self._streams.logits(encoded, pending.starts, chosen)
                with self._watching:
                    self._watch(len(chosen) / len(encoded.lengths) * len(encoded.inputs_of))
                pending.count_down()
            except BaseException as error:  # the caller raises it
                pending.fail(error)

    def stop(self) -> None:
        """End all threads: batches that run are finished, those that wait are dropped."""
        self._stopped = True
        self.room.release()
        self._producer.join(PATIENCE)
        for _ in self._workers:
            self._tasks.put(None)
        for thread in self._workers:
            thread.join()


def run_blocks(
    streams: Streams, blocks: Iterable[tuple[Encoded, Carried]], watch: Watch = lambda texts: None
) -> Iterator[tuple[Encoded, Carried, Floats]]:
    """Give each block back with the logits of its inputs, [inputs, labels], in order.

    An error in `blocks` or in the runtime is raised here, after the blocks before it; closing the generator ends all
    threads.

    Args:
        streams: what runs them.
        blocks: drawn in a thread of its own, a few ahead, each with whatever goes along.
        watch: told how many texts each batch was worth.
    """
    threads = _Threads(streams, blocks, watch)
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
