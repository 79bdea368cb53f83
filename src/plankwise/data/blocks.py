"""Texts to full blocks of token ids: tokenized once, in parallel, into an Arrow file that is memory-mapped."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from plankwise.core.errors import DataError
from plankwise.data.corpus import built_once
from plankwise.data.vocabulary import CONTINUES, SPACE

logger = logging.getLogger(__name__)
TEXTS_PER_CALL = 512
BLOCKS_PER_WRITE = 4096
PARALLELISM = "TOKENIZERS_PARALLELISM"
Ids = NDArray[np.integer[Any]]


def blocks_of(texts: Dataset, content: str, tokenizer: PreTrainedTokenizerBase, block: int, cache: Path) -> Dataset:
    """Join texts, each closed by the separator, and cut the stream into blocks of `block` tokens, the first [CLS].

    Args:
        texts: rows with a `text`.
        content: the hash of these texts.
        tokenizer: a fast one.
        block: tokens of a block.
        cache: folder that keeps the result, under a name made of texts, tokenizer and block.

    Returns:
        Rows of `input_ids`, memory-mapped, as numpy arrays.

    Raises:
        DataError: if the texts do not fill one block.
    """
    key = hashlib.sha256(f"{content}/{_serialized(tokenizer)}/{block}".encode()).hexdigest()[:32]
    folder = cache / key
    built_once(folder, lambda target: _build(texts, tokenizer, block, target / "blocks.arrow"))
    return Dataset.from_file(str(folder / "blocks.arrow")).with_format("numpy")


def continuations(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.bool_]:
    """Tell for each token whether it goes on with the word before it, [vocabulary]."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids)
    opens = next((sign for sign in (SPACE, "Ġ") if any(token.startswith(sign) for token in tokens)), None)
    goes_on = [not token.startswith(opens) if opens else token.startswith(CONTINUES) for token in tokens]
    return np.array([each and index not in special for index, each in enumerate(goes_on)])


def _serialized(tokenizer: PreTrainedTokenizerBase) -> str:
    serialized: str = tokenizer.backend_tokenizer.to_str()
    return f"{serialized}/{tokenizer.cls_token_id}/{tokenizer.sep_token_id}"


def _build(texts: Dataset, tokenizer: PreTrainedTokenizerBase, block: int, path: Path) -> None:
    kind = pa.uint16() if len(tokenizer) <= 2**16 else pa.int32()
    schema = pa.schema([("input_ids", pa.list_(kind, block))])
    tokens = rows = 0
    with pa.ipc.new_stream(str(path), schema) as stream:
        for part, count in _packed(texts, tokenizer, block):
            tokens += count
            rows += len(part)
            ids = pa.array(part.ravel().astype(kind.to_pandas_dtype()), kind)
            column = pa.FixedSizeListArray.from_arrays(ids, block)
            stream.write_batch(pa.record_batch([column], schema=schema))
    if not rows:
        raise DataError(f"the texts hold {tokens} tokens, fewer than one block of {block}")
    logger.info("tokenized %s tokens into %s blocks of %d", f"{tokens:,}", f"{rows:,}", block)


def _packed(texts: Dataset, tokenizer: PreTrainedTokenizerBase, block: int) -> Iterator[tuple[Ids, int]]:
    """Yield full blocks, [blocks, block], and how many tokens were read for them; the rest at the end is dropped."""
    rest: Ids = np.zeros(0, dtype=np.int64)
    for read in _streams(texts, tokenizer, BLOCKS_PER_WRITE * (block - 1)):
        stream = np.concatenate([rest, read])
        count = len(stream) // (block - 1)
        body = stream[: count * (block - 1)].reshape(count, block - 1)
        rest = stream[count * (block - 1) :]
        yield np.hstack([np.full((count, 1), tokenizer.cls_token_id), body]), len(read)


def _streams(texts: Dataset, tokenizer: PreTrainedTokenizerBase, enough: int) -> Iterator[Ids]:
    """Yield token ids, each text closed by the separator, in pieces of about `enough` tokens."""
    waiting: list[int] = []
    with _all_cores():
        for batch in texts.select_columns(["text"]).iter(TEXTS_PER_CALL):
            for encoding in tokenizer.backend_tokenizer.encode_batch_fast(batch["text"], add_special_tokens=False):
                waiting += encoding.ids
                waiting.append(tokenizer.sep_token_id)
            if len(waiting) >= enough:
                yield np.array(waiting)
                waiting = []
    if waiting:
        yield np.array(waiting)


@contextmanager
def _all_cores() -> Iterator[None]:
    """Let the tokenizer use every core for a while; elsewhere it stays off, for the sake of processes that fork."""
    before = os.environ.get(PARALLELISM)
    os.environ[PARALLELISM] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[PARALLELISM]
        else:
            os.environ[PARALLELISM] = before
