"""What folders of other tools ask for and plankwise does not do: quantized weights, own code, FlashAttention.

Each is one line that says what to do, or is put right and said; none of it is passed over in silence.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
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


def check_foreign(stored: Mapping[str, Any], source: str) -> None:
    """Refuse a stored configuration of weights that another tool quantized, or of a model with code of its own.

    Raises:
        ModelError: saying what can be done.
    """
    told = next((stored[key] for key in _QUANTIZED_KEYS if stored.get(key)), None)
    beside = [name for name in _QUANTIZED_FILES if (Path(source) / name).is_file()]
    if told is not None or beside:
        by = told.get("quant_method") if isinstance(told, Mapping) else None
        raise ModelError(
            f"the weights of {source} were quantized by {by or 'another tool'} "
            f"({'quantization_config' if told is not None else beside[0]}); allowed: floating-point weights. Take the "
            "model that they were made of; plankwise quantizes by a step 'quantization', or by export --precision int8"
        )
    check_code(stored, source, "model")


def check_code(stored: Mapping[str, Any], source: str, what: str) -> None:
    """Refuse a model or tokenizer that needs code from its own folder; Transformers may have its class by now.

    Args:
        stored: what its configuration file holds.
        source: the folder or Hub id.
        what: of both.

    Raises:
        ModelError: if its class is not one of Transformers.
    """
    mapped = stored.get("auto_map")
    named = list(mapped.values()) if isinstance(mapped, Mapping) else [mapped]
    flat = [part for each in named for part in (each if isinstance(each, list | tuple) else [each]) if part]
    classes = [str(each).rpartition(".")[2] for each in flat]
    unknown = [name for name in classes if not hasattr(transformers, name)]
    if unknown:
        raise ModelError(
            f"the {what} of {source} needs code of its own ('auto_map' names {unknown[0][:60]}), which plankwise does "
            f"not run; allowed: a {what} that Transformers holds itself"
        )


def settle_attention(config: PreTrainedConfig, source: str) -> None:
    """Let a configuration that asks for an attention which is not there have Transformers' own choice, and say so."""
    asked = config._attn_implementation
    if asked is not None and asked not in _ATTENTION:
        _say_once(f"{source} asks for the attention '{asked}'; Transformers' own choice, sdpa or eager, is used")
        config._attn_implementation = None


@functools.cache
def _say_once(line: str) -> None:  # a configuration is read many times
    logger.warning("%s", line)


def check_stored_types(source: str) -> None:
    """Refuse weights of whole numbers or of 8-bit floats: without the tool that made them their scale is not known.

    Only a single `.safetensors` file tells this without reading the weights.

    Raises:
        ModelError: naming the first of them.
    """
    found = cached_file(
        source, _WEIGHTS, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if found is None:
        return
    with safe_open(found, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118, it is no mapping
            kind = file.get_slice(name).get_dtype()
            if name.endswith((".weight", ".bias")) and kind not in _FLOATS:
                raise ModelError(f"{source}: {name} is quantized, to {kind}; allowed: floating-point weights")
