"""Which tokens of a long text are read, against the tokenizer's own truncation and against lists made by hand."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tokenizers import processors
from transformers import BertJapaneseTokenizer, PreTrainedTokenizerBase

import tiny
from plankwise.core.errors import ModelError, RecipeError
from plankwise.core.recipe import to_plain, validate
from plankwise.data.batching.examples import encode
from plankwise.data.truncation import (
    Truncation,
    Windows,
    check_truncation,
    positions_read,
    truncation_for,
    warn_if_other,
    window_starts,
)
from plankwise.run.recipe import Model

IDS = [("[CLS]", 2), ("[SEP]", 3)]
FRAMES = {
    "bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "roberta": ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]"),
    "xlnet": ("$A [SEP] [CLS]:1", "$A [SEP] $B:1 [SEP]:1 [CLS]:1"),
    "end only": ("$A [SEP]", "$A [SEP] $B [SEP]"),
    "start twice": ("[CLS] [CLS] $A", "[CLS] [CLS] $A [SEP] $B"),
}
WORDS = [*tiny.PLAIN, *tiny.GOOD, *tiny.BAD, "[SEP]", "[MASK]", "[CLS]", "zzz"]  # special tokens that texts quote


def framed(name: str) -> PreTrainedTokenizerBase:
    tokenizer = tiny.tokenizer()
    single, pair = FRAMES[name]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=IDS
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer


def texts(seed: int, longest: int = 60) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) for _ in range(40)]


def split(first: list[str], second: list[str] | None = None) -> Dataset:
    columns = {"text": first, "label": [0] * len(first)}
    return Dataset.from_dict(columns | ({} if second is None else {"text_pair": second}))


def without_label(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in each.items() if name != "labels"} for each in examples]


def by_the_tokenizer(tokenizer: Any, first: Any, second: Any, side: str, max_length: int) -> Any:
    tokenizer.truncation_side = side
    encoded = tokenizer(first, second, truncation=True, max_length=max_length)
    return [{name: encoded[name][row] for name in tokenizer.model_input_names} for row in range(len(first))]


frames = pytest.mark.parametrize("frame", FRAMES)
lengths = pytest.mark.parametrize("max_length", [6, 13, 64])


class TestTruncation:
    @frames
    @lengths
    @pytest.mark.parametrize(("truncation", "side"), [("head", "right"), ("tail", "left")])
    @pytest.mark.parametrize("pairs", [False, True], ids=["single", "pair"])
    def test_head_and_tail_are_the_tokenizers_own(
        self, frame: str, max_length: int, truncation: Any, side: str, pairs: bool
    ) -> None:
        first, second = texts(1), texts(2) if pairs else None
        found = encode(split(first, second), framed(frame), Truncation(max_length=max_length, truncation=truncation))
        assert without_label(found) == by_the_tokenizer(framed(frame), first, second, side, max_length)

    @frames
    @lengths
    def test_head_and_tail_together_by_hand(self, frame: str, max_length: int) -> None:
        tokenizer = framed(frame)
        found = encode(split(texts(3)), tokenizer, Truncation(max_length=max_length, truncation="head_tail"))
        room = max_length - tokenizer.num_special_tokens_to_add()
        head = round(room / 4 + 1e-9)
        for text, example in zip(texts(3), found, strict=True):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            kept = ids if len(ids) <= room else ids[:head] + ids[head - room :]
            probe = tokenizer("zzz")["input_ids"]  # one unknown word shows where the special tokens stand
            at = probe.index(1)
            assert example["input_ids"] == probe[:at] + kept + probe[at + 1 :]

    def test_the_shares_of_the_paper(self) -> None:
        special = [1, *[0] * 2000, 1]
        (kept,) = positions_read(special, Truncation(max_length=512, truncation="head_tail"))
        assert kept == [0, *range(1, 129), *range(2001 - 382, 2001), 2001]

    def test_of_a_pair_each_text_keeps_its_head_and_tail_and_the_shorter_is_spared(self) -> None:
        tokenizer = framed("bert")
        first, second = " ".join(tiny.PLAIN), "fine lovely sweet"
        (found,) = encode(split([first], [second]), tokenizer, Truncation(max_length=14, truncation="head_tail"))
        assert tokenizer.decode(found["input_ids"]) == (
            f"[CLS] {' '.join(tiny.PLAIN[:2] + tiny.PLAIN[-6:])} [SEP] fine lovely sweet [SEP]"
        )
        assert found["token_type_ids"] == [0] * 10 + [1] * 4

    def test_a_tokenizers_own_side_is_ignored(self) -> None:
        tokenizer = framed("bert")
        tokenizer.truncation_side = "left"
        (found,) = encode(split(["the a day house"]), tokenizer, Truncation(max_length=4))
        assert tokenizer.decode(found["input_ids"]) == "[CLS] the a [SEP]"


class TestWindows:
    @frames
    @pytest.mark.parametrize("stride", [0, 1, 3])
    def test_are_the_tokenizers_own_but_for_a_whole_last_one(self, frame: str, stride: int) -> None:
        tokenizer, truncation = framed(frame), Truncation(max_length=8, windows=Windows(stride=stride, max_windows=100))
        room = 8 - tokenizer.num_special_tokens_to_add()
        found = encode(split(texts(4)), tokenizer, truncation)
        for text, example in zip(texts(4), found, strict=True):
            own = tokenizer(
                text, truncation=True, max_length=8, stride=stride, return_overflowing_tokens=True, verbose=False
            )
            names = tokenizer.model_input_names
            expected = [{name: own[name][row] for name in names} for row in range(len(own["input_ids"]))]
            assert example["windows"][:-1] == expected[:-1]
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            last = tokenizer(tokenizer.decode(ids[-room:]))["input_ids"]
            assert example["windows"][-1]["input_ids"] == last

    @pytest.mark.parametrize("stride", [0, 1, 5])
    @pytest.mark.parametrize("length", [0, 1, 6, 7, 12, 40])
    def test_cover_every_token_and_overlap_by_the_stride_at_least(self, length: int, stride: int) -> None:
        starts = window_starts(length, 6, Windows(stride=stride, max_windows=100))
        assert {token for start in starts for token in range(start, min(start + 6, length))} == set(range(length))
        steps = [after - before for before, after in pairwise(starts)]
        assert all(step == 6 - stride for step in steps[:-1])
        assert all(0 < step <= 6 - stride for step in steps)
        assert starts[0] == 0
        assert starts[-1] == max(0, length - 6)

    def test_by_hand(self) -> None:
        assert window_starts(10, 4, Windows()) == [0, 4, 6]
        assert window_starts(10, 4, Windows(stride=2)) == [0, 2, 4, 6]
        assert window_starts(12, 4, Windows()) == [0, 4, 8]
        assert window_starts(4, 4, Windows(stride=3)) == window_starts(0, 4, Windows()) == [0]

    @pytest.mark.parametrize("most", [1, 2, 3, 7, 11])
    @pytest.mark.parametrize("length", [1, 15, 36, 57])
    def test_no_more_than_asked_for_evenly_from_the_first_to_the_last(self, length: int, most: int) -> None:
        every = window_starts(length, 5, Windows(max_windows=100))
        starts = window_starts(length, 5, Windows(max_windows=most))
        assert len(starts) == len(set(starts)) == min(most, len(every))
        assert set(starts) <= set(every)
        assert starts[0] == 0
        if most > 1:
            assert starts[-1] == every[-1]
            gaps = [every.index(after) - every.index(one) for one, after in pairwise(starts)]
            assert not gaps or max(gaps) - min(gaps) <= 1

    def test_a_text_that_fits_is_one_window_and_equal_to_what_truncation_gives(self) -> None:
        tokenizer = framed("bert")
        plain = encode(split(texts(5, 6)), tokenizer, Truncation(max_length=8))
        windows = encode(split(texts(5, 6)), tokenizer, Truncation(max_length=8, windows=Windows(stride=2)))
        assert [each["windows"] for each in windows] == [[each] for each in without_label(plain)]


class TestSlowTokenizer:
    def test_python_tokenizers_are_refused_where_texts_are_read(self, tmp_path: Path) -> None:
        (tmp_path / "vocab.txt").write_text("\n".join([*tiny.SPECIAL, *tiny.PLAIN]))
        tokenizer = BertJapaneseTokenizer(
            str(tmp_path / "vocab.txt"), word_tokenizer_type="basic", subword_tokenizer_type="wordpiece"
        )
        assert not tokenizer.is_fast
        with pytest.raises(ModelError, match="BertJapaneseTokenizer is not a fast tokenizer; allowed: one with a tok"):
            encode(split(["the day"]), tokenizer, Truncation(max_length=8))


class TestRefused:
    @pytest.mark.parametrize(
        ("truncation", "special", "pairs", "message"),
        [
            (
                Truncation(max_length=8, windows=Windows(stride=6)),
                2,
                False,
                "stride 6 is not less than .*allowed: 0 to 5",
            ),
            (Truncation(max_length=8, windows=Windows(stride=4)), 4, False, "allowed: 0 to 3"),
            (Truncation(max_length=8, windows=Windows()), 3, True, "windows cannot read pairs of texts; allowed: null"),
            (Truncation(max_length=4), 4, False, "max_length 4 leaves no room .* 4 special tokens; allowed: 5 or more"),
            (Truncation(max_length=4), 3, True, "allowed: 5 or more"),
        ],
    )
    def test_what_cannot_work(self, truncation: Any, special: int, pairs: bool, message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            check_truncation(truncation, special, pairs)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"truncation": "tail", "windows": {}}, "truncation 'tail' and windows exclude each other"),
            ({"truncation": "middle"}, "truncation: input should be 'head', 'tail' or 'head_tail', not 'middle'"),
            ({"windows": {"stride": -1}}, "windows.stride: .*greater than or equal to 0, not -1"),
            ({"windows": {"max_windows": 0}}, "windows.max_windows: .*greater than or equal to 1, not 0"),
            ({"windows": {"pooling": "sum"}}, "windows.pooling: input should be 'mean' or 'max', not 'sum'"),
            ({"windows": {"overlap": 3}}, "unknown key 'overlap'; Allowed: stride, pooling, max_windows"),
        ],
    )
    def test_in_the_recipe(self, given: Any, message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            validate(given, Truncation)

    @pytest.mark.parametrize("windows", [None, Windows(), Windows(stride=64, pooling="max", max_windows=3)])
    def test_settings_round_trip(self, windows: Any) -> None:
        truncation = Truncation(max_length=512, windows=windows)
        assert validate(to_plain(truncation), Truncation) == truncation == eval(repr(truncation))


class TestTruncationFor:
    OWN = Truncation(max_length=20, windows=Windows(stride=3))

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({}, OWN),
            ({"max_length": 128}, Truncation(max_length=128, windows=Windows(stride=3))),  # the default, but said
            ({"truncation": "head"}, Truncation(max_length=20)),
            ({"truncation": "tail"}, Truncation(max_length=20, truncation="tail")),
            ({"windows": None}, Truncation(max_length=20)),
            ({"windows": {"stride": 1}}, Truncation(max_length=20, windows=Windows(stride=1))),
        ],
    )
    def test_given_keys_apply_and_for_the_others_the_models_own(self, given: Any, expected: Any) -> None:
        said = validate({"source": "m", **given}, Model)
        assert truncation_for(said, self.OWN) == expected
        assert truncation_for(said, None) == said.plain_truncation
        assert validate(to_plain(said), Model) == said

    def test_the_difference_is_one_line(self, caplog: pytest.LogCaptureFixture) -> None:
        warn_if_other(self.OWN, self.OWN, "m")
        warn_if_other(self.OWN, None, "m")
        assert not caplog.messages
        warn_if_other(Truncation(max_length=8), self.OWN, "m")
        assert caplog.messages == [
            "m reads texts with max_length 8, no windows here, where it was made for max_length 20, windows (stride 3, "
            "pooling mean, max_windows 8)"
        ]


class TestOldKey:
    def test_most_is_read_as_max_windows_with_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        found = validate({"windows": {"stride": 2, "most": 5}}, Truncation)
        assert found.windows == Windows(stride=2, max_windows=5)
        assert caplog.messages == ["windows.most is now called windows.max_windows"]
        assert to_plain(found)["windows"] == {"stride": 2, "pooling": "mean", "max_windows": 5}

    def test_both_keys_at_once_are_refused(self) -> None:
        with pytest.raises(RecipeError, match="most is the old name of max_windows; give max_windows alone"):
            validate({"windows": {"most": 5, "max_windows": 6}}, Truncation)
