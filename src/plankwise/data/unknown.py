"""How many tokens of a sample of texts a tokenizer does not know: the sign of one that is made for other texts."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from plankwise.core.errors import ModelError

logger = logging.getLogger(__name__)
TOLD, REFUSED = 0.1, 0.5  # shares of unknown tokens
SAMPLED = 200  # texts
_CHARACTERS, _ENOUGH = 2000, 10  # of each text, and tokens that a refusal needs
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
    unknown, tokens = _count_unknown(core, texts)
    share = unknown / max(1, tokens)
    told = f"{share:.0%} of the tokens of a sample of the texts are unknown to the tokenizer of {source}"
    if refuse and share > REFUSED and tokens >= _ENOUGH:
        raise ModelError(f"{told}; allowed: at most {REFUSED:.0%}. Is it made for another language or script?")
    if share > TOLD:
        logger.warning("%s; the model cannot tell them apart", told)


def _count_unknown(core: Tokenizer, texts: Iterable[Text]) -> tuple[int, int]:
    """Count the unknown tokens and all; a text of which nothing is left counts as one unknown token."""
    names = [getattr(core.model, "unk_token", None), *_UNKNOWN]
    unk = next((core.token_to_id(name) for name in names if name and core.token_to_id(name) is not None), None)
    space = core.token_to_id(_SPACE)
    unknown = tokens = 0
    for number, text in enumerate(texts):
        if number == SAMPLED:
            break
        for part in (text,) if isinstance(text, str) else text:
            if not part.strip():
                continue
            ids = [each for each in core.encode(part[:_CHARACTERS], add_special_tokens=False).ids if each != space]
            unknown += sum(each == unk for each in ids) if ids else 1
            tokens += len(ids) or 1
    return unknown, tokens
