"""A teacher's targets for every training text, computed once and kept on disk.

They are stored under the hash of the teacher's weights and of the token ids it takes, hence of the texts, the tokenizer
and the truncation. A file that is cut off or damaged is computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from plankwise.core.cache import built_once
from plankwise.core.distributed import is_main_process
from plankwise.core.files import sha256, write_json
from plankwise.data.batching.examples import Example, flatten, lengths_of
from plankwise.data.batching.inputs import Batch
from plankwise.data.truncation import Pooling
from plankwise.encoder.anatomy import layers_of
from plankwise.training.distillation.activations import ActivationRecorder
from plankwise.training.distillation.online_teacher import TeacherTargets
from plankwise.training.distillation.teacher import Teacher
from plankwise.training.prediction import predict_logits

logger = logging.getLogger(__name__)
FORMAT = 2  # of the files and of how they are computed; another number makes older entries unknown
LOGITS, HIDDEN, ABOUT = "logits.npy", "hidden.npy", "about.json"
FP16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class CachedTeacher:
    """A teacher's targets, memory-mapped.

    Attributes:
        logits: of each text, pooled over its windows, [texts, classes].
        hidden: of each token of each input, texts in order, [tokens, layers, width]; `None` if there are no `layers`.
        layers: teacher layers that `hidden` holds.
        first_token: index into `hidden` of each input's first token, and the end, [inputs + 1].
        first_input: number of each text's first input, and the end, [texts + 1]; a text of windows has several.
        seconds: time that it took to compute them, whenever that was.
    """

    logits: NDArray[np.float32]
    hidden: NDArray[np.float16] | None
    layers: tuple[int, ...]
    first_token: NDArray[np.int64]
    first_input: NDArray[np.int64]
    seconds: float

    def targets(self, batch: Mapping[str, Tensor], mask: Tensor) -> TeacherTargets:
        """Look up the targets of a batch by the numbers of its texts, `batch["example"]`."""
        texts = batch["example"]
        logits = torch.from_numpy(self.logits[texts.cpu().numpy()]).to(texts.device)
        return TeacherTargets(logits, {} if self.hidden is None else self._hidden(self.hidden, texts, mask))

    def _hidden(self, stored: NDArray[np.float16], texts: Tensor, mask: Tensor) -> dict[int, Tensor]:
        """Return the hidden states of a batch by layer, [inputs, tokens, width], zero where `mask` is."""
        inputs = [each for text in texts.tolist() for each in range(*self.first_input[text : text + 2].tolist())]
        parts = [stored[self.first_token[each] : self.first_token[each + 1]] for each in inputs]
        states = torch.zeros(*mask.shape, *stored.shape[1:])
        # Tokens are stored without padding, in the order in which a boolean mask visits them.
        states[mask.cpu().bool()] = torch.from_numpy(np.concatenate(parts)).float()
        placed = states.to(mask.device)
        return {layer: placed[:, :, at] for at, layer in enumerate(self.layers)}


def cached_teacher(
    teacher: Teacher, examples: Sequence[Example], layers: Sequence[int], pooling: Pooling | None, *, cache: Path
) -> CachedTeacher:
    """Load a teacher's targets for `examples` from the cache, or compute them into it.

    Args:
        teacher: the teacher.
        examples: encoded for it, by `encode`.
        layers: teacher layers with compared hidden states.
        pooling: of windows.
        cache: folder of all such targets.
    """
    inputs, window_of = flatten(examples)
    layers = tuple(sorted(set(layers)))
    folder = cache / _key(teacher, inputs, window_of, layers, pooling)
    if is_main_process() and _is_damaged(folder):
        shutil.rmtree(folder, ignore_errors=True)
    first_token = np.cumsum([0, *lengths_of(inputs)])
    built_once(folder, lambda target: _compute(target, teacher, examples, pooling, layers=layers, starts=first_token))
    return CachedTeacher(
        np.load(folder / LOGITS, mmap_mode="r"),
        np.load(folder / HIDDEN, mmap_mode="r") if layers else None,
        layers,
        first_token,
        np.searchsorted(window_of, np.arange(len(examples) + 1)),
        json.loads((folder / ABOUT).read_text(encoding="utf-8"))["seconds"],
    )


def _compute(
    folder: Path,
    teacher: Teacher,
    examples: Sequence[Example],
    pooling: Pooling | None,
    *,
    layers: tuple[int, ...],
    starts: NDArray[np.int64],
) -> None:
    """Run the teacher over all examples; hidden states are written as they come and never held in memory."""
    logger.info("the teacher computes targets for %d texts, into %s", len(examples), folder.parent)
    begun = time.perf_counter()
    recorder = ActivationRecorder(teacher.model, list(layers_of(teacher.model)), layers, None)
    hidden: Any = None
    if layers:
        shape = (int(starts[-1]), len(layers), int(teacher.model.config.hidden_size))
        hidden = np.lib.format.open_memmap(folder / HIDDEN, mode="w+", dtype=np.float16, shape=shape)

    def store(indices: list[int], batch: Batch) -> None:
        if hidden is None:
            return
        # Clamped, since a few large activations of some models would be infinite in fp16.
        states = torch.stack([recorder.hidden(layer) for layer in layers], dim=2).clamp(-FP16_MAX, FP16_MAX)
        for row, index in enumerate(indices):
            own = batch["attention_mask"][row].bool()
            hidden[starts[index] : starts[index + 1]] = states[row][own].half().cpu().numpy()

    with recorder.on():
        logits = predict_logits(teacher.model, teacher.tokenizer, examples, pooling, store)
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
    teacher: Teacher,
    inputs: Sequence[Example],
    window_of: Sequence[int],
    layers: Sequence[int],
    pooling: Pooling | None,
) -> str:
    """Hash everything that the targets depend on."""
    digest = hashlib.sha256(json.dumps([FORMAT, list(layers), pooling, list(window_of)]).encode())
    add_weights(digest, teacher.model)
    digest.update(teacher.model.config.to_json_string().encode())
    for each in inputs:
        for name in sorted(each):
            digest.update(f"{name}{len(each[name])}".encode())
            digest.update(np.asarray(each[name], dtype=np.int64).tobytes())
    return digest.hexdigest()[:32]


def add_weights(digest: hashlib._Hash, model: PreTrainedModel) -> None:
    """Add a model's weights and buffers to a hash, with their names and shapes."""
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().contiguous().flatten().view(torch.uint8).cpu().numpy())
