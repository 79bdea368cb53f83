"""Training and predicting in windows: pooling by hand, texts that fit, memory, labels that only the end decides."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from torch.nn import functional
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import PreTrainedModel

import tiny
from plankwise.core.step_log import TrainingLog
from plankwise.data.batching.examples import Collator, encode, lengths_of
from plankwise.data.batching.pooling import pool
from plankwise.data.task import LabelledText, Task, build_task
from plankwise.data.truncation import Pooling, Truncation, Windows
from plankwise.training.fit import Training
from plankwise.training.objectives.losses import over_windows, task_loss
from plankwise.training.on_task import train_on_task
from plankwise.training.prediction import predict, predict_logits

TRAINING = Training(epochs=2, batch_size=16, learning_rate=2e-3, precision="fp32")
POOLINGS = pytest.mark.parametrize("pooling", ["mean", "max"])
SHORT = Truncation(max_length=8, windows=Windows(stride=2, max_windows=50))


def long_rows(count: int, seed: int) -> list[LabelledText]:
    """Texts of up to 30 words; the last words alone decide the label."""
    draw = random.Random(seed)
    made: list[LabelledText] = []
    for number in range(count):
        good = number % 2 == 0
        words = draw.choices(tiny.PLAIN, k=draw.randint(24, 30))
        words[-4:] = draw.choices(tiny.GOOD if good else tiny.BAD, k=4)
        made.append({"id": f"{seed}-{number}", "text": " ".join(words), "label": "good" if good else "bad"})
    return made


def long_task() -> Task:
    sizes = {"train": 160, "development": 24, "test": 25}
    return build_task("long", {part: long_rows(count, count) for part, count in sizes.items()}, ("accuracy",))


def train(
    folder: Path, task: Task, truncation: Truncation, training: Training = TRAINING, **changes: Any
) -> tuple[PreTrainedModel, TrainingLog]:
    torch.manual_seed(0)
    model = tiny.model(layers=1, **changes)
    job = tiny.job(folder, task=task.without_test(), truncation=truncation)
    log = train_on_task(model, job, training, "windows").training
    assert log is not None
    return model, log


def equal(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


class TestPooling:
    @POOLINGS
    def test_by_hand(self, pooling: Pooling) -> None:
        logits = torch.tensor([[1.0, 4.0], [3.0, -2.0], [5.0, 0.0], [7.0, 7.0], [9.0, 1.0]])
        expected = {"mean": [[2.0, 1.0], [5.0, 0.0], [8.0, 4.0]], "max": [[3.0, 4.0], [5.0, 0.0], [9.0, 7.0]]}
        assert pool(logits, torch.tensor([0, 0, 1, 2, 2]), pooling).tolist() == expected[pooling]

    @POOLINGS
    def test_one_window_keeps_its_logits_bit_by_bit(self, pooling: Pooling) -> None:
        logits = torch.randn(7, 3)
        assert torch.equal(pool(logits, torch.arange(7), pooling), logits)

    @POOLINGS
    def test_the_loss_is_that_of_the_pooled_logits(self, pooling: Pooling) -> None:
        batch = Collator(tiny.tokenizer())(encode(long_task().splits["test"], tiny.tokenizer(), SHORT)[:3])
        model = tiny.model()
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        outputs = model(**inputs)
        found = over_windows(task_loss("single_label"), pooling)(outputs, batch)
        rows = [outputs.logits[batch["window_of"] == text] for text in range(3)]
        pooled = torch.stack([row.mean(0) if pooling == "mean" else row.max(0).values for row in rows])
        assert len(rows[0]) > 1
        torch.testing.assert_close(found, functional.cross_entropy(pooled, batch["labels"]))
        assert outputs.logits.shape[0] == len(batch["window_of"])  # the model's own outputs are left alone


class TestBatches:
    def test_hold_every_window_beside_the_number_of_its_text(self) -> None:
        examples = encode(long_task().splits["test"], tiny.tokenizer(), SHORT)[:4]
        batch = Collator(tiny.tokenizer())(examples)
        windows = [window["input_ids"] for each in examples for window in each["windows"]]
        assert [row[: len(ids)].tolist() for row, ids in zip(batch["input_ids"], windows, strict=True)] == windows
        assert batch["window_of"].tolist() == [n for n, each in enumerate(examples) for _ in each["windows"]]
        assert batch["labels"].shape == (4,)

    def test_a_texts_length_is_that_of_all_its_windows(self) -> None:
        examples = encode(long_task().splits["test"], tiny.tokenizer(), SHORT)
        assert lengths_of(examples) == [sum(len(w["input_ids"]) for w in each["windows"]) for each in examples]

    def test_processes_share_texts_and_number_the_windows_of_their_own(self) -> None:
        """Batches are dealt by index before anything is collated; window numbers need no process but their own."""
        examples = encode(long_task().splits["test"], tiny.tokenizer(), SHORT)
        batches = BatchSampler(SequentialSampler(examples), 4, drop_last=False)
        for process in range(2):
            for indices in BatchSamplerShard(batches, num_processes=2, process_index=process):
                batch = Collator(tiny.tokenizer())([examples[index] for index in indices])
                assert torch.unique(batch["window_of"]).tolist() == list(range(len(indices))) == list(range(4))


class TestPredictions:
    @POOLINGS
    def test_are_the_pooled_logits_of_windows_run_one_at_a_time(self, pooling: Pooling) -> None:
        model, tokenizer, rows = tiny.model(), tiny.tokenizer(), long_task().splits["test"]
        truncation = dataclasses.replace(SHORT, windows=Windows(stride=2, pooling=pooling, max_windows=50))
        found = predict(model, tokenizer, long_task(), "test", truncation)
        for example, logits in zip(encode(rows, tokenizer, truncation), found.logits, strict=True):
            with torch.inference_mode():
                alone = [model(input_ids=torch.tensor([w["input_ids"]])).logits[0].numpy() for w in example["windows"]]
            expected = np.mean(alone, axis=0) if pooling == "mean" else np.max(alone, axis=0)
            np.testing.assert_allclose(logits, expected, atol=1e-5)
        assert found.ids == list(rows["id"])

    def test_the_order_of_texts_changes_nothing(self) -> None:
        model, tokenizer = tiny.model(), tiny.tokenizer()
        examples = encode(long_task().splits["test"], tokenizer, SHORT)
        order = random.Random(0).sample(range(len(examples)), len(examples))
        there = predict_logits(model, tokenizer, examples, "mean")
        back = predict_logits(model, tokenizer, [examples[index] for index in order], "mean")
        np.testing.assert_allclose(back, there[order], atol=1e-6)

    def test_a_text_of_many_windows_is_run_in_small_batches(self) -> None:
        model, sizes = tiny.model(), []
        model.register_forward_hook(
            lambda _, __, inputs, ___: sizes.append(inputs["input_ids"].numel()), with_kwargs=True
        )
        texts = [f"{word} day" for word in tiny.GOOD] + ["the day " * 4000]
        split = Dataset.from_dict({"text": texts, "label": [0] * len(texts)})
        truncation = Truncation(max_length=8, windows=Windows(max_windows=999))
        examples = encode(split, tiny.tokenizer(), truncation)
        predict_logits(model, tiny.tokenizer(), examples, "mean", tokens_per_batch=64)
        assert len(sizes) > 20
        assert max(sizes) <= 64

    def test_windows_need_a_pooling(self) -> None:
        examples = encode(long_task().splits["test"], tiny.tokenizer(), SHORT)
        with pytest.raises(ValueError, match="say how to pool them"):
            predict_logits(tiny.model(), tiny.tokenizer(), examples)


class TestTraining:
    @POOLINGS
    def test_on_texts_that_fit_windows_give_the_same_weights(self, pooling: Pooling, tmp_path: Path) -> None:
        task = tiny.task()
        windows = Truncation(max_length=32, windows=Windows(stride=4, pooling=pooling))
        plain, result = train(tmp_path / "plain", task, Truncation(max_length=32))
        other, again = train(tmp_path / "windows", task, windows)
        assert equal(plain, other)
        assert not equal(plain, tiny.model(layers=1))
        assert result.history == again.history

    def test_trains_with_the_pooling_that_was_chosen(self, tmp_path: Path) -> None:
        settings = dataclasses.replace(TRAINING, epochs=0.3, keep="last")
        highest = dataclasses.replace(SHORT, windows=Windows(stride=2, pooling="max", max_windows=50))
        models = [train(tmp_path / str(n), long_task(), each, settings)[0] for n, each in enumerate((SHORT, highest))]
        assert not equal(*models)

    def test_the_gradient_reaches_every_window(self) -> None:
        examples = encode(long_task().splits["test"], tiny.tokenizer(), SHORT)[:3]
        batch = Collator(tiny.tokenizer())(examples)
        logits = torch.randn(len(batch["window_of"]), 2, requires_grad=True)
        torch.autograd.backward(pool(logits, batch["window_of"], "mean").sum())
        counts = torch.bincount(batch["window_of"])
        assert logits.grad is not None
        torch.testing.assert_close(logits.grad, (1 / counts)[batch["window_of"]][:, None].expand(-1, 2))

    def test_accumulated_batches_make_the_same_steps(self, tmp_path: Path) -> None:
        still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        settings = dataclasses.replace(TRAINING, keep="last")
        whole, _ = train(tmp_path / "1", long_task(), SHORT, settings, **still)
        parts, _ = train(
            tmp_path / "4", long_task(), SHORT, dataclasses.replace(settings, gradient_accumulation=4), **still
        )
        for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=2e-4)

    def test_bf16_pools_too(self, tmp_path: Path) -> None:
        model, result = train(tmp_path, long_task(), SHORT, dataclasses.replace(TRAINING, precision="bf16", epochs=0.5))
        assert result.precision == "bf16"
        assert all(torch.isfinite(value).all() for value in model.parameters())

    def test_only_words_within_the_truncation_can_be_learned(self, tmp_path: Path) -> None:
        """The words that decide come after the head: the tail and windows hold them, the head can only guess."""
        task = long_task()
        settings = Training(epochs=7, batch_size=16, learning_rate=1e-2, precision="fp32")
        truncations = {
            "head": Truncation(max_length=20),
            "tail": Truncation(max_length=20, truncation="tail"),
            "windows": Truncation(max_length=20, windows=Windows(stride=2)),
        }
        scores = {}
        for name, truncation in truncations.items():
            model, _ = train(tmp_path / name, task, truncation, settings)
            scores[name] = predict(model, tiny.tokenizer(), task, "test", truncation).scores(["accuracy"])["accuracy"]
        assert scores.pop("head") < 0.7
        assert min(scores.values()) > 0.8, scores
