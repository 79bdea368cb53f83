"""How many tokens of a sample of texts a tokenizer does not know: the sign of one that is made for other texts."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from plankwise.core.errors import ModelError

logger = logging.getLogger(__name__)
TOLD, REFUSED = 0.1, 0.5  # shares of unknown tokens
SAMPLED = 200  # texts
_CHARACTERS = 2000  # of each text
_ENOUGH = 5  # texts, below which nothing is refused
_SPACE = "▁"  # in front of an unknown word it is a token by itself where SentencePiece wrote the vocabulary
_UNKNOWN = ("<unk>", "[UNK]", "<UNK>", "[unk]")
Text = str | tuple[str, str]


def check_unknown(
    texts: Iterable[Text],
    tokenizer: PreTrainedTokenizerBase | Tokenizer,
    source: str,
    refuse: bool = True,
) -> None:
    """Warn where more than a tenth of the tokens of a sample are unknown to the tokenizer.

    Args:
        texts: of which a few hundred are looked at; none is ever quoted.
        tokenizer: a fast one, or what is beneath it.
        source: of the model, for messages.
        refuse: whether more than a half is an error.

    Raises:
        ModelError: if more than a half is unknown.
    """
    core = tokenizer if isinstance(tokenizer, Tokenizer) else tokenizer.backend_tokenizer
    counts = _count_unknown(core, texts)
    share = sum(unknown for unknown, _ in counts) / max(1, sum(tokens for _, tokens in counts))
    told = f"{share:.0%} of the tokens of a sample of the texts are unknown to the tokenizer of {source}"
    if refuse and share > REFUSED and len(counts) >= _ENOUGH:
        raise ModelError(f"{told}; allowed: at most {REFUSED:.0%}. Is it made for another language or script?")
    if share > TOLD:
        logger.warning("%s; the model cannot tell them apart", told)


def _count_unknown(core: Tokenizer, texts: Iterable[Text]) -> list[tuple[int, int]]:
    """Count the unknown tokens and all of each text that is not blank; one of which nothing is left is unknown."""
    names = [getattr(core.model, "unk_token", None), *_UNKNOWN]
    known = [core.token_to_id(name) for name in names if name]
    unk, space = next((each for each in known if each is not None), None), core.token_to_id(_SPACE)
    counts = []
    for text in islice(texts, SAMPLED):
        read = text if isinstance(text, str) else " ".join(text)
        if read.strip():
            ids = [each for each in core.encode(read[:_CHARACTERS], add_special_tokens=False).ids if each != space]
            counts.append((sum(each == unk for each in ids), len(ids)) if ids else (1, 1))
    return counts
