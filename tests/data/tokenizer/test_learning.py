"""Tokenizers trained here: their special tokens, that they are the same each time, that they survive saving."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

import tiny
from plankwise.core.errors import DataError
from plankwise.data.tokenizer.learning import SPECIAL, Vocabulary, sample, train_tokenizer
from plankwise.training.pretraining.config import SPECIAL_IDS

LINES = [row["text"] for row in tiny.rows(300)]
LINES += [f"Die Größe von Ärger, {number} Äpfel und Übermut; das Haus ohne Bäume." for number in range(60)]
TEXTS = Dataset.from_dict({"text": LINES})
SIZES = {"wordpiece": 240, "bpe": 320, "unigram": 120}
each_kind = pytest.mark.parametrize("kind", SIZES)


def made(kind: Any, **changes: Any) -> Any:
    return train_tokenizer(TEXTS, Vocabulary(**{"kind": kind, "size": SIZES[kind], **changes}), 32)


@each_kind
def test_special_tokens_have_the_ids_that_new_models_rely_on(kind: str) -> None:
    tokenizer = made(kind)
    assert tokenizer.convert_ids_to_tokens(list(range(5))) == SPECIAL
    for name in ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id"):
        assert getattr(tokenizer, name) == SPECIAL_IDS[name]
    assert tokenizer("the house")["input_ids"][0] == SPECIAL_IDS["cls_token_id"]
    assert tokenizer("the house")["input_ids"][-1] == SPECIAL_IDS["sep_token_id"]
    pair = tokenizer("the house", "a tree")["input_ids"]
    assert (pair.count(2), pair.count(3)) == (1, 2)
    assert tokenizer("the [MASK] house")["input_ids"].count(4) == 1


@each_kind
def test_the_vocabulary_is_no_larger_than_asked_and_without_holes(kind: str) -> None:
    tokenizer = made(kind)
    assert set(tokenizer.get_vocab().values()) == set(range(len(tokenizer)))
    assert len(SPECIAL) < len(tokenizer) <= SIZES[kind]
    assert tokenizer.model_max_length == 32


@each_kind
def test_text_goes_there_and_back(kind: str) -> None:
    tokenizer = made(kind, lowercase=False)
    for text in ("the lovely house without a tree", "Die Größe von Ärger"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert 1 not in ids
        assert tokenizer.decode(ids).strip() == text


@each_kind
def test_case_is_folded_on_request_and_umlauts_stay(kind: str) -> None:
    folding, keeping = made(kind), made(kind, lowercase=False)
    assert folding.tokenize("GRÖSSE Äpfel") == folding.tokenize("grösse äpfel")
    assert folding.tokenize("äpfel") != folding.tokenize("apfel")
    assert keeping.tokenize("Das Haus") != keeping.tokenize("das haus")


@each_kind
def test_saved_and_loaded_it_is_the_same(kind: str, tmp_path: Path) -> None:
    tokenizer = made(kind)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.all_special_ids == tokenizer.all_special_ids
    assert again.model_max_length == 32
    for text in LINES[::40]:
        assert again(text, "und Übermut") == tokenizer(text, "und Übermut")


CODE = """
import hashlib, json, sys
from datasets import Dataset
from plankwise.data.tokenizer.learning import Vocabulary, train_tokenizer
texts = Dataset.from_dict({"text": json.load(sys.stdin)})
for kind, size in (("wordpiece", 120), ("bpe", 320)):
    made = train_tokenizer(texts, Vocabulary(kind=kind, size=size), 32)
    print(kind, hashlib.sha256(made.backend_tokenizer.to_str().encode()).hexdigest())
"""


def test_every_process_makes_the_same_wordpiece_and_bpe() -> None:
    printed = [
        subprocess.run(
            [sys.executable, "-c", CODE],
            input=json.dumps(LINES),
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert len(printed[0].splitlines()) == 2


def test_of_many_texts_an_even_sample_is_read() -> None:
    assert list(sample(TEXTS)) == LINES
    assert list(sample(TEXTS, math.ceil(TEXTS.data.nbytes / 3))) == LINES[::3]
    few = TEXTS.select(range(0, len(TEXTS), 4))
    assert list(sample(few, math.ceil(TEXTS.data.nbytes / 3))) == LINES[::4], (
        "a selection that is small enough is read whole"
    )


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_texts_without_characters_are_refused(kind: Any) -> None:
    with pytest.raises(DataError, match="no characters to train a tokenizer on"):
        train_tokenizer(Dataset.from_dict({"text": [" ", "\t"]}), Vocabulary(kind=kind, size=60), 32)


@each_kind
def test_a_text_of_a_few_words_is_enough(kind: Any) -> None:
    tokenizer = train_tokenizer(Dataset.from_dict({"text": ["a b", "ab"]}), Vocabulary(kind=kind, size=300), 32)
    assert tokenizer.convert_ids_to_tokens(list(range(5))) == SPECIAL


def test_byte_level_bpe_needs_room_for_all_bytes() -> None:
    with pytest.raises(ValueError, match="byte-level BPE needs at least 261"):
        Vocabulary(kind="bpe", size=260)
