"""The threads that call a runtime: as many as it has streams, as in prediction."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from plankwise.data.batching.inputs import Inputs
from plankwise.deploy.runtimes import Runtime


class StreamPool:
    """Runs batches, `runtime.streams` at once; a context manager that ends its threads."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pool = ThreadPoolExecutor(runtime.streams) if runtime.streams > 1 else None

    def __enter__(self) -> StreamPool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def run(self, batches: Sequence[Inputs]) -> None:
        """Run all batches once; whichever thread is free takes the next."""
        if self._pool is None:
            for batch in batches:
                self._runtime(batch)
        else:
            list(self._pool.map(self._runtime, batches))

    def warm_up(self, batches: Sequence[Inputs]) -> None:
        """Run each shape once in every thread: runtimes prepare a new shape, and each stream prepares its own."""
        new = list({batch["input_ids"].shape: batch for batch in batches}.values())
        if self._pool is None:
            self.run(new)
            return
        barrier = threading.Barrier(self._runtime.streams)

        def each_shape() -> None:
            barrier.wait()  # so that no thread takes two of these tasks
            for batch in new:
                self._runtime(batch)

        for done in [self._pool.submit(each_shape) for _ in range(self._runtime.streams)]:
            done.result()
