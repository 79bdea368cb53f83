"""Texts to full blocks of token ids: tokenized once, in parallel, into a memory-mapped Arrow file."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from plankwise.core.cache import built_once
from plankwise.core.errors import DataError
from plankwise.data.batching.inputs import bare_tokenizer
from plankwise.data.corpus.streams import texts_of
from plankwise.data.tokenizer.learning import CONTINUES, SPACE

logger = logging.getLogger(__name__)
CHARACTERS_PER_CALL = 500_000  # the tokenizer needs hundreds of bytes per token until only the ids are kept
BLOCKS_PER_WRITE = 4096
PARALLELISM = "TOKENIZERS_PARALLELISM"
SPACE_BYTES = ("Ġ", "Ċ", "č", "ĉ")  # byte-level tokenizers' space, line feed, carriage return and tab
Ids = NDArray[np.integer[Any]]


def blocks_of(
    texts: Dataset,
    content: str,
    tokenizer: PreTrainedTokenizerBase,
    block: int,
    cache: Path,
    *,
    characters_per_call: int = CHARACTERS_PER_CALL,
    blocks_per_write: int = BLOCKS_PER_WRITE,
) -> Dataset:
    """Join texts, each followed by the separator, and cut the stream into blocks of `block` tokens, the first [CLS].

    Args:
        texts: rows with a `text`.
        content: hash of these texts.
        tokenizer: a fast one.
        block: tokens of a block.
        cache: folder that keeps the result, under the hash of texts, tokenizer and block.
        characters_per_call: texts are tokenized in groups of about this many characters.
        blocks_per_write: size of the batches in the Arrow file; like the one before, it does not change the blocks.

    Returns:
        Rows of `input_ids`, memory-mapped, as numpy arrays.

    Raises:
        DataError: if the texts do not fill one block.
    """
    key = hashlib.sha256(f"{content}/{serialized(tokenizer)}/{block}".encode()).hexdigest()[:32]
    folder = cache / key

    def build(target: Path) -> None:
        packed = _packed(texts, tokenizer, block, characters_per_call, blocks_per_write)
        _write(packed, ids_of(tokenizer), block, target / "blocks.arrow")

    built_once(folder, build)
    return Dataset.from_file(str(folder / "blocks.arrow")).with_format("numpy")


def continuations(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.bool_]:
    """Return for each token whether it continues the word before it, [vocabulary]."""
    special = set(tokenizer.all_special_ids)
    flags = np.zeros(ids_of(tokenizer), dtype=bool)
    continues = _continues(tokenizer.backend_tokenizer)
    for token, index in tokenizer.get_vocab().items():
        flags[index] = index not in special and continues(token)
    return flags


def ids_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of token ids, one more than the highest; `len` may be less, as ids may have gaps."""
    highest: int = max(tokenizer.get_vocab().values())
    return highest + 1


def _continues(tokenizer: Tokenizer) -> Callable[[str], bool]:
    """Return the test for tokens that continue a word, for this type of tokenizer."""
    kind = type(tokenizer.model).__name__
    if kind == "WordPiece":
        prefix = tokenizer.model.continuing_subword_prefix or CONTINUES
        return lambda token: token.startswith(prefix)
    if kind == "WordLevel":
        return lambda token: False
    if "ByteLevel" in f"{tokenizer.pre_tokenizer}{tokenizer.decoder}":
        return lambda token: token[:1] not in SPACE_BYTES
    return lambda token: not (token.startswith(SPACE) or _is_unspaced(token[:1]))


def _is_unspaced(char: str) -> bool:
    """Return whether a character belongs to a script without spaces between words: Han and Kana."""
    return "\u2e80" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or char >= "\U00020000"


def serialized(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return everything that determines how a text is tokenized, as one string."""
    return f"{bare_tokenizer(tokenizer).to_str()}/{tokenizer.cls_token_id}/{tokenizer.sep_token_id}"


def _write(packed: Iterable[tuple[Ids, int]], vocabulary: int, block: int, path: Path) -> None:
    kind = pa.uint16() if vocabulary <= 2**16 else pa.int32()
    schema = pa.schema([("input_ids", pa.list_(kind, block))])
    tokens = rows = 0
    with pa.ipc.new_stream(str(path), schema) as stream:
        for part, count in packed:
            tokens += count
            rows += len(part)
            ids = pa.array(part.ravel().astype(kind.to_pandas_dtype()), kind)
            column = pa.FixedSizeListArray.from_arrays(ids, block)
            stream.write_batch(pa.record_batch([column], schema=schema))
    if not rows:
        raise DataError(f"the texts hold {tokens} tokens, fewer than one block of {block}")
    logger.info("tokenized %s tokens into %s blocks of %d", f"{tokens:,}", f"{rows:,}", block)


def _packed(
    texts: Dataset, tokenizer: PreTrainedTokenizerBase, block: int, characters_per_call: int, blocks_per_write: int
) -> Iterator[tuple[Ids, int]]:
    """Yield full blocks, [blocks, block], and how many tokens were read for them; the rest at the end is dropped."""
    rest: Ids = np.zeros(0, dtype=np.int32)
    for read in _streams(texts, tokenizer, characters_per_call, blocks_per_write * (block - 1)):
        stream = np.concatenate([rest, read])
        count = len(stream) // (block - 1)
        body = stream[: count * (block - 1)].reshape(count, block - 1)
        rest = stream[count * (block - 1) :]
        yield np.hstack([np.full((count, 1), tokenizer.cls_token_id, dtype=np.int32), body]), len(read)


def _streams(
    texts: Dataset, tokenizer: PreTrainedTokenizerBase, characters_per_call: int, enough: int
) -> Iterator[Ids]:
    """Yield token ids, each text followed by the separator, in pieces of about `enough` tokens."""
    waiting: list[Ids] = []
    tokens = 0
    for some in tokenized(texts_of(texts), tokenizer, characters_per_call):
        for ids in some:
            waiting.append(np.array([*ids, tokenizer.sep_token_id], dtype=np.int32))
            tokens += len(waiting[-1])
        if tokens >= enough:
            yield np.concatenate(waiting)
            waiting, tokens = [], 0
    if waiting:
        yield np.concatenate(waiting)


def tokenized(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, characters_per_call: int = CHARACTERS_PER_CALL
) -> Iterator[list[list[int]]]:
    """Tokenize whole texts on all cores, without special tokens; yield the ids of many texts at a time."""
    bare = bare_tokenizer(tokenizer)
    for some in _batches(texts, characters_per_call):
        # Not around the yield: of two generators in turns, the second would restore what the first had set.
        with _all_cores():
            encodings = bare.encode_batch_fast(some, add_special_tokens=False)
        yield [encoding.ids for encoding in encodings]


def _batches(texts: Iterable[str], characters_per_call: int) -> Iterator[list[str]]:
    """Group texts by characters and not by number: a single one may be very long."""
    waiting: list[str] = []
    characters = 0
    for text in texts:
        waiting.append(text)
        characters += len(text)
        if characters >= characters_per_call:
            yield waiting
            waiting, characters = [], 0
    if waiting:
        yield waiting


@contextmanager
def _all_cores() -> Iterator[None]:
    """Let the tokenizer use every core inside; elsewhere that is off, because it warns, and may hang, after a fork."""
    before = os.environ.get(PARALLELISM)
    os.environ[PARALLELISM] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[PARALLELISM]
        else:
            os.environ[PARALLELISM] = before
