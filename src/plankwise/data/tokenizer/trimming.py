"""Trimming a tokenizer: choosing the tokens to keep, and removing the others from its serialized form.

A text whose tokens are all kept is tokenized as before, except that ids are renumbered:

- WordPiece takes the longest piece that matches; if it is kept, it is also the longest of the kept pieces.
- BPE applies the first merge in its list that matches. The merges that build a kept token are kept, with their parts;
  merges are only removed, so the first one that matches is still the first.
- Unigram takes the path with the best score. If all its pieces are kept, it is still the best. The penalty of an
  unknown character depends on the worst score in the vocabulary, so a piece with that score is kept.

Any other text is split into smaller pieces, at worst single characters or bytes, which are always kept.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from plankwise.core.errors import MethodError
from plankwise.data.corpus.blocks import ids_of, tokenized

Counts = NDArray[np.int64]  # how often each id occurs, [ids]
KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def count_tokens(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Counts:
    """Return how often each token occurs in whole texts, without the special tokens that the tokenizer adds, [ids]."""
    counts = np.zeros(ids_of(tokenizer), dtype=np.int64)
    for some in tokenized(texts, tokenizer):
        ids = np.fromiter((each for text in some for each in text), dtype=np.int64)
        counts += np.bincount(ids, minlength=len(counts))
    return counts


def choose_tokens(
    tokenizer: PreTrainedTokenizerBase,
    counts: Counts,
    minimum_count: int = 1,
    max_size: int | None = None,
    also: Iterable[int] = (),
) -> list[int]:
    """Choose the tokens to keep: those always kept, then the most frequent, each with the parts it is merged from.

    Args:
        tokenizer: to trim.
        counts: of its tokens, [ids].
        minimum_count: a token that occurs less often is dropped.
        max_size: maximum size of the new vocabulary.
        also: further ids to keep, whether they have a token or not.

    Returns:
        Old ids in ascending order; the index of a token in this list is its new id.

    Raises:
        MethodError: if the tokenizer is of an unknown kind, or more than `max_size` tokens are always kept.
    """
    data = _description(tokenizer)
    complete = _completion(data["model"])
    kept = complete({*always_kept(tokenizer), *also})
    if max_size is not None and len(kept) > max_size:
        raise MethodError(
            f"max_tokens {max_size} is too few: {len(kept)} tokens always stay; allowed: from {len(kept)} on"
        )
    seen = np.flatnonzero(counts >= minimum_count).tolist()
    if max_size is None:
        return sorted(kept | complete(seen))
    for token in sorted(seen, key=lambda each: (-counts[each], each)):
        more = complete([token]) - kept
        if len(kept) + len(more) > max_size:
            break
        kept |= more
    return sorted(kept)


def always_kept(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that are always kept: special and added tokens, bytes, and single characters.

    A piece with a character that has no piece of its own is kept too: without it that character would be unknown.

    Raises:
        MethodError: if the tokenizer is of an unknown kind.
    """
    data = _description(tokenizer)
    model, pieces = data["model"], _pieces(data["model"])
    kept = {*tokenizer.all_special_ids, *(each["id"] for each in data["added_tokens"])}

    def keep(index: int) -> int:
        kept.add(index)
        return index

    _change_ids(data, keep)
    spelt_out = model["type"] in ("WordPiece", "Unigram") or bool(model.get("ignore_merges"))
    for piece, index in pieces.items():
        units = _units(piece, model)
        if len(units) == 1 or (spelt_out and any(unit not in pieces for unit in units)):
            kept.add(index)
    if model["type"] == "Unigram":
        kept.add(min(range(len(model["vocab"])), key=lambda each: model["vocab"][each][1]))
    if model.get("unk_token") in pieces:
        kept.add(pieces[model["unk_token"]])
    return kept


def trim(tokenizer: PreTrainedTokenizerBase, kept: list[int]) -> PreTrainedTokenizerBase:
    """Return a tokenizer with the kept tokens alone, numbered by their index in `kept`; `tokenizer` is not changed.

    Args:
        tokenizer: a fast one.
        kept: old ids in ascending order, by `choose_tokens`.

    Raises:
        MethodError: if the tokenizer is of an unknown kind, or its added tokens cannot be renumbered.
    """
    data, new = _description(tokenizer), {old: index for index, old in enumerate(kept)}
    model = data["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for index, entry in enumerate(model["vocab"]) if index in new]
    else:
        ordered = sorted(model["vocab"].items(), key=lambda item: item[1])
        model["vocab"] = {piece: new[old] for piece, old in ordered if old in new}
    if model["type"] == "BPE":
        inside = model["vocab"]
        model["merges"] = [each for each in model["merges"] if {*each, _merged(each, model)} <= inside.keys()]
    data["added_tokens"] = [{**each, "id": new[each["id"]]} for each in data["added_tokens"]]
    _change_ids(data, lambda each: new.get(each, each))
    trimmed = copy.deepcopy(tokenizer)
    core = Tokenizer.from_str(json.dumps(data))
    core.encode_special_tokens = tokenizer.backend_tokenizer.encode_special_tokens
    trimmed._tokenizer = core
    wanted = {token: new[old] for token, old in tokenizer.get_vocab().items() if old in new}
    if trimmed.get_vocab() != wanted:
        raise MethodError("the added tokens of this tokenizer cannot be renumbered")
    return trimmed


def _description(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    core = getattr(tokenizer, "backend_tokenizer", None)
    kind = "none" if core is None else type(core.model).__name__
    if core is None or kind not in KINDS:
        raise MethodError(f"a tokenizer of the kind {kind} cannot be trimmed; allowed: {', '.join(KINDS)}")
    data: dict[str, Any] = json.loads(core.to_str())
    return data


def _pieces(model: dict[str, Any]) -> dict[str, int]:
    if model["type"] == "Unigram":
        return {piece: index for index, (piece, _) in enumerate(model["vocab"])}
    return dict(model["vocab"])


def _change_ids(data: dict[str, Any], change: Callable[[int], int]) -> None:
    """Change every id in a serialized tokenizer outside of its vocabulary, in place."""
    if data["model"].get("unk_id") is not None:
        data["model"]["unk_id"] = change(data["model"]["unk_id"])
    if data.get("padding"):
        data["padding"]["pad_id"] = change(data["padding"]["pad_id"])
    waiting = [data["post_processor"]] if data.get("post_processor") else []
    while waiting:
        each = waiting.pop()
        waiting += each.get("processors", [])
        for named in each.get("special_tokens", {}).values():  # of templates
            named["ids"] = [change(index) for index in named["ids"]]
        for name in ("cls", "sep"):  # of BERT's and RoBERTa's own
            if name in each:
                each[name][1] = change(each[name][1])


def _units(piece: str, model: dict[str, Any]) -> list[str]:
    """Split a piece into pieces of one character, with the prefix or suffix that they have at their place in a word."""
    if model.get("byte_fallback") and _BYTE.fullmatch(piece):
        return [piece]
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    continues = bool(prefix) and piece.startswith(prefix) and len(piece) > len(prefix)
    ends = bool(suffix) and piece.endswith(suffix) and len(piece) > len(suffix)
    bare = piece[len(prefix) if continues else 0 : len(piece) - len(suffix) if ends else None]
    last = len(bare) - 1
    return [
        (prefix if at or continues else "") + char + (suffix if ends and at == last else "")
        for at, char in enumerate(bare)
    ]


def _merged(pair: list[str], model: dict[str, Any]) -> str:
    return pair[0] + pair[1][len(model.get("continuing_subword_prefix") or "") :]


def _completion(model: dict[str, Any]) -> Callable[[Iterable[int]], set[int]]:
    """Return a function that adds to tokens all tokens they are merged from, recursively."""
    if model["type"] != "BPE":
        return set
    pieces: dict[str, int] = model["vocab"]
    parts: dict[int, set[int]] = {}
    for pair in model["merges"]:
        parts.setdefault(pieces[_merged(pair, model)], set()).update(pieces[each] for each in pair)

    def complete(tokens: Iterable[int]) -> set[int]:
        found, waiting = set(), list(tokens)
        while waiting:
            token = waiting.pop()
            if token not in found:
                found.add(token)
                waiting += parts.get(token, ())
        return found

    return complete
