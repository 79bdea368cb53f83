"""Tokenizers of models: loaded once, never invented from special tokens, and checked against their model.

Every command takes its tokenizer from `load_tokenizer`. Callers share the loaded object and must not change it; a
caller that needs another one, such as vocabulary trimming, makes a copy.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    TokenizersBackend,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config, tokenizer_class_from_name
from transformers.utils import cached_file, is_sentencepiece_available

from plankwise.core.errors import ModelError
from plankwise.core.files import read_text, sha256
from plankwise.core.hub import where_to_read
from plankwise.core.progress import quiet_loading
from plankwise.data.corpus.blocks import ids_of
from plankwise.encoder.anatomy import KIND, anatomy_of
from plankwise.encoder.checkpoint import load_config
from plankwise.encoder.unsupported import check_code
from plankwise.encoder.weights import first_line

WHOLE = "tokenizer.json"
_VOCABULARIES = ("vocab.txt", "vocab.json")
_SENTENCE_PIECES = ("sentencepiece.bpe.model", "spm.model", "spiece.model", "tokenizer.model")
TYPES = "token_type_ids"
_FILES = (".json", ".txt", ".model", ".codes", ".jinja")
_OF_MODELS = ("config.json", "generation_config.json", "model.safetensors.index.json", "stage.json")  # no tokenizer's
_SETTINGS = "tokenizer_config.json"
_OF_THE_PLACE = ("is_local", "local_files_only", "name_or_path")  # where a tokenizer was loaded from, saved with it
_CACHED = 4  # tokenizers in memory; one of 250,000 tokens takes about 200 MB
_PROBE = ("a \u0378", "b \U000e01ff")  # unassigned code points, which no vocabulary has


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer of a model. It pads on the right, and its input names are those the model uses.

    Args:
        source: folder or Hub id of the model.

    Returns:
        A shared tokenizer, which must not be changed.

    Raises:
        ModelError: if it is absent, not fast, needs custom code, or produces ids or types that the model lacks.
    """
    config = load_config(str(source))
    place = where_to_read(str(source))
    try:
        tokenizer, ids = _read(_TokenizerFiles(_state(place), _has_types(config), place))
    except ModelError as error:  # a Hub id says more to its user than a path in the Hub's cache
        raise ModelError(str(error).replace(place, str(source))) from None
    check_tokenizer(tokenizer, config, str(source), ids)
    return tokenizer


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder without a model.

    Raises:
        ModelError: as `load_tokenizer`.
    """
    return _read(_TokenizerFiles(_state(str(folder)), True, str(folder)))[0]


def adapted_tokenizer(
    tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, source: str
) -> PreTrainedTokenizerBase:
    """Return a tokenizer for another model than its own: itself, or a copy without token types.

    Args:
        tokenizer: not changed.
        config: of the other model.
        source: folder or Hub id of the other model, for messages.

    Raises:
        ModelError: if it produces ids or types that the other model lacks.
    """
    if TYPES in tokenizer.model_input_names and not _has_types(config):
        tokenizer = copy.deepcopy(tokenizer)
        _leave_types_out(tokenizer)
    check_tokenizer(tokenizer, config, source, ids_of(tokenizer))
    return tokenizer


def _leave_types_out(tokenizer: PreTrainedTokenizerBase) -> None:
    """Remove token types from the inputs: a model with one row of them uses it for all tokens if none are passed."""
    names = [name for name in tokenizer.model_input_names if name != TYPES]
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names


@dataclass(frozen=True)
class _TokenizerFiles:
    """The files of a tokenizer, as the key of the cache: equal ones are read once.

    Attributes:
        state: hash of all files.
        types: whether the model distinguishes token types.
        source: folder or Hub id; not part of the key.
    """

    state: str
    types: bool
    source: str = field(compare=False)


def _state(source: str) -> str:
    """Return a hash of all files of a folder that a tokenizer may need; for a Hub id, the path of its commit."""
    folder = Path(source)
    if not folder.is_dir():
        return str(cached_file(source, "config.json"))
    try:
        files = sorted(each for each in folder.iterdir() if each.suffix in _FILES and each.name not in _OF_MODELS)
        lines = [f"{each.name} {_content(each)}" for each in files if each.is_file()]
        lines += [str(_stored_config(source).get(key)) for key in (KIND, "tokenizer_class")]
    except OSError as error:
        raise ModelError(f"cannot read a tokenizer from {source}: {error.strerror or error}") from None
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _content(file: Path) -> str:
    """Return a hash of a file; of settings that a stage has saved again, the same as of those that it has loaded."""
    if file.name != _SETTINGS:
        return sha256(file)
    try:
        stored = json.loads(read_text(file))
        return json.dumps({key: stored[key] for key in sorted(stored) if key not in _OF_THE_PLACE}, sort_keys=True)
    except (ValueError, TypeError):  # damaged: whoever reads it says so
        return sha256(file)


def _stored_config(source: str) -> dict[str, Any]:
    stored, _ = PreTrainedConfig.get_config_dict(source, _raise_exceptions_for_missing_entries=False)
    return dict(stored or {})


@functools.lru_cache(maxsize=_CACHED)
@quiet_loading()
def _read(place: _TokenizerFiles) -> tuple[PreTrainedTokenizerBase, int]:
    """Read a tokenizer; also return the number of its ids."""
    source = place.source
    try:
        stored = get_tokenizer_config(source)
        _check_fast(stored, source)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except ModelError:
        raise
    except Exception as error:  # the libraries raise many kinds, among them `Exception` itself
        if not any(_holds(source, name) for name in (WHOLE, *_VOCABULARIES, *_SENTENCE_PIECES)):
            raise ModelError(_not_there(source, [])) from None
        raise ModelError(f"cannot read a tokenizer from {source}: {_reason(error, source)}") from None
    _check_held(tokenizer, source)
    if not tokenizer.is_fast:
        raise ModelError(_not_fast(type(tokenizer).__name__, source))
    tokenizer.padding_side = "right"  # absolute positions are counted from the left
    if not place.types:
        _leave_types_out(tokenizer)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer, ids_of(tokenizer)


def _check_fast(stored: dict[str, Any], source: str) -> None:
    """Refuse custom code and tokenizers written in Python, before the packages of such a tokenizer are missed."""
    check_code(stored, source, "tokenizer")
    name = stored.get("tokenizer_class") or _stored_config(source).get("tokenizer_class")
    kind = tokenizer_class_from_name(str(name)) if name else None
    if kind is not None and kind.__name__ != "PythonBackend" and not issubclass(kind, TokenizersBackend):
        raise ModelError(_not_fast(kind.__name__, source))


def _not_fast(name: str, source: str) -> str:
    return (
        f"the tokenizer of {source} is a {name}, which has no fast version: prediction and export cannot run it; "
        f"allowed: fast tokenizers, which {WHOLE} holds. Take a model that has one, such as xlm-roberta-base"
    )


def _check_held(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Refuse a tokenizer that Transformers invented from special tokens because its files are absent."""
    needed = [name for key, name in type(tokenizer).vocab_files_names.items() if key != "tokenizer_file"]
    other = tokenizer.init_kwargs.get("vocab_file")  # a vocabulary under a name that the class does not list
    versions = get_tokenizer_config(source).get("fast_tokenizer_files") or []
    if any(_holds(source, name) for name in (WHOLE, *versions)) or (other and Path(other).is_file()):
        return
    lacking = [name for name in needed if not _holds(source, name)]
    if lacking or not needed:
        raise ModelError(_not_there(source, lacking))


def _not_there(source: str, lacking: list[str]) -> str:
    also = f" nor {' and '.join(lacking)}" if lacking else ""
    return (
        f"{source} has no tokenizer, {'neither' if lacking else 'no'} {WHOLE}{also}; "
        "copy the files of the tokenizer that the model was trained with into its folder"
    )


def _holds(source: str, name: str) -> bool:
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    return cached_file(source, name, **quiet) is not None


def _reason(error: Exception, source: str) -> str:
    if not is_sentencepiece_available() and any(_holds(source, name) for name in _SENTENCE_PIECES):
        return "it is a SentencePiece model; to convert it, pip install 'plankwise[sentencepiece]'"
    return first_line(error)


def _has_types(config: PreTrainedConfig) -> bool:
    """Return whether a model distinguishes token types: it takes them and has more than one row for them."""
    kind = AutoModelForSequenceClassification._model_mapping[type(config)]
    return TYPES in inspect.signature(kind.forward).parameters and _type_rows(config) > 1


def _type_rows(config: PreTrainedConfig) -> int:
    return int(getattr(config, "type_vocab_size", None) or 0)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, source: str, ids: int) -> None:
    """Refuse a tokenizer that produces ids or types for which a model has no embeddings.

    Args:
        tokenizer: a fast one.
        config: of the model.
        source: folder or Hub id of the tokenizer, for messages.
        ids: number of token ids of the tokenizer.

    Raises:
        ModelError: naming both sizes.
    """
    rows = int(config.vocab_size)
    if ids > rows:
        raise ModelError(f"the tokenizer of {source} has {ids} token ids, its model {rows} embeddings; they do not fit")
    try:
        probed = [tokenizer.backend_tokenizer.encode(*texts) for texts in (_PROBE[:1], _PROBE)]
    except Exception as error:  # the library raises no narrower kind
        raise ModelError(f"the tokenizer of {source} cannot read unknown characters: {first_line(error)}") from None
    highest = max((each for encoding in probed for each in encoding.ids), default=0)
    if highest >= rows:
        raise ModelError(f"the tokenizer of {source} adds the token id {highest}, its model has {rows} embeddings")
    types = max((each for encoding in probed for each in encoding.type_ids), default=0)
    if TYPES in tokenizer.model_input_names and types >= _type_rows(config):
        raise ModelError(
            f"the tokenizer of {source} has the token type {types}, its model has {_type_rows(config)} types"
        )
    pad, counted = tokenizer.pad_token_id, config.pad_token_id
    if anatomy_of(config).positions_follow_padding and None not in (pad, counted) and pad != counted:
        raise ModelError(
            f"the tokenizer of {source} pads with the id {pad}, its model counts positions from pad_token_id {counted} "
            "on: some tokens would have no position of their own; allowed: the same id in both"
        )
