"""Predictions equal those of training, come in order, draw their texts lazily and end their threads."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

import plankwise
import tiny
from plankwise.core.errors import DataError, ModelError, RecipeError
from plankwise.data.batching.examples import encode
from plankwise.data.truncation import Truncation, Windows
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.training.prediction import predict_logits

READINGS = {
    "head": Truncation(max_length=12),
    "tail": Truncation(max_length=12, truncation="tail"),
    "head_tail": Truncation(max_length=12, truncation="head_tail"),
    "mean of windows": Truncation(max_length=12, windows=Windows(stride=2, max_windows=5)),
    "maximum of windows": Truncation(max_length=12, windows=Windows(pooling="max")),
}
CASES = [(name, pairs) for name, each in READINGS.items() for pairs in ((False,) if each.windows else (False, True))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_source(tmp_path_factory.mktemp("model") / "source", layers=2)


def texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(tiny.PLAIN + tiny.BAD, k=draw.randint(1, 30))) for _ in range(count)]


def threads() -> set[str]:
    return {each.name for each in threading.enumerate() if each.name.startswith("plankwise")}


@pytest.mark.parametrize(("name", "pairs"), CASES)
@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_logits_are_those_of_training(folder, name, mode, pairs):
    truncation = READINGS[name]
    first, second = texts(50), texts(50, 1)
    columns = {"text": first, "label": [0] * 50} | ({"text_pair": second} if pairs else {})
    pooling = None if truncation.windows is None else truncation.windows.pooling
    tokenizer = load_tokenizer(str(folder))
    examples = encode(Dataset.from_dict(columns), tokenizer, truncation)
    expected = predict_logits(load_trained(str(folder)), tokenizer, examples, pooling)
    options = {"look_ahead": 20, "tokens_per_batch": 60} if mode == "throughput" else {}
    predictor = Predictor(folder, mode=mode, threads=1, truncation=truncation, **options)
    given = list(zip(first, second, strict=True)) if pairs else first
    assert np.allclose(predictor.logits(given), expected, atol=2e-6)
    shares = torch.softmax(torch.from_numpy(expected), dim=-1).numpy()
    assert np.allclose(predictor.probabilities(given), shares, atol=2e-6)


def test_predictions_come_in_order_with_labels_and_probabilities(fake):
    given = texts(300)
    predictor = Predictor(fake(), buffer_size=64, tokens_per_batch=40)
    found = list(predictor.predict(iter(given)))
    shares = predictor.probabilities(given)
    assert [list(each.probabilities.values()) for each in found] == shares.tolist()
    assert [each.label for each in found] == [("good", "bad")[index] for index in shares.argmax(axis=1)]
    assert len({each.label for each in found}) == 2
    lengths = np.array([len(text.split()) + 2 for text in given])
    assert np.allclose(predictor.logits(given)[:, 1], lengths / 10)
    assert len(list(predictor.predict([]))) == 0


def test_several_labels_are_those_above_one_half(fake):
    class Given(fake.runtime):
        def __call__(self, inputs):
            return np.array([[-1.0, 2.0], [3.0, 0.5], [-2.0, -0.1]])

    predictor = Predictor(fake(Given(), kind="multi_label"))
    found = list(predictor.predict(["the", "a", "day"]))
    assert [each.labels for each in found] == [("bad",), ("good", "bad"), ()]
    assert found[0].probabilities["bad"] == pytest.approx(1 / (1 + np.exp(-2.0)))
    with pytest.raises(ValueError, match="this text has 2 labels"):
        _ = found[1].label


def test_batches_keep_the_budget_and_latency_mode_runs_one_text_at_a_time(fake):
    deployed = fake()
    Predictor(deployed, tokens_per_batch=64, buffer_size=100).logits(texts(200))
    assert max(rows * columns for rows, columns in deployed.runtime.shapes) <= 64
    assert len(deployed.runtime.shapes) < 100
    deployed = fake(fake.runtime(streams=1))
    Predictor(deployed, mode="latency").logits(["the day", "never", "the day under the tree"])
    assert deployed.runtime.shapes == [(1, 4), (1, 3), (1, 7)]


def test_one_text_starts_no_thread_and_is_predicted_as_among_others(fake):
    started = set()

    class Watching(fake.runtime):
        def __call__(self, inputs):
            started.update(threads())
            return super().__call__(inputs)

    predictor = Predictor(fake(Watching(), Truncation(max_length=12, windows=Windows(stride=2))), tokens_per_batch=24)
    given = texts(20)
    alone = [predictor.logits([text])[0].tolist() for text in given]
    assert not started
    assert predictor.logits(given).tolist() == alone
    assert started


def test_an_endless_stream_is_drawn_a_few_blocks_ahead(fake):
    drawn = 0

    def endless():
        nonlocal drawn
        for number in count():
            drawn += 1
            yield tiny.PLAIN[number % 15]

    stream = Predictor(fake(), buffer_size=32).predict(endless())
    for taken in (1, 1000):
        assert len(list(islice(stream, taken))) == taken
        time.sleep(0.1)
        assert drawn <= taken + 5 * 32
    stream.close()
    assert not threads()


def test_latency_mode_answers_before_the_next_text_is_there(fake):
    ready = threading.Event()

    def slow():
        yield "the day"
        ready.wait(20)
        yield "never"

    stream = Predictor(fake(fake.runtime(streams=1)), mode="latency").predict(slow())
    assert next(stream).labels
    ready.set()
    assert len(list(stream)) == 1


@pytest.mark.parametrize("streams", [1, 3])
def test_an_error_of_the_runtime_is_raised_after_the_blocks_before_it(fake, streams):
    predictor = Predictor(fake(fake.runtime(streams, fails_at=25)), buffer_size=10, tokens_per_batch=40)
    found = []
    with pytest.raises(RuntimeError, match="the runtime broke"):
        found.extend(predictor.predict(texts(500)))
    assert not threads()
    found = []
    with pytest.raises(ZeroDivisionError):
        found.extend(predictor.predict(text if number < 55 else str(1 / 0) for number, text in enumerate(texts(99))))
    assert len(found) == 50
    assert not threads()


def test_closing_early_ends_threads_in_the_middle_of_work(fake):
    stream = Predictor(fake(fake.runtime(seconds=0.01)), buffer_size=50).predict(texts(5000))
    next(stream)
    assert len(threads()) == 3
    stream.close()
    assert not threads()


def test_logits_that_are_no_numbers_are_no_prediction(fake):
    class Broken(fake.runtime):
        def __call__(self, inputs):
            return np.full((len(inputs["input_ids"]), 2), np.nan)

    with pytest.raises(ModelError, match="not a finite number"):
        Predictor(fake(Broken())).logits(["the day"])


@pytest.mark.parametrize("wrong", [None, 3, ("the", None), ("the",), "half \ud800 a pair"])
def test_what_is_no_text_is_named_by_number(fake, wrong):
    with pytest.raises(DataError, match=r"^text 2 is no text; allowed: a string, or a tuple of two$"):
        Predictor(fake()).logits(["the day", wrong])


def test_settings_that_cannot_be_are_refused(fake, folder):
    with pytest.raises(DataError, match="a single string"):
        Predictor(fake()).logits("the day")
    with pytest.raises(ModelError, match="no mode 'fast'"):
        Predictor(fake(), mode="fast")
    with pytest.raises(DataError, match="look_ahead is 0"):
        Predictor(fake(), buffer_size=0)
    with pytest.raises(DataError, match="latency mode runs one text"):
        Predictor(fake(), mode="latency", tokens_per_batch=64)
    with pytest.raises(RecipeError, match="at most the model's 72 positions"):
        Predictor(folder, max_length=100)
    with pytest.raises(RecipeError, match="windows"):
        list(Predictor(fake(truncation=READINGS["mean of windows"])).predict([("a", "day")]))


def test_it_is_public_and_a_prediction_cannot_be_changed(fake):
    assert plankwise.Predictor is Predictor
    made = next(plankwise.Predictor(fake()).predict(["the day"]))
    assert isinstance(made, plankwise.Prediction)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.labels = ()


def test_opening_a_model_leaves_the_threads_of_torch_alone(folder):
    before = torch.get_num_threads()
    Predictor(folder)
    assert torch.get_num_threads() == before
    try:
        Predictor(folder, threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
