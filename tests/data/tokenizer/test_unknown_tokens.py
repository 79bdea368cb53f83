"""Texts that a tokenizer does not know are counted, said and refused, and never quoted."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import tiny
from plankwise.core.errors import ModelError
from plankwise.data.tokenizer.unknown_tokens import check_unknown

KNOWN = "the day house tree walk river stone under"


def test_a_share_over_a_tenth_is_said(caplog: pytest.LogCaptureFixture) -> None:
    check_unknown([f"{KNOWN} over tiger"] * 20, tiny.tokenizer(), "m")
    assert not caplog.records
    check_unknown([f"{KNOWN} tiger"] * 20, tiny.tokenizer(), "m")
    assert "11% of the tokens of a sample of the texts are unknown to the tokenizer of m" in caplog.text
    assert "tiger" not in caplog.text


def test_a_share_over_a_half_is_refused_where_there_are_enough_texts(caplog: pytest.LogCaptureFixture) -> None:
    texts = ["tiger lion the"] * 4
    check_unknown(texts, tiny.tokenizer(), "m")
    check_unknown(texts * 9, tiny.tokenizer(), "m", refuse=False)
    assert len(caplog.records) == 2
    with pytest.raises(ModelError, match=r"67% of the tokens .* of m; allowed: at most 50%") as refused:
        check_unknown(texts * 2, tiny.tokenizer(), "m")
    assert "tiger" not in str(refused.value)
    with pytest.raises(ModelError, match="67%"):
        check_unknown([("tiger lion", "the")] * 8, tiny.tokenizer().backend_tokenizer, "m")


def test_the_marks_of_spaces_do_not_hide_unknown_words() -> None:
    core = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("▁the", -1.0)], unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    with pytest.raises(ModelError, match="100% of the tokens"):
        check_unknown(["tiger"] * 8, core, "m")


def test_texts_of_which_nothing_is_left_are_unknown() -> None:
    core = Tokenizer(models.BPE({"a": 0, "b": 1}, []))  # it drops what it does not know
    with pytest.raises(ModelError, match="100% of the tokens"):
        check_unknown(["xyz"] * 8, core, "m")
    check_unknown(["", " "] * 8, core, "m")
