"""Checkpoints of a training: they hold trained weights alone, and count only once they are sealed as complete."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from plankwise.core.distributed import is_main_process
from plankwise.core.errors import CheckpointError
from plankwise.core.files import sha256, write_json

WEIGHTS = "trained.safetensors"
SEAL = "whole.json"  # present in complete checkpoints alone
# Random states are of no use: the randomness of a step is a function of (seed, step, rank).
_SEALED = (WEIGHTS, "optimizer.pt", "scheduler.pt", "trainer_state.json")


def save_weights(model: nn.Module, folder: Path) -> None:
    """Save the parameters that are being trained; frozen ones never change."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().contiguous() for name, value in model.named_parameters() if value.requires_grad}
    save_file(state, folder / WEIGHTS)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load trained parameters back into `model` in place.

    Raises:
        CheckpointError: if they are unreadable or not those of this model.
    """
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {folder / WEIGHTS}: {error}") from None
    own = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if state.keys() != own.keys():
        raise CheckpointError(f"{folder / WEIGHTS} holds the parameters of another model")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name])


def seal(folder: Path, fingerprint: dict[str, Any], finished: bool) -> None:
    """Mark a checkpoint as complete, with the hashes of its files; this file is written last.

    Args:
        folder: the checkpoint.
        fingerprint: the training that it belongs to; any JSON value.
        finished: whether the training ends here, by its last step or by early stopping.
    """
    hashes = {name: sha256(folder / name) for name in _SEALED if (folder / name).exists()}
    write_json(folder / SEAL, {"files": hashes, "belongs_to": fingerprint, "finished": finished})


def is_finished(folder: Path) -> bool:
    """Return whether a complete checkpoint is the last of its training."""
    return bool(json.loads((folder / SEAL).read_text(encoding="utf-8"))["finished"])


def newest(folder: Path, fingerprint: dict[str, Any]) -> Path | None:
    """Return the newest complete checkpoint, and remove newer ones that a kill left incomplete.

    Raises:
        CheckpointError: if one of its files has changed since, or it belongs to another training.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        if (path / SEAL).exists():
            _check(path, fingerprint)
            return path
        if is_main_process():
            shutil.rmtree(path)
    return None


def _check(path: Path, fingerprint: dict[str, Any]) -> None:
    try:
        sealed = json.loads((path / SEAL).read_text(encoding="utf-8"))
        files, belongs_to, _ = sealed["files"], sealed["belongs_to"], sealed["finished"]
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path / SEAL} is damaged; delete {path} to resume from an earlier checkpoint") from None
    # Through JSON, where tuples become lists, as the stored one went.
    if belongs_to != json.loads(json.dumps(fingerprint)):
        raise CheckpointError(f"{path} belongs to a training with other settings, seed or data")
    for name, digest in files.items():
        if not (path / name).exists() or sha256(path / name) != digest:
            raise CheckpointError(
                f"{path / name} is damaged: its hash is not the one that it was saved with; "
                f"delete {path} to resume from an earlier checkpoint"
            )
