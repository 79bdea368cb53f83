"""Makes the tests' shared builders importable and keeps every test offline and quiet."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "benchmarks")]
os.environ.update(
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    TRANSFORMERS_VERBOSITY="error",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    PLANKWISE_CACHE=tempfile.mkdtemp(prefix="plankwise-tests-"),
    OMP_NUM_THREADS="1",  # tiny tensors gain nothing from more
)


def pytest_collection_finish() -> None:
    """Keep what is imported out of garbage collections: Accelerate asks for one after every training."""
    gc.collect()
    gc.freeze()
