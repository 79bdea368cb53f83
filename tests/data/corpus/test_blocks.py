"""Packing texts into full blocks of tokens, and which tokens go on with a word."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

import tiny
from plankwise.core.errors import DataError
from plankwise.data.corpus.blocks import PARALLELISM, blocks_of, continuations, ids_of, tokenized
from plankwise.data.tokenizer.learning import Vocabulary, train_tokenizer

LINES = [row["text"] for row in tiny.rows(200)]
TEXTS = Dataset.from_dict({"text": LINES})
NAMES = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}


def stream(tokenizer: Any, lines: list[str] = LINES) -> list[int]:
    return [
        token
        for line in lines
        for token in [*tokenizer(line, add_special_tokens=False)["input_ids"], tokenizer.sep_token_id]
    ]


def packed(data: Dataset) -> np.ndarray[Any, Any]:
    return np.stack(list(data["input_ids"][:]))


def check_packing(made: Dataset, tokenizer: Any, block: int, lines: list[str] = LINES) -> None:
    rows, expected = packed(made), stream(tokenizer, lines)
    assert rows.shape == (len(expected) // (block - 1), block)
    assert rows[:, 1:].ravel().tolist() == expected[: rows[:, 1:].size]
    assert set(rows[:, 0].tolist()) == {tokenizer.cls_token_id}


@pytest.mark.parametrize(
    ("block", "characters", "blocks"), [(4, 1, 1), (17, 100, 3), (64, 3000, 2), (17, 10**9, 10**6)]
)
def test_only_the_last_few_tokens_are_lost(block: int, characters: int, blocks: int, tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    made = blocks_of(
        TEXTS, "texts", tokenizer, block, tmp_path, characters_per_call=characters, blocks_per_write=blocks
    )
    check_packing(made, tokenizer, block)


def test_large_vocabularies_and_those_with_holes_take_wider_numbers(tmp_path: Path) -> None:
    narrow = tiny.tokenizer()
    words = sorted({word for line in LINES for word in line.split()})
    vocabulary = {name: index for index, name in enumerate(tiny.SPECIAL)}
    vocabulary |= {word: 70_000 + index for index, word in enumerate(words)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    wide = PreTrainedTokenizerFast(tokenizer_object=core, **NAMES)
    assert ids_of(wide) == 70_000 + len(words)
    assert len(continuations(wide)) == ids_of(wide)
    for tokenizer, kind in ((narrow, pa.uint16()), (wide, pa.int32())):
        made = blocks_of(TEXTS, "texts", tokenizer, 16, tmp_path)
        assert made.data.schema.field("input_ids").type.value_type == kind
        check_packing(made, tokenizer, 16)


def test_the_cache_goes_by_content_tokenizer_and_block(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def entries() -> int:
        return len([path for path in tmp_path.iterdir() if path.is_dir()])

    first = blocks_of(TEXTS, "texts", tiny.tokenizer(), 16, tmp_path)
    again = blocks_of(TEXTS, "texts", tiny.tokenizer(), 16, tmp_path)
    assert sum(message.startswith("tokenized") for message in caplog.messages) == 1
    assert np.array_equal(packed(first), packed(again))
    assert entries() == 1
    blocks_of(TEXTS, "other texts", tiny.tokenizer(), 16, tmp_path)
    blocks_of(TEXTS, "texts", tiny.tokenizer(), 17, tmp_path)
    blocks_of(TEXTS, "texts", train_tokenizer(TEXTS, Vocabulary(size=60), 32), 16, tmp_path)
    assert entries() == 4


def test_truncation_and_padding_that_a_tokenizer_came_with_cut_nothing(tmp_path: Path) -> None:
    tokenizer, plain = tiny.tokenizer(), tiny.tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=40)
    check_packing(blocks_of(TEXTS, "texts", tokenizer, 16, tmp_path), plain, 16)
    blocks_of(TEXTS, "texts", plain, 16, tmp_path)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1, "neither belongs to the key"
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 3, "the tokenizer itself is left alone"


def test_texts_that_fill_no_block_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the texts hold 3 tokens, fewer than one block of 16"):
        blocks_of(Dataset.from_dict({"text": ["a day"]}), "texts", tiny.tokenizer(), 16, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("before", [None, "false", "true"])
def test_parallel_tokenizing_is_switched_off_again(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before is None:
        monkeypatch.delenv(PARALLELISM)
    else:
        monkeypatch.setenv(PARALLELISM, before)
    blocks_of(TEXTS, "texts", tiny.tokenizer(), 16, tmp_path / "1")
    assert os.environ.get(PARALLELISM) == before
    with pytest.raises(DataError):
        blocks_of(TEXTS.select([0]), "texts", tiny.tokenizer(), 1000, tmp_path / "2")
    assert os.environ.get(PARALLELISM) == before


def test_a_process_that_forks_later_hears_no_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = train_tokenizer(TEXTS, Vocabulary(size=60), 32)
    blocks_of(TEXTS, "texts", tokenizer, 16, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, on newer Pythons
        child = os.fork()
    if not child:
        os._exit(0 if tokenizer("the house")["input_ids"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "forked" not in capfd.readouterr().err


def bert_cased() -> Any:
    tokens = [*tiny.SPECIAL, "Ġ", "▁", "Haus", "##tür", "Tür", "##e", ",", "un", "##gern"]
    return BertTokenizerFast(vocab={token: index for index, token in enumerate(tokens)}, do_lower_case=False)


def byte_level(prefix_space: bool) -> Any:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator(
        ["der Haus"] * 9, trainers.BpeTrainer(vocab_size=268, special_tokens=tiny.SPECIAL, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, **NAMES)


def words(tokenizer: Any, text: str) -> list[str]:
    """Join the tokens of a text into words as `continuations` sees them."""
    goes_on = continuations(tokenizer)
    joined: list[str] = []
    for index in tokenizer(text, add_special_tokens=False)["input_ids"]:
        token = tokenizer.convert_ids_to_tokens(index)
        if goes_on[index] and joined:
            joined[-1] += token.removeprefix("##")
        else:
            joined.append(token)
    return joined


CASES: dict[str, tuple[Callable[[], Any], str, list[str]]] = {
    "cased BERT": (bert_cased, "Haustüre, ungern", ["Haustüre", ",", "ungern"]),
    "word level": (tiny.tokenizer, "a lovely day", ["a", "lovely", "day"]),
    "RoBERTa, prefix space": (lambda: byte_level(True), "der Hausen\nder x", ["Ġder", "ĠHausen", "Ċder", "Ġx"]),
    "RoBERTa": (lambda: byte_level(False), "der Hausen\nder x", ["der", "ĠHausen", "Ċder", "Ġx"]),
    "WordPiece": (lambda: train_tokenizer(TEXTS, Vocabulary(size=60), 32), "the house", ["the", "house"]),
    "BPE": (lambda: train_tokenizer(TEXTS, Vocabulary(kind="bpe", size=270), 32), "the house", ["Ġthe", "Ġhouse"]),
    "Unigram": (lambda: train_tokenizer(TEXTS, Vocabulary(kind="unigram"), 32), "the housew", ["▁the", "▁housew"]),
}


@pytest.mark.parametrize("case", CASES)
def test_tokens_that_go_on_with_a_word_are_known(case: str) -> None:
    make, text, expected = CASES[case]
    tokenizer = make()
    assert words(tokenizer, text) == expected
    assert not continuations(tokenizer)[tokenizer.all_special_ids].any()


def test_scripts_without_spaces_are_not_one_long_word() -> None:
    pieces = [*((token, 0.0) for token in tiny.SPECIAL), ("▁", -1.0), ("我", -2.0), ("们", -2.0), ("a", -2.0)]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram(pieces, unk_id=1)), **NAMES)
    assert [index for index, goes_on in enumerate(continuations(tokenizer)) if goes_on] == [8]


def test_generators_in_turns_leave_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARALLELISM, "false")
    one, other = (tokenized(["the day", "a house"], tiny.tokenizer(), characters_per_call=1) for _ in range(2))
    assert list(zip(one, other, strict=True))
    assert os.environ[PARALLELISM] == "false"
