"""Tokenizers of fewer tokens: which to keep, and surgery on the tokenizer's own description.

A text whose tokens are all kept is tokenized as before, id by id after renumbering. Why that holds:

- WordPiece takes the longest piece that matches. The longest of all is the longest of fewer, as long as it is kept.
- BPE applies the first merge in its list that fits. The merges that build a kept token stay, with all that they merge;
  merges are only taken away, so the first one that fits is still the first.
- Unigram takes the best path through the pieces. If it still stands, it is still the best; the price of an unknown
  character hangs on the worst score in the vocabulary, so a piece of that score stays.

Any other text falls into smaller pieces, at worst single characters or bytes, which always stay.
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
    """Count each token of whole texts, special ones that are not in the text left out."""
    counts = np.zeros(ids_of(tokenizer), dtype=np.int64)
    for some in tokenized(texts, tokenizer):
        ids = np.fromiter((each for text in some for each in text), dtype=np.int64)
        counts += np.bincount(ids, minlength=len(counts))
    return counts


def choose_tokens(
    tokenizer: PreTrainedTokenizerBase,
    counts: Counts,
    minimum_count: int = 1,
    most: int | None = None,
    also: Iterable[int] = (),
) -> list[int]:
    """Choose the tokens to keep: those that always stay, then the most frequent, each with what it is merged from.

    Args:
        tokenizer: the old one.
        counts: of its tokens.
        minimum_count: how often a token has to occur.
        most: how many tokens there may be in the end.
        also: further ids to keep, whether they have a token or not.

    Returns:
        Old ids in ascending order; a token's place in the list is its new id.

    Raises:
        MethodError: if the tokenizer is of no known kind, or more than `most` tokens always stay.
    """
    data = _description(tokenizer)
    complete = _completion(data["model"])
    kept = complete({*always_kept(tokenizer), *also})
    if most is not None and len(kept) > most:
        raise MethodError(f"most {most} is too few: {len(kept)} tokens always stay; allowed: from {len(kept)} on")
    seen = np.flatnonzero(counts >= minimum_count).tolist()
    if most is None:
        return sorted(kept | complete(seen))
    for token in sorted(seen, key=lambda each: (-counts[each], each)):
        more = complete([token]) - kept
        if len(kept) + len(more) > most:
            break
        kept |= more
    return sorted(kept)


def always_kept(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """List the ids that always stay: special and added tokens, bytes, single characters, and what stands in for these.

    A piece with a character that has no piece of its own stays too: without it that character would be unknown.

    Raises:
        MethodError: if the tokenizer is of no known kind.
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
    """Make a tokenizer of the kept tokens alone, numbered by their place in `kept`; `tokenizer` is not changed.

    Args:
        tokenizer: a fast one.
        kept: old ids in ascending order, by `choose_tokens`.

    Raises:
        MethodError: if the tokenizer is of no known kind, or numbers its tokens in a way that cannot be kept up.
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
        raise MethodError("the tokenizer numbers its added tokens in a way that does not survive with fewer tokens")
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
    """Change every id that a description holds outside its list of tokens, in place."""
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
    """Spell a piece out in pieces of one character, with the marks that such pieces bear at their place in a word."""
    if model.get("byte_fallback") and _BYTE.fullmatch(piece):
        return [piece]
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    goes_on = bool(prefix) and piece.startswith(prefix) and len(piece) > len(prefix)
    ends = bool(suffix) and piece.endswith(suffix) and len(piece) > len(suffix)
    bare = piece[len(prefix) if goes_on else 0 : len(piece) - len(suffix) if ends else None]
    last = len(bare) - 1
    return [
        (prefix if at or goes_on else "") + char + (suffix if ends and at == last else "")
        for at, char in enumerate(bare)
    ]


def _merged(pair: list[str], model: dict[str, Any]) -> str:
    return pair[0] + pair[1][len(model.get("continuing_subword_prefix") or "") :]


def _completion(model: dict[str, Any]) -> Callable[[Iterable[int]], set[int]]:
    """Give the function that adds to tokens all those that they are merged from."""
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
