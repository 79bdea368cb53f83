"""NNCF's quantization with accuracy control, as a peer of what plankwise makes of the same model."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from transformers import AutoTokenizer

from plankwise.core.files import sha256
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.deploy.manifest import read_manifest, write_manifest
from plankwise.evaluation.metrics import METRICS

CALIBRATED, MAX_DROP = 300, 0.01  # NNCF's own defaults


def accuracy_controlled(model: Path, artefact: Path, task: Task, metric: str, out: Path) -> Path:
    """Quantize an fp32 artefact in OpenVINO until `metric` on development drops by at most `MAX_DROP`.

    Args:
        model: folder with the tokenizer.
        artefact: in fp32.
        task: training texts give the ranges, development the metric.
        metric: name.
        out: a copy of the artefact, with the quantized model in it.
    """
    import nncf

    if out.exists():
        return out
    manifest = read_manifest(artefact)
    tokenizer = AutoTokenizer.from_pretrained(model)

    def encoded(text: str) -> dict[str, Any]:
        made = tokenizer(text, truncation=True, max_length=manifest.truncation.max_length, return_tensors="np")
        return {name: made[name] for name in manifest.inputs}

    def score(compiled: Any, items: Iterable[tuple[str, int]]) -> tuple[float, None]:
        texts, labels = zip(*items, strict=True)
        logits = np.concatenate([compiled(encoded(text))[0] for text in texts])
        return METRICS[metric](np.asarray(labels), logits), None

    quantized = nncf.quantize_with_accuracy_control(
        openvino.Core().read_model(str(artefact / manifest.model)),
        nncf.Dataset(sample(task.splits[TRAIN]["text"][:], CALIBRATED), encoded),
        nncf.Dataset(pairs(task), lambda item: encoded(item[0])),
        validation_fn=score,
        max_drop=MAX_DROP,
        model_type=nncf.ModelType.TRANSFORMER,
    )
    making = out.with_name(f".{out.name}")
    shutil.rmtree(making, ignore_errors=True)
    shutil.copytree(artefact, making)
    openvino.save_model(quantized, str(making / manifest.model), compress_to_fp16=False)
    hashes = {name: sha256(making / name) for name in manifest.hashes}
    write_manifest(making, manifest.model_copy(update={"hashes": hashes, "check": None}))
    making.rename(out)
    return out


def sample(texts: Sequence[str], most: int) -> list[str]:
    return list(texts[:: max(1, len(texts) // most)][:most])


def pairs(task: Task) -> list[tuple[str, int]]:
    rows = task.splits[DEVELOPMENT]
    return list(zip(rows["text"][:], rows["label"][:], strict=True))
