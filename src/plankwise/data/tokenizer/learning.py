"""New tokenizers: WordPiece as BERT's, byte-level BPE as RoBERTa's, Unigram as XLM-R's, trained on given texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Literal

import pydantic
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from plankwise.core.errors import DataError
from plankwise.core.numbers import Bounds
from plankwise.core.recipe import settings
from plankwise.data.corpus.streams import texts_of

MOST_CHARACTERS = 1000  # in the alphabet of WordPiece and Unigram; rarer ones become unknown
MOST_BYTES = 100_000_000  # of text that a tokenizer learns from; evenly spread over the corpus
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CONTINUES = "##"
SPACE = "▁"


@settings
class Vocabulary:
    """A tokenizer to train.

    Attributes:
        kind: of the model: `wordpiece`, byte-level `bpe`, or `unigram`.
        size: of the vocabulary, at most.
        lowercase: whether case is folded.
    """

    kind: Literal["wordpiece", "bpe", "unigram"] = "wordpiece"
    size: Annotated[int, Bounds(50, 10_000_000, "no corpus has so many pieces")] = 8000
    lowercase: bool = True

    @pydantic.model_validator(mode="after")
    def _holds_all_bytes(self) -> Vocabulary:
        if self.kind == "bpe" and self.size < 256 + len(SPECIAL):
            raise ValueError(f"size {self.size}: byte-level BPE needs at least {256 + len(SPECIAL)}")
        return self


def train_tokenizer(texts: Dataset, vocabulary: Vocabulary, positions: int) -> PreTrainedTokenizerBase:
    """Train a tokenizer on the column `text`.

    The same texts give the same WordPiece or BPE tokenizer. The scores of Unigram's pieces, and with them its ids, come
    out a little different each time; whoever needs it twice keeps the first.

    Args:
        texts: rows with a `text`; of a large corpus only an even sample is read.
        vocabulary: what to train.
        positions: longest input in tokens, for the tokenizer's own limit.
    """
    tokenizer = _LEARN[vocabulary.kind](texts, vocabulary)
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=positions, **names)


def _sample(texts: Dataset) -> Iterator[str]:
    share = len(texts) / max(1, texts.data.num_rows)  # a selection knows the size of the whole only
    every = max(1, math.ceil(share * texts.data.nbytes / MOST_BYTES))
    return texts_of(texts.select(range(0, len(texts), every)))


def _wordpiece(texts: Dataset, vocabulary: Vocabulary) -> Tokenizer:
    """Train WordPiece as BERT's.

    The library's trainer numbers characters in the order of a hash map and breaks ties by these numbers, so that two
    trainings differ. Naming the characters beforehand, in a fixed order, takes that away.
    """
    normalizer = normalizers.BertNormalizer(lowercase=vocabulary.lowercase, strip_accents=False)
    kept = _alphabet(texts, normalizer, vocabulary)
    alphabet = [*kept, *(CONTINUES + char for char in kept)]
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary.size,
        special_tokens=[*SPECIAL, *alphabet],
        initial_alphabet=kept,
        limit_alphabet=len(kept),
        show_progress=False,
    )
    learner.train_from_iterator(_sample(texts), trainer)
    tokenizer = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(CONTINUES)
    return tokenizer


def _bpe(texts: Dataset, vocabulary: Vocabulary) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _normalizer(vocabulary)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary.size,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(texts), trainer)
    return tokenizer


def _unigram(texts: Dataset, vocabulary: Vocabulary) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = _normalizer(vocabulary)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE)
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE)
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary.size,
        special_tokens=SPECIAL,
        initial_alphabet=_alphabet(texts, tokenizer.normalizer, vocabulary),
        unk_token="[UNK]",
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(texts), trainer)
    return tokenizer


def _normalizer(vocabulary: Vocabulary) -> normalizers.Normalizer:
    steps = [normalizers.NFKC() if vocabulary.kind == "unigram" else normalizers.NFC()]
    return normalizers.Sequence([*steps, *([normalizers.Lowercase()] if vocabulary.lowercase else [])])


def _alphabet(texts: Dataset, normalizer: normalizers.Normalizer, vocabulary: Vocabulary) -> list[str]:
    """List the most frequent characters, in a fixed order."""
    counts: Counter[str] = Counter()
    for text in _sample(texts):
        counts.update(normalizer.normalize_str(text))
    chars = sorted((char for char in counts if not char.isspace()), key=lambda char: (-counts[char], char))
    if not chars:
        raise DataError("the texts hold no characters to train a tokenizer on")
    return sorted(chars[: min(MOST_CHARACTERS, vocabulary.size // 4)])


_LEARN = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}
