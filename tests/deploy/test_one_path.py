"""Probabilities of a text are the same alone and beside others, in evaluation and prediction, padded left or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from tokenizers import processors
from transformers import PreTrainedModel

import tiny
from plankwise.data.batching.inputs import Text, bare_tokenizer, encode_texts, inputs_of
from plankwise.data.task import Task
from plankwise.data.truncation import Truncation, Windows
from plankwise.deploy.answers import ANSWERS
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.stored_truncation import store_truncation
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.training.prediction import predict

KINDS = ("bert", "roberta", "modernbert", "deberta-v2", "distilbert")
TEXTS = ["never", "the day under a tree", *(" ".join(tiny.PLAIN[number:] + tiny.BAD[:number]) for number in range(4))]
HEAD = Truncation(max_length=12)
probabilities = ANSWERS["single_label"].probabilities
WINDOWS = Truncation(max_length=8, windows=Windows(stride=2, max_windows=3))


def source(folder: Path, kind: str, truncation: Truncation) -> Path:
    """Save a model of large weights beside a tokenizer that pads and cuts on the left, of itself and by its file."""
    model, tokenizer = tiny.model(kind, layers=2), tiny.tokenizer()
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(6.0 if value.dim() > 1 else 1.0)
    store_truncation(model.config, truncation)
    model.save_pretrained(folder)
    inner = tokenizer.backend_tokenizer
    types = "" if kind == "roberta" else ":1"  # it has one row of them
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] $B{types} [SEP]{types}",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    inner.enable_padding(direction="left", pad_id=0, pad_token="[PAD]", pad_to_multiple_of=32)
    inner.enable_truncation(5, direction="left")
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    names |= {"padding_side": "left", "truncation_side": "left"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    type(tokenizer)(tokenizer_object=inner, model_input_names=inputs, **names).save_pretrained(folder)
    return folder


def one_by_one(model: PreTrainedModel, folder: Path, texts: list[Text], truncation: Truncation) -> Any:
    """Compute probabilities in the simplest way: each input alone, without padding."""
    tokenizer = load_tokenizer(str(folder))
    names = [name for name in inputs_of(model, tokenizer) if name != "attention_mask"]
    rows = []
    for text in texts:
        encoded = encode_texts([text], bare_tokenizer(tokenizer), names, truncation)
        parts = np.split(np.arange(encoded.lengths.sum()), encoded.lengths.cumsum()[:-1])
        batches = [{name: torch.from_numpy(encoded.tokens[name][at])[None].long() for name in names} for at in parts]
        with torch.inference_mode():
            rows.append(torch.stack([model(**batch).logits[0].double() for batch in batches]).mean(0).numpy())
    return probabilities(np.stack(rows))


def task(texts: list[Text]) -> Task:
    columns: dict[str, list[Any]] = {"id": list(map(str, range(len(texts)))), "label": [0] * len(texts)}
    firsts, seconds = zip(*texts, strict=True) if isinstance(texts[0], tuple) else (texts, None)
    columns |= {"text": list(firsts)} | ({} if seconds is None else {"text_pair": list(seconds)})
    return Task(
        "t", DatasetDict(test=Dataset.from_dict(columns)), ("a", "b"), "single_label", ("accuracy",), "open", {}
    )


@pytest.mark.parametrize(
    ("kind", "what"),
    [*((kind, what) for kind in KINDS for what in ("texts", "pairs")), ("bert", "windows"), ("roberta", "windows")],
)
def test_alone_and_among_others_evaluated_and_predicted(tmp_path: Path, kind: str, what: str) -> None:
    truncation = WINDOWS if what == "windows" else HEAD
    texts: list[Text] = list(zip(TEXTS, reversed(TEXTS), strict=True)) if what == "pairs" else list(TEXTS)
    folder = source(tmp_path / "model", kind, truncation)
    model, tokenizer = load_trained(str(folder)), load_tokenizer(str(folder))
    expected = one_by_one(model, folder, texts, truncation)
    assert np.ptp(expected[:, 0]) > 1e-3
    evaluated = probabilities(predict(model, tokenizer, task(texts), "test", truncation).logits)
    np.testing.assert_allclose(evaluated, expected, atol=2e-6)
    np.testing.assert_allclose(Predictor(folder, threads=1).probabilities(texts), expected, atol=2e-6)
    alone = Predictor(folder, mode="latency", threads=1).probabilities(texts[-1:])
    np.testing.assert_allclose(alone, expected[-1:], atol=2e-6)
