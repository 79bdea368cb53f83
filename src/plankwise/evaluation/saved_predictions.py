"""Logits of a run's two models on the test split, kept beside its record: ids and numbers, never text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from plankwise.core.errors import CheckpointError
from plankwise.evaluation.comparison import Pair

PREDICTIONS = "predictions.npz"


def save_predictions(path: Path, ids: Sequence[str], pair: Pair) -> None:
    """Save the ids of the examples with labels and both models' logits, each [examples, classes]."""
    np.savez_compressed(path, ids=np.array(ids), labels=pair.labels, baseline=pair.baseline, compressed=pair.compressed)


def read_predictions(run: Path) -> tuple[list[str], Pair]:
    """Read the ids and test logits that a run saved.

    Raises:
        CheckpointError: if they are missing or unreadable.
    """
    try:
        with np.load(run / PREDICTIONS, allow_pickle=False) as saved:
            return saved["ids"].tolist(), Pair(saved["labels"], saved["baseline"], saved["compressed"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"cannot read {run / PREDICTIONS}: {error}") from None
