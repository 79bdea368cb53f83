"""What an artefact has beside its model: tokenizer, `predict.py`, and the files by which other tools read it.

transformers.js, Text Embeddings Inference and sentence-transformers look for `config.json`, `tokenizer_config.json` and
`special_tokens_map.json` beside `tokenizer.json`, and for the model under `onnx/model.onnx`
(`onnx/model_quantized.onnx` in int8) or `openvino/openvino_model.xml`. All state the one limit of length that the
manifest has.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from plankwise.core.files import sha256, write_json
from plankwise.data.batching.inputs import bare_tokenizer
from plankwise.data.truncation import Truncation
from plankwise.deploy import standalone
from plankwise.deploy.manifest import TOKENIZER
from plankwise.encoder.classifier_head import labels_of
from plankwise.encoder.configuration import OWN

CONFIG, TOKENIZER_CONFIG, SPECIAL_TOKENS = "config.json", "tokenizer_config.json", "special_tokens_map.json"
_SIDES = {"head": "right", "tail": "left"}  # on which a text is cut, by the part that is kept


def write_files_beside(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, truncation: Truncation, folder: Path
) -> dict[str, str]:
    """Write all files but the model and the manifest, and return the SHA-256 of every file by its path in the folder.

    Args:
        config: of the model.
        tokenizer: of the model.
        truncation: of the artefact.
        folder: of the artefact; the model is in it.
    """
    bare_tokenizer(tokenizer).save(str(folder / TOKENIZER))
    shutil.copyfile(standalone.__file__, folder / "predict.py")
    _write_standard(config, tokenizer, truncation, folder)
    files = (each for each in sorted(folder.rglob("*")) if each.is_file())
    return {each.relative_to(folder).as_posix(): sha256(each) for each in files}


def _write_standard(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, truncation: Truncation, folder: Path
) -> None:
    """Write configuration, tokenizer settings and special tokens; what only plankwise reads is left out.

    Truncation that other tools cannot express, `head_tail` and windows, they make as `head`.
    """
    write_json(folder / CONFIG, _plain(config))
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        settings: dict[str, Any] = json.loads((Path(scratch) / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    settings |= {
        "model_max_length": truncation.max_length,
        "padding_side": "right",
        "truncation_side": _SIDES.get(truncation.truncation, "right"),
    }
    write_json(folder / TOKENIZER_CONFIG, settings)
    write_json(folder / SPECIAL_TOKENS, tokenizer.special_tokens_map)


def _plain(config: PreTrainedConfig) -> dict[str, Any]:
    labels = labels_of(config)
    named = {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    stored: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {key: value for key, value in stored.items() if not key.startswith(OWN)} | named
