"""Predictions equal those of training, come in order, draw their texts lazily and end their threads."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

import plankwise
import tiny
from deployables import FakeRuntime, fake_model
from plankwise.core.errors import DataError, ModelError, RecipeError
from plankwise.data.batching.examples import encode
from plankwise.data.batching.inputs import Inputs, Text
from plankwise.data.truncation import Truncation, Windows
from plankwise.deploy.predictor import Prediction, Predictor
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.training.prediction import predict_logits

TRUNCATIONS = {
    "head": Truncation(max_length=12),
    "tail": Truncation(max_length=12, truncation="tail"),
    "head_tail": Truncation(max_length=12, truncation="head_tail"),
    "mean of windows": Truncation(max_length=12, windows=Windows(stride=2, max_windows=5)),
    "maximum of windows": Truncation(max_length=12, windows=Windows(pooling="max")),
}
CASES = [
    *(("throughput", name, False) for name in TRUNCATIONS),
    *(("throughput", name, True) for name in ("head", "tail", "head_tail")),
    ("latency", "head", True),
    ("latency", "mean of windows", False),
]


def texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(tiny.PLAIN + tiny.BAD, k=draw.randint(1, 30))) for _ in range(count)]


def threads() -> set[str]:
    return {each.name for each in threading.enumerate() if each.name.startswith("plankwise")}


@pytest.mark.parametrize(("mode", "name", "pairs"), CASES)
def test_logits_are_those_of_training(source: Path, mode: str, name: str, pairs: bool) -> None:
    truncation = TRUNCATIONS[name]
    first, second = texts(50), texts(50, 1)
    columns = {"text": first, "label": [0] * 50} | ({"text_pair": second} if pairs else {})
    pooling = None if truncation.windows is None else truncation.windows.pooling
    tokenizer = load_tokenizer(str(source))
    examples = encode(Dataset.from_dict(columns), tokenizer, truncation)
    expected = predict_logits(load_trained(str(source)), tokenizer, examples, pooling)
    options = {"buffer_size": 20, "tokens_per_batch": 60} if mode == "throughput" else {}
    predictor = Predictor(source, mode=mode, threads=1, truncation=truncation, **options)
    given: list[Text] = list(zip(first, second, strict=True)) if pairs else list(first)
    assert np.allclose(predictor.logits(given), expected, atol=2e-6)
    shares = torch.softmax(torch.from_numpy(expected), dim=-1).numpy()
    assert np.allclose(predictor.probabilities(given), shares, atol=2e-6)


def test_predictions_come_in_order_with_labels_and_probabilities() -> None:
    given = texts(300)
    predictor = Predictor(fake_model(), buffer_size=64, tokens_per_batch=40)
    found = list(predictor.predict(iter(given)))
    shares = predictor.probabilities(given)
    assert [list(each.probabilities.values()) for each in found] == shares.tolist()
    assert [each.label for each in found] == [("good", "bad")[index] for index in shares.argmax(axis=1)]
    assert len({each.label for each in found}) == 2
    lengths = np.array([len(text.split()) + 2 for text in given])
    assert np.allclose(predictor.logits(given)[:, 1], lengths / 10)
    assert len(list(predictor.predict([]))) == 0


def test_several_labels_are_those_above_one_half() -> None:
    class Given(FakeRuntime):
        def __call__(self, inputs: Inputs) -> Any:
            return np.array([[-1.0, 2.0], [3.0, 0.5], [-2.0, -0.1]])

    predictor = Predictor(fake_model(Given(), kind="multi_label"))
    found = list(predictor.predict(["the", "a", "day"]))
    assert [each.labels for each in found] == [("bad",), ("good", "bad"), ()]
    assert found[0].probabilities["bad"] == pytest.approx(1 / (1 + np.exp(-2.0)))
    with pytest.raises(ValueError, match="this text has 2 labels"):
        _ = found[1].label


def test_batches_keep_the_budget_and_latency_mode_runs_one_text_at_a_time() -> None:
    runtime = FakeRuntime()
    Predictor(fake_model(runtime), tokens_per_batch=64, buffer_size=100).logits(texts(200))
    assert max(rows * columns for rows, columns in runtime.shapes) <= 64
    assert len(runtime.shapes) < 100
    runtime = FakeRuntime(streams=1)
    Predictor(fake_model(runtime), mode="latency").logits(["the day", "never", "the day under the tree"])
    assert runtime.shapes == [(1, 4), (1, 3), (1, 7)]


def test_one_text_starts_no_thread_and_is_predicted_as_among_others() -> None:
    started: set[str] = set()

    class Watching(FakeRuntime):
        def __call__(self, inputs: Inputs) -> Any:
            started.update(threads())
            return super().__call__(inputs)

    predictor = Predictor(
        fake_model(Watching(), Truncation(max_length=12, windows=Windows(stride=2))), tokens_per_batch=24
    )
    given = texts(20)
    alone = [predictor.logits([text])[0].tolist() for text in given]
    assert not started
    assert predictor.logits(given).tolist() == alone
    assert started


def test_an_endless_stream_is_drawn_a_few_blocks_ahead() -> None:
    drawn = 0

    def endless() -> Iterator[str]:
        nonlocal drawn
        for number in count():
            drawn += 1
            yield tiny.PLAIN[number % 15]

    stream = Predictor(fake_model(), buffer_size=32).predict(endless())
    for taken in (1, 1000):
        assert len(list(islice(stream, taken))) == taken
        time.sleep(0.1)
        assert drawn <= taken + 5 * 32
    stream.close()
    assert not threads()


def test_latency_mode_answers_before_the_next_text_is_there() -> None:
    ready = threading.Event()

    def slow() -> Iterator[str]:
        yield "the day"
        ready.wait(20)
        yield "never"

    stream = Predictor(fake_model(FakeRuntime(streams=1)), mode="latency").predict(slow())
    assert next(stream).labels
    ready.set()
    assert len(list(stream)) == 1


@pytest.mark.parametrize("streams", [1, 3])
def test_an_error_of_the_runtime_is_raised_after_the_blocks_before_it(streams: int) -> None:
    predictor = Predictor(fake_model(FakeRuntime(streams, fails_at=25)), buffer_size=10, tokens_per_batch=40)
    found: list[Prediction] = []
    with pytest.raises(RuntimeError, match="the runtime broke"):
        found.extend(predictor.predict(texts(500)))
    assert len(found) % 10 == 0  # whole blocks
    assert not threads()
    found = []
    with pytest.raises(ZeroDivisionError):
        found.extend(predictor.predict(text if number < 55 else str(1 / 0) for number, text in enumerate(texts(99))))
    assert len(found) == 50
    assert not threads()


def test_closing_early_ends_threads_in_the_middle_of_work() -> None:
    stream = Predictor(fake_model(FakeRuntime(seconds=0.01)), buffer_size=50).predict(texts(5000))
    next(stream)
    assert len(threads()) == 3
    stream.close()
    assert not threads()


def test_logits_that_are_no_numbers_are_no_prediction() -> None:
    class Broken(FakeRuntime):
        def __call__(self, inputs: Inputs) -> Any:
            return np.full((len(inputs["input_ids"]), 2), np.nan)

    with pytest.raises(ModelError, match="not a finite number"):
        Predictor(fake_model(Broken())).logits(["the day"])


@pytest.mark.parametrize("wrong", [None, 3, ("the", None), ("the",), "half \ud800 a pair"])
def test_what_is_no_text_is_named_by_number(wrong: Any) -> None:
    with pytest.raises(DataError, match=r"^text 2 is not text; allowed: a string, or a tuple of two$"):
        Predictor(fake_model()).logits(["the day", wrong])


def test_settings_that_cannot_be_are_refused(source: Path) -> None:
    with pytest.raises(DataError, match="a single string"):
        Predictor(fake_model()).logits("the day")
    with pytest.raises(ModelError, match="no mode 'fast'"):
        Predictor(fake_model(), mode="fast")
    with pytest.raises(DataError, match="buffer_size is 0"):
        Predictor(fake_model(), buffer_size=0)
    with pytest.raises(DataError, match="latency mode runs one text"):
        Predictor(fake_model(), mode="latency", tokens_per_batch=64)
    with pytest.raises(RecipeError, match="at most the model's 72 positions"):
        Predictor(source, max_length=100)
    with pytest.raises(RecipeError, match="windows"):
        list(Predictor(fake_model(truncation=TRUNCATIONS["mean of windows"])).predict([("a", "day")]))


def test_it_is_public_and_a_prediction_cannot_be_changed() -> None:
    assert plankwise.Predictor is Predictor
    made = next(plankwise.Predictor(fake_model()).predict(["the day"]))
    assert isinstance(made, plankwise.Prediction)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.labels = ()  # type: ignore[misc]


def test_opening_a_model_leaves_the_threads_of_torch_alone(source: Path) -> None:
    before = torch.get_num_threads()
    Predictor(source)
    assert torch.get_num_threads() == before
    try:
        Predictor(source, threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
