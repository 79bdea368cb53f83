"""One path from texts to padded inputs: no setting of a tokenizer's files matters; what is cut is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

import tiny
from plankwise.core.errors import ModelError
from plankwise.core.records import TextsRead
from plankwise.data.batching.examples import Collator, encode, encode_and_count
from plankwise.data.batching.inputs import bare_tokenizer, encode_texts, inputs_of, model_inputs, pad_right
from plankwise.data.truncation import Truncation, Windows
from plankwise.encoder.tokenizer import read_tokenizer

TEXTS = ["the day", "a fine house under the tree", "never", "the river " * 9]
SPLIT = Dataset.from_dict({"text": TEXTS, "label": [0, 1, 1, 0]})
PAIRS = Dataset.from_dict({"text": TEXTS, "text_pair": TEXTS[::-1], "label": [0, 1, 1, 0]})
NAMES = ("input_ids", "token_type_ids", "attention_mask")
SHORT = Truncation(max_length=8)
SETTINGS: dict[str, dict[str, Any]] = {
    "left": {"padding_side": "left", "truncation_side": "left"},
    "no mask": {"model_input_names": ["input_ids", "token_type_ids"]},
    "baked in": {
        "truncation": {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 1},
        "padding": {
            "strategy": {"Fixed": 24},
            "direction": "Left",
            "pad_to_multiple_of": 16,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
    },
}


def tokenizer() -> PreTrainedTokenizerFast:
    made = tiny.tokenizer()
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.model_input_names = list(NAMES)
    return made


def changed(folder: Path, settings: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Load a tokenizer whose files carry the given settings."""
    tokenizer().save_pretrained(folder)
    inner = {"truncation", "padding"}
    own = {"tokenizer.json": {key: settings[key] for key in settings.keys() & inner}}
    own["tokenizer_config.json"] = {
        "model_input_names": NAMES,
        **{key: settings[key] for key in settings.keys() - inner},
    }
    for name, changes in own.items():
        stored = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**stored, **changes}))
    return read_tokenizer(folder)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("split", [SPLIT, PAIRS], ids=["texts", "pairs"])
def test_what_a_tokenizers_files_say_of_padding_does_not_matter(tmp_path: Path, settings: str, split: Any) -> None:
    plain, other = tokenizer(), changed(tmp_path, SETTINGS[settings])
    expected = Collator(plain)(encode(split, plain, SHORT))
    found = Collator(other)(encode(split, other, SHORT))
    assert found.keys() == expected.keys() == {*NAMES, "labels"}
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert expected["attention_mask"][:, 0].all()
    assert bare_tokenizer(other).encode(TEXTS[3]).ids == bare_tokenizer(plain).encode(TEXTS[3]).ids


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "mpnet"])
def test_a_model_is_given_what_it_takes(kind: str) -> None:
    taken = NAMES if kind == "bert" else ("input_ids", "attention_mask")
    model, batch = tiny.model(kind, layers=1), Collator(tokenizer())(encode(PAIRS, tokenizer(), SHORT))
    assert inputs_of(model, tokenizer()) == tuple(model_inputs(model, batch)) == taken


def test_padding_by_hand() -> None:
    tokens = {"input_ids": np.array([7, 8, 9]), "token_type_ids": np.array([0, 1, 1])}
    fills = {"input_ids": 5, "attention_mask": 0, "token_type_ids": 3}
    found = pad_right(np.array([1, 2]), tokens, fills)
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "input_ids": [[7, 5], [8, 9]],
        "attention_mask": [[1, 0], [1, 1]],
        "token_type_ids": [[0, 3], [1, 1]],
    }


def test_a_tokenizer_that_is_not_fast_is_refused() -> None:
    class Slow(PreTrainedTokenizerFast):  # type: ignore[misc]
        is_fast = False

    with pytest.raises(ModelError, match=r"Slow is not a fast tokenizer; allowed: one with a tokenizer\.json"):
        bare_tokenizer(Slow(tokenizer_object=Tokenizer.from_str(tiny.tokenizer().backend_tokenizer.to_str())))


@pytest.mark.parametrize(
    ("truncation", "counted"),
    [
        (Truncation(max_length=8), {"truncated": 1, "unread_tokens": 12}),  # 20 tokens, 8 of them read
        (Truncation(max_length=5, truncation="head_tail"), {"truncated": 2, "unread_tokens": 3 + 15}),
        (Truncation(max_length=20), {}),
        (Truncation(max_length=8, windows=Windows(max_windows=2)), {"thinned": 1, "unread_tokens": 18 - 12}),
        (Truncation(max_length=8, windows=Windows(max_windows=3)), {}),
        (
            Truncation(max_length=8, windows=Windows(stride=3, max_windows=4)),
            {"thinned": 1},
        ),  # of 5 windows; all is read
    ],
)
def test_what_is_cut_or_thinned_is_counted(truncation: Any, counted: dict[str, int]) -> None:
    expected = TextsRead(**{"texts": 4, "tokens": 4 + 8 + 3 + 20, **counted})
    assert encode_and_count(SPLIT, tokenizer(), truncation)[1] == expected
    assert encode_texts(TEXTS, bare_tokenizer(tokenizer()), ("input_ids",), truncation).read == expected


def test_texts_that_get_no_input_are_not_counted_and_counts_read_well() -> None:
    read = encode_texts(TEXTS, bare_tokenizer(tokenizer()), ("input_ids",), SHORT, truncate=False).read
    assert read == TextsRead(texts=3, tokens=15)
    assert str(TextsRead(texts=8, tokens=200, truncated=1, unread_tokens=20) + TextsRead(texts=0)) == (
        "truncation cuts 1 of 8 texts (12.5%); 10.0% of all tokens are not read"
    )
    assert str(TextsRead(texts=4, tokens=100, thinned=1)) == (
        "windows.max_windows thins 1 of 4 texts (25.0%); 0.0% of all tokens are not read"
    )
