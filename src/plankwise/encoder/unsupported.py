"""Features of other tools' folders that plankwise does not support: quantized weights, custom code, FlashAttention.

Each is refused with advice, or replaced with a warning. Nothing is ignored silently.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from safetensors import safe_open
from transformers import PreTrainedConfig
from transformers.utils import cached_file

from plankwise.core.errors import ModelError

logger = logging.getLogger(__name__)
_QUANTIZED_KEYS = ("quantization_config", "compression_config")
_QUANTIZED_FILES = ("quantize_config.json", "quant_config.json", "quanto_qmap.json", "quantization_map.json")
_ATTENTION = ("eager", "sdpa")
_FLOATS = ("F64", "F32", "F16", "BF16")
_WEIGHTS = "model.safetensors"
_NATIVE = {"NewConfig": "gte", "XLMRobertaFlashConfig": "jina_embeddings_v3"}  # what Transformers has by now


def check_foreign(stored: Mapping[str, Any], source: str) -> None:
    """Refuse a stored configuration of weights that another tool quantized, or of a model with custom code.

    Args:
        stored: contents of the configuration file.
        source: folder or Hub id.

    Raises:
        ModelError: with what can be done.
    """
    entry = next((stored[key] for key in _QUANTIZED_KEYS if stored.get(key)), None)
    beside = [name for name in _QUANTIZED_FILES if (Path(source) / name).is_file()]
    if entry is not None or beside:
        by = entry.get("quant_method") if isinstance(entry, Mapping) else None
        raise ModelError(
            f"the weights of {source} were quantized by {by or 'another tool'} "
            f"({'quantization_config' if entry is not None else beside[0]}); allowed: floating-point weights. Take the "
            "model that they were made of; plankwise quantizes by a step 'quantization', or by export --precision int8"
        )
    check_code(stored, source, "model")


def check_code(stored: Mapping[str, Any], source: str, what: str) -> None:
    """Refuse a model or tokenizer that needs code from its folder, unless Transformers has its class by now.

    Args:
        stored: contents of its configuration file.
        source: folder or Hub id.
        what: `model` or `tokenizer`, for the message.

    Raises:
        ModelError: if its class is not part of Transformers.
    """
    mapped = stored.get("auto_map")
    named = list(mapped.values()) if isinstance(mapped, Mapping) else [mapped]
    flat = [part for each in named for part in (each if isinstance(each, list | tuple) else [each]) if part]
    classes = [str(each).rpartition(".")[2] for each in flat]
    unknown = [name for name in classes if not hasattr(transformers, name)]
    if unknown:
        raise ModelError(
            f"the {what} of {source} needs code of its own ('auto_map' names {unknown[0][:60]}), which plankwise does "
            f"not run; allowed: a {what} that Transformers holds itself{_converted(classes)}"
        )


def _converted(classes: Sequence[str]) -> str:
    native = next((_NATIVE[name] for name in classes if name in _NATIVE), None)
    return "" if native is None else f", such as the same one converted to its architecture '{native}'"


def replace_attention(config: PreTrainedConfig, source: str) -> None:
    """Replace an unsupported attention implementation in a configuration by the default, in place, with a warning."""
    requested = config._attn_implementation
    if requested is not None and requested not in _ATTENTION:
        _warn_once(
            f"{source} requests the attention '{requested}'; the default of Transformers, sdpa or eager, is used"
        )
        config._attn_implementation = None


@functools.cache
def _warn_once(line: str) -> None:  # a configuration is read many times
    logger.warning("%s", line)


def check_stored_types(source: str) -> None:
    """Refuse weights of integers or 8-bit floats, for which only the tool that made them knows the scale.

    Only a single `.safetensors` file has its types in the header; other formats are not checked.

    Raises:
        ModelError: naming the first such weight.
    """
    found = cached_file(
        source, _WEIGHTS, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if found is None:
        return
    with safe_open(found, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118, it is not a mapping
            kind = file.get_slice(name).get_dtype()
            if name.endswith((".weight", ".bias")) and kind not in _FLOATS:
                raise ModelError(f"{source}: {name} is quantized, to {kind}; allowed: floating-point weights")
