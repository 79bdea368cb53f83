"""What a teacher says about every training text, computed once and kept on disk.

It lies under the hash of the teacher's weights and of the token ids it read, hence of the texts, their tokenizer and
how much of them is read. A file that was cut off or damaged is computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plankwise.core.cache import built_once
from plankwise.core.distributed import is_main_process
from plankwise.core.files import sha256, write_json
from plankwise.data.batching.examples import Example, flatten, lengths_of
from plankwise.data.batching.inputs import Batch
from plankwise.data.truncation import Pooling
from plankwise.training.distillation.activations import ActivationRecorder, depths_of
from plankwise.training.distillation.teacher import Teacher
from plankwise.training.prediction import predict_logits

logger = logging.getLogger(__name__)
FORMAT = 2  # of what lies in the cache, and how it was computed; a change makes older entries unknown
LOGITS, HIDDEN, ABOUT = "logits.npy", "hidden.npy", "about.json"
HALF_MOST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class CachedTeacher:
    """A teacher's answers, memory-mapped.

    Attributes:
        logits: of each text, pooled over its windows, [texts, classes].
        hidden: of each token of each input, texts in order, [tokens, layers, width]; `None` where not asked for.
        layers: of the teacher, that `hidden` holds.
        first_token: of each input in `hidden`, and the end, [inputs + 1].
        first_input: of each text, and the end, [texts + 1].
        seconds: that it took to compute them, whenever that was.
    """

    logits: NDArray[np.float32]
    hidden: NDArray[np.float16] | None
    layers: tuple[int, ...]
    first_token: NDArray[np.int64]
    first_input: NDArray[np.int64]
    seconds: float

    def logits_of(self, texts: Tensor) -> Tensor:
        """Give the logits of some texts, [batch, classes], on their device."""
        return torch.from_numpy(self.logits[texts.cpu().numpy()]).to(texts.device)

    def hidden_of(self, texts: Tensor, mask: Tensor) -> dict[int, Tensor]:
        """Give for each layer the hidden states of a batch, [inputs, tokens, width], zero where `mask` is."""
        assert self.hidden is not None
        inputs = [each for text in texts.tolist() for each in range(*self.first_input[text : text + 2].tolist())]
        parts = [self.hidden[self.first_token[each] : self.first_token[each + 1]] for each in inputs]
        states = torch.zeros(*mask.shape, *self.hidden.shape[1:])
        states[mask.cpu().bool()] = torch.from_numpy(np.concatenate(parts)).float()
        placed = states.to(mask.device)
        return {layer: placed[:, :, at] for at, layer in enumerate(self.layers)}


def cached_teacher(
    expert: Teacher, examples: Sequence[Example], layers: Sequence[int], pooling: Pooling | None, cache: Path
) -> CachedTeacher:
    """Find what a teacher says about `examples`, encoded for it, in the cache, or compute it into it.

    Args:
        expert: the teacher.
        examples: by `encode`.
        layers: whose hidden states are wanted.
        pooling: of windows.
        cache: folder of all such answers.
    """
    inputs, window_of = flatten(examples)
    layers = tuple(sorted(set(layers)))
    folder = cache / _key(expert, inputs, window_of, layers, pooling)
    if is_main_process() and _is_damaged(folder):
        shutil.rmtree(folder, ignore_errors=True)
    first_token = np.cumsum([0, *lengths_of(inputs)])
    built_once(folder, lambda target: _build(target, expert, examples, layers, pooling, first_token))
    return CachedTeacher(
        np.load(folder / LOGITS, mmap_mode="r"),
        np.load(folder / HIDDEN, mmap_mode="r") if layers else None,
        layers,
        first_token,
        np.searchsorted(window_of, np.arange(len(examples) + 1)),
        json.loads((folder / ABOUT).read_text(encoding="utf-8"))["seconds"],
    )


def _build(
    folder: Path,
    expert: Teacher,
    examples: Sequence[Example],
    layers: tuple[int, ...],
    pooling: Pooling | None,
    first_token: NDArray[np.int64],
) -> None:
    logger.info("the teacher answers %d texts, into %s", len(examples), folder.parent)
    begun = time.perf_counter()
    recorder = ActivationRecorder(expert.model, depths_of(expert.model), layers, None)
    hidden: Any = None
    if layers:
        shape = (int(first_token[-1]), len(layers), int(expert.model.config.hidden_size))
        hidden = np.lib.format.open_memmap(folder / HIDDEN, mode="w+", dtype=np.float16, shape=shape)

    def keep(indices: list[int], batch: Batch) -> None:
        if hidden is None:
            return
        states = torch.stack([recorder.hidden(layer) for layer in layers], dim=2).clamp(-HALF_MOST, HALF_MOST)
        for row, index in enumerate(indices):
            own = batch["attention_mask"][row].bool()
            hidden[first_token[index] : first_token[index + 1]] = states[row][own].half().cpu().numpy()

    with recorder.on():
        logits = predict_logits(expert.model, expert.tokenizer, examples, pooling, keep)
    np.save(folder / LOGITS, logits.astype(np.float32))
    if hidden is not None:
        hidden.flush()
    hashes = {name: sha256(folder / name) for name in (LOGITS, HIDDEN) if (folder / name).exists()}
    write_json(folder / ABOUT, {"seconds": time.perf_counter() - begun, "sha256": hashes})


def _is_damaged(folder: Path) -> bool:
    if not folder.exists():
        return False
    try:
        hashes = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["sha256"]
        return any(sha256(folder / name) != digest for name, digest in hashes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _key(
    expert: Teacher, inputs: Sequence[Example], window_of: Sequence[int], layers: Sequence[int], pooling: Pooling | None
) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, list(layers), pooling, list(window_of)]).encode())
    for name, value in sorted(expert.model.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().contiguous().flatten().view(torch.uint8).cpu().numpy())
    digest.update(expert.model.config.to_json_string().encode())
    for each in inputs:
        for name in sorted(each):
            digest.update(f"{name}{len(each[name])}".encode())
            digest.update(np.asarray(each[name], dtype=np.int64).tobytes())
    return digest.hexdigest()[:32]
