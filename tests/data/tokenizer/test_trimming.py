"""Trimmed tokenizers read texts of kept tokens as before, and any other text without new unknowns."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    CamembertTokenizer,
    DebertaV2Tokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

import tiny
from plankwise.core.errors import MethodError
from plankwise.data.tokenizer.learning import Vocabulary, train_tokenizer
from plankwise.data.tokenizer.trimming import always_kept, choose_tokens, count_tokens, trim

DRAW = random.Random(7)
ALPHABET = "abcdefgäöüßéñ" + "абвгд" + "漢字仮名" + "0123456789" + ".,;!?-'\"#@"
RANGES = ((32, 0x2FF), (0x300, 0xD7FF), (0xE000, 0x1FFFF))
STRANGE = [chr(DRAW.randint(*DRAW.choice(RANGES))) for _ in range(400)]
STRANGE += ["\n", "\t", "\u200d", "\u0301", "▁", "Ġ", "</s>", "<0x41>", "[MASK]", "<s>"]


def words(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(ALPHABET, k=draw.randint(1, 9))) for _ in range(count)]


LEXICON = words(300, 1)


def texts(count: int, seed: int, strange: float = 0.0, lexicon: list[str] = LEXICON) -> list[str]:
    """Write texts of the lexicon's words, some cut and joined again, and of characters from all over Unicode."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        parts = []
        for _ in range(draw.randint(1, 12)):
            if draw.random() < strange:
                parts.append("".join(draw.choices(STRANGE, k=draw.randint(1, 5))))
            elif draw.random() < 0.2:
                parts.append(draw.choice(lexicon)[1:] + draw.choice(lexicon)[:2])
            else:
                parts.append(draw.choice(lexicon))
        made.append((" " if draw.random() < 0.8 else "").join(parts))
    return made


LEARNED = texts(1500, 2)


def trained(kind: Any, size: int = 900) -> PreTrainedTokenizerBase:
    data = Dataset.from_dict({"text": LEARNED})
    return train_tokenizer(data, Vocabulary(kind=kind, size=size, lowercase=False), 64)


def wrapped(core: Tokenizer, **names: str) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


ROBERTA = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "sep_token": "</s>",
           "unk_token": "<unk>", "mask_token": "<mask>"}  # fmt: skip
ROBERTA_FIRST = ["<s>", "<pad>", "</s>", "<unk>"]


def byte_level(ignore_merges: bool = False) -> PreTrainedTokenizerBase:
    """RoBERTa's and ModernBERT's way: bytes, the post-processor of RoBERTa, a mask and further tokens at the end."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        LEARNED,
        trainers.BpeTrainer(
            vocab_size=900, special_tokens=ROBERTA_FIRST, initial_alphabet=alphabet, show_progress=False
        ),
    )
    model = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    core = Tokenizer(models.BPE(model["vocab"], merges, ignore_merges=ignore_merges))
    core.normalizer, core.pre_tokenizer = normalizers.NFC(), learner.pre_tokenizer
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<mask>"])
    core.add_tokens(["   ", "ab c"])
    core.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    core.enable_padding(pad_id=1, pad_token="<pad>")
    return wrapped(core, **ROBERTA)


def metaspace_bpe() -> PreTrainedTokenizerBase:
    """SentencePiece's BPE: pieces with ▁, bytes for characters that are not known, every merge that builds a piece."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(LEARNED, trainers.BpeTrainer(vocab_size=600, show_progress=False))
    pieces = sorted(learner.get_vocab(), key=lambda piece: learner.get_vocab()[piece])
    vocabulary = {
        piece: at for at, piece in enumerate([*ROBERTA_FIRST, *(f"<0x{at:02X}>" for at in range(256)), *pieces])
    }
    merges = [
        (piece[:at], piece[at:]) for piece in pieces for at in range(1, len(piece))
        if piece[:at] in vocabulary and piece[at:] in vocabulary
    ]  # fmt: skip
    core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return wrapped(core, **ROBERTA)


def suffix_bpe() -> PreTrainedTokenizerBase:
    learner = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    learner.train_from_iterator(
        LEARNED,
        trainers.BpeTrainer(
            vocab_size=700, special_tokens=ROBERTA_FIRST, end_of_word_suffix="</w>", show_progress=False
        ),
    )
    return wrapped(learner, unk_token="<unk>", pad_token="<pad>", sep_token="</s>", cls_token="<s>")


def unigram_pieces(size: int = 700) -> list[tuple[str, float]]:
    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(
        LEARNED,
        trainers.UnigramTrainer(vocab_size=size, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False),
    )
    return [tuple(each) for each in json.loads(learner.to_str())["model"]["vocab"][1:]]


def unigram(byte_fallback: bool) -> PreTrainedTokenizerBase:
    """XLM-R's way, with or without bytes; the mask comes after the model's own pieces, as in mDeBERTa."""
    extra = [(f"<0x{at:02X}>", -20.0) for at in range(256)] if byte_fallback else []
    pieces = [*((each, 0.0) for each in ROBERTA_FIRST), *extra, *unigram_pieces()]
    core = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=byte_fallback))
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    core.add_special_tokens(["<mask>"])
    core.post_processor = processors.Sequence([
        processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    ])  # fmt: skip
    return wrapped(core, **ROBERTA)


MAKERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "wordpiece": lambda: trained("wordpiece"),
    "bpe": lambda: trained("bpe"),
    "unigram": lambda: trained("unigram"),
    "byte-level": byte_level,
    "byte-level, words before merges": lambda: byte_level(ignore_merges=True),
    "metaspace bpe": metaspace_bpe,
    "suffix bpe": suffix_bpe,
    "unigram with unknowns": lambda: unigram(byte_fallback=False),
    "unigram with bytes": lambda: unigram(byte_fallback=True),
    "wordlevel": tiny.tokenizer,
}
OPEN = [kind for kind in MAKERS if kind != "wordlevel"]  # the others spell new words out
_MADE: dict[str, PreTrainedTokenizerBase] = {}


def made(kind: str) -> PreTrainedTokenizerBase:
    if kind not in _MADE:
        _MADE[kind] = MAKERS[kind]()
    return _MADE[kind]


def encode(tokenizer: PreTrainedTokenizerBase, some: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(some)["input_ids"]
    return ids


@pytest.mark.parametrize("minimum_count", [1, 5])
@pytest.mark.parametrize("kind", MAKERS)
def test_texts_of_kept_tokens_are_read_as_before(kind: str, minimum_count: int) -> None:
    tokenizer = made(kind)
    known = texts(60, 3, 0.1, LEXICON[:40]) if kind in OPEN else [row["text"] for row in tiny.rows(12)]
    kept = choose_tokens(tokenizer, count_tokens(known, tokenizer), minimum_count)
    trimmed = trim(tokenizer, kept)
    assert len(kept) < len(tokenizer)
    asked = [*known, *texts(400, 4, 0.2), *LEXICON, *(row["text"] for row in tiny.rows(20, 5))]
    before, after = encode(tokenizer, asked), encode(trimmed, asked)
    whole = [set(ids) <= set(kept) for ids in before]
    assert sum(whole) > 25
    for text, old, new, same in zip(asked, before, after, whole, strict=True):
        if same:
            assert [kept[each] for each in new] == old, text
    if minimum_count == 1:
        assert all(whole[: len(known)])


@pytest.mark.parametrize("kind", OPEN)
def test_no_text_gets_unknown_that_was_not(kind: str) -> None:
    tokenizer = made(kind)
    trimmed = trim(tokenizer, choose_tokens(tokenizer, count_tokens([], tokenizer)))
    assert len(trimmed) < len(tokenizer)
    asked = [*texts(600, 6, 0.3), *STRANGE, *LEXICON]
    changed = 0
    for old, new in zip(encode(tokenizer, asked), encode(trimmed, asked), strict=True):
        changed += len(old) != len(new)
        if tokenizer.unk_token_id not in old:
            assert trimmed.unk_token_id not in new
        assert (tokenizer.unk_token_id in old) == (trimmed.unk_token_id in new)
    assert changed > 100


@pytest.mark.parametrize("kind", ["bpe", "byte-level", "metaspace bpe", "unigram with bytes"])
def test_what_was_read_can_be_written_again(kind: str) -> None:
    tokenizer = made(kind)
    trimmed = trim(tokenizer, choose_tokens(tokenizer, count_tokens(LEXICON[:20], tokenizer)))
    for text in texts(300, 8, 0.3):
        old, new = (each.backend_tokenizer.encode(text, add_special_tokens=False).ids for each in (tokenizer, trimmed))
        assert trimmed.backend_tokenizer.decode(new) == tokenizer.backend_tokenizer.decode(old)


@pytest.mark.parametrize("kind", MAKERS)
def test_special_tokens_and_characters_stay_in_order(kind: str) -> None:
    tokenizer = made(kind)
    kept = choose_tokens(tokenizer, count_tokens([], tokenizer))
    trimmed = trim(tokenizer, kept)
    assert kept == sorted(kept)
    assert set(tokenizer.all_special_tokens) <= set(trimmed.get_vocab())
    assert set(tokenizer.get_added_vocab()) <= set(trimmed.get_vocab())
    single = {piece for piece in tokenizer.get_vocab() if len(piece.removeprefix("##").removesuffix("</w>")) == 1}
    assert single <= set(trimmed.get_vocab())
    for name in ("pad", "unk", "cls", "sep", "mask"):
        old, new = (getattr(each, f"{name}_token_id") for each in (tokenizer, trimmed))
        assert (old is None and new is None) or kept[new] == old
    padded = trimmed(["a", "a b c d"], padding=True)["input_ids"]
    assert padded[0][-1] == trimmed.pad_token_id


@pytest.mark.parametrize("kind", MAKERS)
def test_the_old_one_is_left_and_the_new_one_survives_the_disk(kind: str, tmp_path: Path) -> None:
    tokenizer = made(kind)
    before = tokenizer.backend_tokenizer.to_str()
    known = LEXICON[:30]
    trimmed = trim(tokenizer, choose_tokens(tokenizer, count_tokens(known, tokenizer)))
    assert tokenizer.backend_tokenizer.to_str() == before
    trimmed.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == trimmed.get_vocab()
    asked = texts(100, 9, 0.1)
    assert encode(again, asked) == encode(trimmed, asked)
    assert len(again) == len(trimmed)


def sentencepiece(first: list[str], last: list[str]) -> list[tuple[str, float]]:
    return [*((each, 0.0) for each in first), *unigram_pieces(500), *((each, 0.0) for each in last)]


def wordpieces(first: list[str], last: tuple[str, ...] = ()) -> dict[str, int]:
    own = [each for each in made("wordpiece").get_vocab() if each not in tiny.SPECIAL]
    return {piece: at for at, piece in enumerate([*first, *sorted(own), *last])}


def classes() -> dict[str, PreTrainedTokenizerBase]:
    bpe = json.loads(byte_level().backend_tokenizer.to_str())["model"]
    bpe["vocab"]["<mask>"] = len(bpe["vocab"])
    camembert = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    return {
        "bert": BertTokenizer(vocab=wordpieces(tiny.SPECIAL), do_lower_case=False),
        "mpnet": MPNetTokenizer(vocab=wordpieces(["<s>", "<pad>", "</s>", "<unk>", "[UNK]"], ("<mask>",))),
        "roberta": RobertaTokenizer(vocab=bpe["vocab"], merges=[tuple(pair) for pair in bpe["merges"]]),
        "xlm-roberta": XLMRobertaTokenizer(vocab=sentencepiece(ROBERTA_FIRST, ["<mask>"])),
        "camembert": CamembertTokenizer(vocab=sentencepiece(camembert, ["<mask>"])),
        "deberta-v2": DebertaV2Tokenizer(vocab=sentencepiece(["[PAD]", "[CLS]", "[SEP]", "[UNK]"], []), unk_id=3),
    }


@pytest.mark.parametrize("name", ["bert", "mpnet", "roberta", "xlm-roberta", "camembert", "deberta-v2"])
def test_the_classes_of_transformers_read_the_trimmed_files(name: str, tmp_path: Path) -> None:
    classes()[name].save_pretrained(tmp_path / "old")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "old")
    known = texts(30, 3, 0.0, LEXICON[:30])
    kept = choose_tokens(tokenizer, count_tokens(known, tokenizer))
    trimmed = trim(tokenizer, kept)
    trimmed.save_pretrained(tmp_path / "new")
    again = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert type(again) is type(tokenizer)
    assert len(again) == len(kept) < len(tokenizer)
    assert [[kept[each] for each in ids] for ids in encode(again, known)] == encode(tokenizer, known)
    asked = texts(200, 11, 0.2)
    assert encode(again, asked) == encode(trimmed, asked)
    assert all(
        kept[getattr(again, f"{each}_token_id")] == getattr(tokenizer, f"{each}_token_id")
        for each in ("pad", "unk", "cls", "sep", "mask")
    )


class TestChoice:
    @pytest.mark.parametrize("kind", ["wordpiece", "byte-level", "unigram with bytes"])
    def test_most_takes_the_most_frequent(self, kind: str) -> None:
        tokenizer = made(kind)
        counts = count_tokens(LEARNED, tokenizer)
        least, everything = len(choose_tokens(tokenizer, 0 * counts)), len(choose_tokens(tokenizer, counts))
        most = (least + everything) // 2
        kept = choose_tokens(tokenizer, counts, max_size=most)
        assert most - 8 <= len(kept) <= most
        rare = max(counts[each] for each in range(len(counts)) if each not in set(kept))
        free = set(kept) - always_kept(tokenizer)
        if kind != "byte-level":  # there rare tokens stay for those that they are parts of
            assert all(counts[each] >= rare for each in free)
        assert choose_tokens(tokenizer, counts, max_size=10**6) == choose_tokens(tokenizer, counts)

    def test_too_few_are_refused(self) -> None:
        tokenizer = made("byte-level")
        with pytest.raises(
            MethodError, match=r"max_tokens 20 is too few: \d+ tokens always stay; allowed: from \d+ on"
        ):
            choose_tokens(tokenizer, count_tokens([], tokenizer), max_size=20)

    def test_counts_are_those_of_whole_texts(self) -> None:
        tokenizer = made("wordpiece")
        counts = count_tokens(LEARNED[:50], tokenizer)
        slow = np.zeros(len(tokenizer), dtype=int)
        for text in LEARNED[:50]:
            for each in tokenizer(text, add_special_tokens=False)["input_ids"]:
                slow[each] += 1
        assert counts.tolist() == slow.tolist()

    def test_merges_bring_what_they_merge(self) -> None:
        vocabulary = {piece: at for at, piece in enumerate(["a", "b", "c", "d", "ab", "abc", "bc", "cd", "x", "abcd"])}
        merges = [("a", "b"), ("c", "d"), ("ab", "c"), ("ab", "cd")]
        tokenizer = wrapped(Tokenizer(models.BPE(vocabulary, merges)))
        counts = count_tokens(["abcd"], tokenizer)
        assert counts.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        kept = choose_tokens(tokenizer, counts)
        assert [list(vocabulary)[each] for each in kept] == ["a", "b", "c", "d", "ab", "cd", "x", "abcd"]

    def test_a_piece_whose_character_stands_nowhere_else_stays(self) -> None:
        vocabulary = {piece: at for at, piece in enumerate(["[UNK]", "a", "##a", "a§", "aa"])}
        tokenizer = wrapped(Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")), unk_token="[UNK]")
        assert choose_tokens(tokenizer, count_tokens([], tokenizer)) == [0, 1, 2, 3]

    def test_the_price_of_an_unknown_character_stays(self) -> None:
        pieces = [("<unk>", 0.0), ("a", -1.0), ("b", -30.0), ("ab", -2.0), ("ba", -45.0), ("aab", -3.0)]
        core = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
        tokenizer = wrapped(core, unk_token="<unk>")
        kept = choose_tokens(tokenizer, count_tokens([], tokenizer))
        assert kept == [0, 1, 2, 4]  # the one of the lowest score
