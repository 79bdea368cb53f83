"""The share of unknown tokens in a sample of texts: high where a tokenizer was made for another language or script."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from plankwise.core.errors import ModelError

logger = logging.getLogger(__name__)
WARNED, REFUSED = 0.1, 0.5  # shares of unknown tokens
SAMPLED = 200  # texts
_CHARACTERS = 2000  # of each text
_ENOUGH = 5  # texts; with fewer, nothing is refused
_SPACE = "▁"  # SentencePiece makes it a token of its own before an unknown word; it would hide unknown texts
_UNKNOWN = ("<unk>", "[UNK]", "<UNK>", "[unk]")
Text = str | tuple[str, str]


def check_unknown(
    texts: Iterable[Text],
    tokenizer: PreTrainedTokenizerBase | Tokenizer,
    source: str,
    refuse: bool = True,
) -> None:
    """Warn if more than a tenth of the tokens of a sample are unknown to the tokenizer.

    Args:
        texts: of which the first few hundred are tokenized; none is ever quoted.
        tokenizer: a fast one, or its backend.
        source: of the model, for messages.
        refuse: whether a share of more than one half is an error.

    Raises:
        ModelError: if more than half of the tokens are unknown.
    """
    core = tokenizer if isinstance(tokenizer, Tokenizer) else tokenizer.backend_tokenizer
    counts = _count_unknown(core, texts)
    share = sum(unknown for unknown, _ in counts) / max(1, sum(tokens for _, tokens in counts))
    message = f"{share:.0%} of the tokens of a sample of the texts are unknown to the tokenizer of {source}"
    if refuse and share > REFUSED and len(counts) >= _ENOUGH:
        raise ModelError(f"{message}; allowed: at most {REFUSED:.0%}. Is it made for another language or script?")
    if share > WARNED:
        logger.warning("%s; the model cannot tell them apart", message)


def _count_unknown(core: Tokenizer, texts: Iterable[Text]) -> list[tuple[int, int]]:
    """Return (unknown tokens, all tokens) of each text that is not blank; a text without tokens counts as unknown."""
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
