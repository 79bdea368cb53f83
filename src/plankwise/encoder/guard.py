"""Guarded configurations: plain Transformers refuses a folder that only plankwise can load.

A folder with layer sizes that a plain configuration cannot hold is guarded: in its `config.json`, the model type and
the number of layers are a sentence that names `plankwise.load`, and their values are stored beside the sizes.
Transformers then fails with that sentence before it reads a weight: its Auto classes on the type, all others on the
number. Without the guard, `ignore_mismatched_sizes=True` would silently initialize full-sized layers at random.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from plankwise.core.files import write_json
from plankwise.encoder.anatomy import KIND
from plankwise.encoder.configuration import depth_key
from plankwise.encoder.shapes import KEY

GUARD = "layers of their own sizes: load this folder by plankwise.load"
_GUARDED = (KIND, "layer_types")  # Transformers checks the second against the depth, for tokenizers as well


def guard_config(path: Path, config: PreTrainedConfig) -> None:
    """Guard a saved configuration, in place.

    Args:
        path: of `config.json`.
        config: that was saved there.
    """
    stored = json.loads(path.read_text(encoding="utf-8"))
    name = depth_key(config)
    hidden = {key: stored[key] for key in (*_GUARDED, name) if key in stored}
    stored[KEY] = {**stored[KEY], "hidden": [[key, value] for key, value in hidden.items()]}
    kept = {key: value for key, value in stored.items() if key not in hidden}
    write_json(path, {**kept, KIND: GUARD, name: GUARD})


def unguarded_config(stored: dict[str, Any]) -> PreTrainedConfig:
    """Return the configuration that was guarded.

    Args:
        stored: contents of `config.json`, which may have been edited by hand.

    Raises:
        ValueError: if they do not hold the values that were guarded.
    """
    if not isinstance(stored[KEY], dict):
        raise ValueError(f"'{KEY}' is not a mapping: {str(stored[KEY])[:60]}")
    own = dict(stored[KEY])
    hidden = own.pop("hidden", [])
    if not isinstance(hidden, list) or not all(isinstance(each, list) and len(each) == 2 for each in hidden):
        raise ValueError(f"'{KEY}' hides no pairs of key and value: {str(hidden)[:60]}")
    restored = {**stored, **dict(hidden), KEY: own}
    lost = [name for name, value in restored.items() if value == GUARD]
    if lost:
        raise ValueError(f"'{KEY}' does not say what {lost[0]} was before it was guarded")
    return type(AutoConfig.for_model(restored[KIND])).from_dict(restored)
