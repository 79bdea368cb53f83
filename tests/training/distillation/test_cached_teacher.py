"""Targets that are kept on disk: what they are, when they are used again, and when they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import tiny
from plankwise.data.batching.examples import Collator, encode
from plankwise.data.truncation import Pooling, Truncation, Windows
from plankwise.encoder.anatomy import layers_of
from plankwise.training.distillation.activations import ActivationRecorder
from plankwise.training.distillation.cached_teacher import cached_teacher
from plankwise.training.distillation.layer_mapping import LayerMapping
from plankwise.training.distillation.online_teacher import OnlineTeacher
from plankwise.training.distillation.teacher import Teacher
from plankwise.training.prediction import predict_logits

WHOLE = Truncation(max_length=32)
WINDOWS = Truncation(max_length=6, windows=Windows(stride=1))


def examples(truncation: Truncation = WHOLE, count: int = 24) -> list[dict[str, Any]]:
    return encode(tiny.task().splits["train"].select(range(count)), tiny.tokenizer(), truncation)


def teacher(model: PreTrainedModel | None = None) -> Teacher:
    return Teacher((model or tiny.model()).eval(), tiny.tokenizer(), "input", True)


def entries(cache: Path) -> int:
    return len([each for each in cache.iterdir() if each.is_dir()])


@pytest.mark.parametrize(("truncation", "pooling"), [(WHOLE, None), (WINDOWS, "mean")])
def test_cached_targets_are_those_of_a_teacher_that_runs_at_every_step(
    truncation: Truncation, pooling: Pooling | None, tmp_path: Path
) -> None:
    found, rows = teacher(), examples(truncation)
    cached = cached_teacher(found, rows, [3, 1], pooling, cache=tmp_path)
    np.testing.assert_allclose(cached.logits, predict_logits(found.model, tiny.tokenizer(), rows, pooling), rtol=1e-6)
    recorder = ActivationRecorder(found.model, list(layers_of(found.model)), [1, 3], None)
    mapping = LayerMapping(hidden=((0, 1), (1, 3)))
    online = OnlineTeacher(found.model, recorder, mapping, pooling=pooling, bf16=False)
    batch = Collator(tiny.tokenizer())([{**rows[at], "example": at} for at in (7, 2, 11)])
    mask = batch["attention_mask"]
    with recorder.on():
        one, other = cached.targets(batch, mask), online.targets(batch, mask)
    torch.testing.assert_close(one.logits, other.logits, rtol=1e-5, atol=1e-5)
    assert one.hidden.keys() == other.hidden.keys() == {1, 3}
    for layer, states in one.hidden.items():
        torch.testing.assert_close(states[mask.bool()], other.hidden[layer][mask.bool()], rtol=1e-2, atol=2e-3)
        assert not states[mask == 0].any()


def test_a_second_run_does_not_run_the_teacher(tmp_path: Path) -> None:
    first = cached_teacher(teacher(), examples(), [1], None, cache=tmp_path)
    model = tiny.model()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the teacher ran again"))
    again = cached_teacher(teacher(model), examples(), [1], None, cache=tmp_path)
    np.testing.assert_array_equal(first.logits, again.logits)
    assert again.seconds == first.seconds


def test_other_weights_texts_or_layers_are_other_targets(tmp_path: Path) -> None:
    cached_teacher(teacher(), examples(), [], None, cache=tmp_path)
    changed = tiny.model()
    with torch.no_grad():
        next(changed.parameters())[0, 0] += 1e-3
    cached_teacher(teacher(changed), examples(), [], None, cache=tmp_path)
    assert entries(tmp_path) == 2
    cached_teacher(teacher(), examples(count=23), [], None, cache=tmp_path)
    assert entries(tmp_path) == 3
    cached_teacher(teacher(), examples(), [0], None, cache=tmp_path)
    assert entries(tmp_path) == 4


@pytest.mark.parametrize("name", ["logits.npy", "hidden.npy", "about.json"])
@pytest.mark.parametrize("how", ["cut", "flip", "gone"])
def test_what_is_damaged_is_computed_again(name: str, how: str, tmp_path: Path) -> None:
    first = cached_teacher(teacher(), examples(), [1], None, cache=tmp_path)
    wanted = np.array(first.logits), np.array(first.hidden)
    path = next(tmp_path.glob(f"*/{name}"))
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    else:
        data[-9] ^= 0xFF
        path.write_bytes(data if how == "flip" else data[:-7])
    again = cached_teacher(teacher(), examples(), [1], None, cache=tmp_path)
    np.testing.assert_array_equal(again.logits, wanted[0])
    np.testing.assert_array_equal(np.array(again.hidden), wanted[1])
