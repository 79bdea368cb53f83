"""The training loop: its order, which weights it keeps, what stops it, what it refuses."""

from __future__ import annotations

import dataclasses
import logging
import re
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import tiny
from plankwise.core.errors import CheckpointError, TrainingError
from plankwise.data.batching.examples import Collator, encode
from plankwise.data.truncation import Truncation
from plankwise.training.callbacks import WARM_UP_STEPS, Rehearsal
from plankwise.training.checkpoints import newest, seal
from plankwise.training.fit import Training, fit, planned_steps
from plankwise.training.objectives.losses import task_loss
from plankwise.training.trainer import LengthGrouped, Order, TrainingData, TrainingResult

TRAINING = Training(epochs=2, batch_size=16, learning_rate=1e-3, precision="fp32", evaluations_per_epoch=2)
EXAMPLES = encode(tiny.task().splits["train"], tiny.tokenizer(), Truncation(max_length=32))


def train(
    folder: Path, training: Training = TRAINING, scores: list[float] | None = None, **options: Any
) -> TrainingResult:
    given = iter(scores or [])
    evaluate = (lambda _: next(given)) if scores else None
    loss = options.pop("loss", task_loss("single_label"))
    data = TrainingData(EXAMPLES, Collator(tiny.tokenizer()), loss, evaluate)
    return fit(options.pop("model", None) or small(), data, training, seed=1, folder=folder, **options)


def small(**changes: Any) -> PreTrainedModel:
    return tiny.model(layers=1, **changes)


def test_an_epoch_sees_every_text_once_in_batches_of_like_length() -> None:
    lengths = [len(each["input_ids"]) for each in EXAMPLES] * 20
    sampler = LengthGrouped(lengths, 16, seed=3)
    first = list(sampler)
    assert Counter(first) == Counter(range(len(lengths)))
    batches = [[lengths[index] for index in first[at : at + 16]] for at in range(0, len(first), 16)]
    padding = sum(max(batch) * len(batch) for batch in batches) / sum(lengths)
    assert padding < 1.1
    assert max(batches[0]) == max(lengths)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    torch.manual_seed(123)
    assert list(sampler) == first
    assert list(LengthGrouped(lengths, 16, seed=4)) != first


@pytest.mark.parametrize("count", [1, 15, 16, 17, 33])
def test_an_epoch_of_any_size_is_whole(count: int) -> None:
    assert sorted(LengthGrouped(list(range(1, count + 1)), 16, seed=0)) == list(range(count))


def test_the_weights_of_the_best_evaluation_are_kept_or_the_last(tmp_path: Path) -> None:
    model = small()
    seen: dict[int, torch.Tensor] = {}
    result = train(
        tmp_path / "best",
        scores=[0.1, 0.9, 0.5, 0.5],
        model=model,
        on_step=lambda step, _: seen.setdefault(step, model.classifier.weight.detach().clone()),
    )
    assert result.best_step == 6
    assert torch.equal(model.classifier.weight, seen[6])
    last = train(tmp_path / "last", dataclasses.replace(TRAINING, keep="last"), scores=[0.1, 0.9, 0.5, 0.5])
    assert last.best_step == 12


def test_an_evaluation_before_select_from_cannot_be_the_best(tmp_path: Path) -> None:
    result = train(tmp_path, scores=[0.9, 0.8, 0.1, 0.5], select_from=0.7)
    assert result.best_step == 12
    assert [entry["score"] for entry in result.history] == [0.9, 0.8, 0.1, 0.5]


def test_early_stopping_starts_at_select_from(tmp_path: Path) -> None:
    impatient = dataclasses.replace(TRAINING, early_stopping_patience=1)
    assert train(tmp_path / "a", impatient, scores=[0.9, 0.8, 0.7, 0.6]).steps == 6
    assert train(tmp_path / "b", impatient, scores=[0.9, 0.8, 0.7, 0.6], select_from=0.7).steps == 12


def test_the_last_step_is_evaluated_even_within_an_interval(tmp_path: Path) -> None:
    result = train(tmp_path, dataclasses.replace(TRAINING, epochs=1.2, evaluations_per_epoch=1), scores=[0.1, 0.2])
    assert [entry["step"] for entry in result.history] == [6, 8]
    assert planned_steps(len(EXAMPLES), dataclasses.replace(TRAINING, epochs=1.2)) == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 1.2, "keep": "last"},
        {"epochs": 1.2, "keep": "best"},
        {"early_stopping_patience": 1, "keep": "last"},
        {"early_stopping_patience": 1, "keep": "best"},
    ],
    ids=str,
)
def test_a_finished_training_is_restored_without_another_step(changes: dict[str, Any], tmp_path: Path) -> None:
    """Killed after its last checkpoint, before the model was saved: resuming must not train past the end."""
    settings = dataclasses.replace(TRAINING, **changes)
    whole, again = small(), small()
    steps: list[int] = []
    first = train(tmp_path, settings, scores=[0.1, 0.9, 0.8, 0.7, 0.6], model=whole)
    second = train(tmp_path, settings, scores=[0.0], model=again, on_step=lambda step, _: steps.append(step))
    assert not steps
    assert second == first
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), again.parameters(), strict=True))


def test_gradient_accumulation_makes_the_same_steps(tmp_path: Path) -> None:
    """Without dropout, one batch of 16 and four of 4 are the same step, but for rounding."""
    models = [small(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0) for _ in range(2)]
    for parts, model in zip((1, 4), models, strict=True):
        settings = dataclasses.replace(TRAINING, gradient_accumulation=parts, keep="last")
        assert train(tmp_path / str(parts), settings, model=model).steps == 12
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-4)


def test_bf16_leaves_a_plain_fp32_model(tmp_path: Path) -> None:
    model = small()
    assert train(tmp_path, dataclasses.replace(TRAINING, precision="bf16"), model=model).precision == "bf16"
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert not hasattr(model, "_original_forward")
    assert "forward" not in vars(model), "the autocast wrapper is still around the model"


def test_a_loss_that_is_not_a_number_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the loss is nan at step"):
        train(tmp_path, loss=lambda outputs, batch: outputs.logits.sum() * float("nan"))


def test_frozen_parameters_are_neither_trained_nor_saved(tmp_path: Path) -> None:
    model = small()
    model.base_model.requires_grad_(False)
    before = {name: value.clone() for name, value in model.base_model.state_dict().items()}
    train(tmp_path, model=model)
    assert all(torch.equal(value, before[name]) for name, value in model.base_model.state_dict().items())
    sizes = [path.stat().st_size for path in tmp_path.rglob("trained.safetensors")]
    assert sizes
    assert max(sizes) < 1000


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(CheckpointError, match="belongs to a training with other settings"):
        train(tmp_path, dataclasses.replace(TRAINING, learning_rate=2e-3))


def test_an_incomplete_checkpoint_is_removed_and_a_damaged_one_refused(tmp_path: Path) -> None:
    for step in (6, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_text("x")
    seal(tmp_path / "checkpoint-6", {"a": 1}, finished=False)
    assert newest(tmp_path, {"a": 1}) == tmp_path / "checkpoint-6"
    assert not (tmp_path / "checkpoint-12").exists()
    (tmp_path / "checkpoint-6" / "optimizer.pt").write_text("y")
    with pytest.raises(CheckpointError, match=r"optimizer\.pt is damaged"):
        newest(tmp_path, {"a": 1})


def test_the_order_of_many_examples_is_one_permutation_an_epoch() -> None:
    order = Order(1005, seed=3)
    first = list(order)
    assert Counter(first) == Counter(range(1005))
    assert list(Order(1005, seed=3, at_once=7)) == first
    order.set_epoch(1)
    assert list(order) != first


def test_the_order_of_many_examples_takes_little_memory() -> None:
    made: list[int] = []

    class Counting(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = function(*args, **(kwargs or {}))
            made.append(len(found) if isinstance(found, (tuple, list)) else 1)
            return found

    with Counting():
        next(iter(Order(1_000_000, seed=3)))
    assert max(made) <= 10_000


def test_without_a_terminal_lines_of_the_log_show_progress(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "plankwise")
    train(tmp_path, progress="baseline")
    lines = [each.getMessage() for each in caplog.records if each.name == "plankwise.core.progress"]
    assert len(lines) == 12
    pattern = r"baseline: step {} of 12 \({}%\), loss \d\.\d{{3}}, learning rate {}{}"
    assert re.fullmatch(pattern.format(6, 50, "0.00064", r", \d+ s left"), lines[5]), lines[5]
    assert re.fullmatch(pattern.format(12, 100, "9.1e-05", ""), lines[-1]), lines[-1]


def test_a_rehearsal_scores_and_saves_nothing_and_stops_in_time(tmp_path: Path) -> None:
    whole, short = Rehearsal(seconds=60), Rehearsal(seconds=0)
    result = train(tmp_path / "whole", scores=[0.5] * 9, rehearsal=whole)
    assert result.steps == 12
    assert result.history == []
    assert len(whole._timed) == 12 - WARM_UP_STEPS
    assert whole.seconds_per_step == statistics.median(whole._timed) <= result.train_seconds
    assert train(tmp_path / "short", rehearsal=short).steps == 1
    assert short.seconds_per_step == short._first[0], "a first step counts where there is no other"
    assert not list(tmp_path.rglob("checkpoint-*"))
