"""Importance that was measured before: on disk, under the hash of everything that it depends on.

A search prunes one model to many targets, and each of them ranks the same heads and neurons. Importance is measured
once for a model, its texts, the kind of gradient and the seed of drawn labels; only the selection differs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from plankwise.core.cache import built_once
from plankwise.core.distributed import is_main_process
from plankwise.core.files import write_json
from plankwise.core.hardware import bf16_is_fast
from plankwise.methods.importance import Importance
from plankwise.training.distillation.cached_teacher import add_weights
from plankwise.training.objectives.objective import Sample

logger = logging.getLogger(__name__)
FORMAT = 1  # of the files and of how importance is computed; another number makes older entries unknown
ARRAYS, ABOUT = "importance.npz", "about.json"


@dataclass(frozen=True)
class Measured:
    """Importance, and what it took.

    Attributes:
        importance: of heads and of neurons, one array for each layer.
        seconds: time that it took to measure, whenever that was.
    """

    importance: Importance
    seconds: float


def cached_importance(folder: Path, measure: Callable[[], Importance]) -> Measured:
    """Load importance from its folder, or measure it into it. All processes of a run have to call this.

    Args:
        folder: named after `importance_key`.
        measure: computes it; called in one process, and only if the folder is missing or damaged.
    """
    if is_main_process() and folder.exists() and _read(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)
    made: list[Measured] = []

    def build(target: Path) -> None:
        begun = time.perf_counter()
        importance = measure()
        made.append(Measured(importance, time.perf_counter() - begun))
        arrays: dict[str, Any] = {f"heads-{at}": each for at, each in enumerate(importance[0])}
        arrays |= {f"neurons-{at}": each for at, each in enumerate(importance[1])}
        with (target / ARRAYS).open("wb") as file:
            np.savez(file, **arrays)
        write_json(target / ABOUT, {"layers": len(importance[0]), "seconds": made[0].seconds})

    built_once(folder, build)
    found = made[0] if made else _read(folder)
    assert found is not None
    if not made:
        logger.info("importance: as it was measured before, in %.1f s", found.seconds)
    return found


def importance_key(network: PreTrainedModel, sample: Sample, *settings: str | int) -> str:
    """Hash everything that the importance of a model's units depends on: its weights, its texts, and these settings.

    Args:
        network: the model.
        sample: the texts.
        settings: how it is measured: the kind of gradient, the objective, the seed of the labels that are drawn.
    """
    device = network.device
    about = [FORMAT, torch.__version__, device.type, bf16_is_fast(device), network.config.to_json_string(), *settings]
    digest = hashlib.sha256(json.dumps(about).encode())
    add_weights(digest, network)
    for batch in sample.batches():
        for name in sorted(batch):
            values = batch[name].cpu().contiguous()
            digest.update(f"{name}{tuple(values.shape)}{values.dtype}".encode())
            digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _read(folder: Path) -> Measured | None:
    """Read an entry; None if it is damaged."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
            layers = range(about["layers"])
            return Measured(
                ([arrays[f"heads-{at}"] for at in layers], [arrays[f"neurons-{at}"] for at in layers]),
                float(about["seconds"]),
            )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None
