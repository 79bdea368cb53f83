"""Training tokenizers on given texts: WordPiece like BERT's, byte-level BPE like RoBERTa's, Unigram like XLM-R's."""

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

MAX_CHARACTERS = 1000  # in the alphabet of WordPiece and Unigram; rarer ones become unknown
MAX_BYTES = 100_000_000  # of text that a tokenizer is trained on, evenly spread over the corpus
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CONTINUES = "##"  # marks a WordPiece token that continues a word
SPACE = "▁"  # marks the start of a word in SentencePiece


@settings
class Vocabulary:
    """A tokenizer to train.

    Attributes:
        kind: of the model: `wordpiece`, byte-level `bpe`, or `unigram`.
        size: maximum size of the vocabulary.
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

    The same texts give the same WordPiece or BPE tokenizer. The scores of Unigram's pieces, and with them its ids,
    differ slightly each time: save the tokenizer to use it again.

    Args:
        texts: rows with a `text`; of a large corpus only an even sample is read.
        vocabulary: settings.
        positions: maximum input length in tokens, which the tokenizer stores.

    Raises:
        DataError: if the texts have no characters but white space.
    """
    tokenizer = _TRAINERS[vocabulary.kind](texts, vocabulary)
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=positions, **names)


def sample(texts: Dataset, max_bytes: int = MAX_BYTES) -> Iterator[str]:
    """Yield every n-th text, such that all have about `max_bytes` or less."""
    share = len(texts) / max(1, texts.data.num_rows)  # nbytes of a selection is that of the whole data set
    every = max(1, math.ceil(share * texts.data.nbytes / max_bytes))
    return texts_of(texts.select(range(0, len(texts), every)))


def _wordpiece(texts: Dataset, vocabulary: Vocabulary) -> Tokenizer:
    """Train WordPiece like BERT's, deterministically.

    The trainer of `tokenizers` numbers characters in the order of a hash map and breaks ties by these numbers, so that
    two trainings differ. Passing the characters as special tokens fixes their numbers.
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
    learner.train_from_iterator(sample(texts), trainer)
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
    tokenizer.train_from_iterator(sample(texts), trainer)
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
    tokenizer.train_from_iterator(sample(texts), trainer)
    return tokenizer


def _normalizer(vocabulary: Vocabulary) -> normalizers.Normalizer:
    steps = [normalizers.NFKC() if vocabulary.kind == "unigram" else normalizers.NFC()]
    return normalizers.Sequence([*steps, *([normalizers.Lowercase()] if vocabulary.lowercase else [])])


def _alphabet(texts: Dataset, normalizer: normalizers.Normalizer, vocabulary: Vocabulary) -> list[str]:
    """Return the most frequent characters, sorted."""
    counts: Counter[str] = Counter()
    for text in sample(texts):
        counts.update(normalizer.normalize_str(text))
    chars = sorted((char for char in counts if not char.isspace()), key=lambda char: (-counts[char], char))
    if not chars:
        raise DataError("the texts hold no characters to train a tokenizer on")
    return sorted(chars[: min(MAX_CHARACTERS, vocabulary.size // 4)])


_TRAINERS = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}
