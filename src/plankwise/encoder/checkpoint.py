"""Loading and saving checkpoints: local folders or Hub ids in, Transformers folders out.

A folder whose layers have sizes that a plain configuration cannot hold is guarded: in its `config.json` the model type
and the number of layers are a sentence that names `plankwise.load`, and what they replace stands beside the sizes.
Transformers refuses such a file by that very sentence before it looks at a weight: its Auto classes for the type, the
others for the number. With `ignore_mismatched_sizes=True` it would otherwise start full-sized layers at random.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from plankwise.core.errors import ModelError
from plankwise.core.files import whole_folder, write_json
from plankwise.core.hub import looks_like_path, where_to_read
from plankwise.core.places import check_files_of
from plankwise.core.progress import quiet_loading
from plankwise.encoder.anatomy import KIND, anatomy_of
from plankwise.encoder.configuration import depth_key
from plankwise.encoder.quantized import quantized_of
from plankwise.encoder.shapes import KEY, check_shapes, is_plain, new_model
from plankwise.encoder.stored_reading import stored_reading

PROBLEM_TYPES = {"single_label": "single_label_classification", "multi_label": "multi_label_classification"}
GUARD = "layers of their own sizes: load this folder by plankwise.load"
WEIGHTS = "model.safetensors"
_GUARDED = (KIND, "layer_types")  # the second is checked against the depth, by tokenizers' loading too
_FAULTS = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError)


@quiet_loading()
def load_config(source: str) -> PreTrainedConfig:
    """Read a configuration and make sure that the architecture is a supported encoder.

    Raises:
        ModelError: if there is none, or it is a decoder or unknown.
    """
    if looks_like_path(source) and not Path(source).is_dir():
        raise ModelError(f"there is no model folder {source}")
    place = where_to_read(source)
    try:
        check_files_of(Path(place))
        stored, _ = PreTrainedConfig.get_config_dict(place)
        config = _unguarded(stored) if stored.get(KEY) else AutoConfig.from_pretrained(place)
    except (*_FAULTS, TypeError, AttributeError) as error:
        raise ModelError(f"cannot read a model configuration from {source}: {_first_line(error)}") from None
    anatomy_of(config)
    check_shapes(config)
    quantized_of(config)  # it raises where it cannot be read, as does the next
    stored_reading(config, source)
    return config


def load(source: str | Path) -> PreTrainedModel:
    """Load a model that plankwise made, whatever the sizes of its layers, with the head it was saved with, in fp32.

    Args:
        source: a local folder or a Hub id. Plain checkpoints of supported architectures load as well.

    Raises:
        ModelError: if the checkpoint is unreadable, incomplete or of an unsupported architecture.
    """
    config = load_config(str(source))
    named = config.architectures if isinstance(config.architectures, list) else []
    kind = getattr(transformers, str(named[0]), None) if named else None
    if not isinstance(kind, type) or getattr(kind, "config_class", None) is not type(config):
        raise ModelError(f"the configuration of {source} does not name the class of its model under architectures")
    return _load(kind, str(source), config, head_is_new=False).eval()


def load_classifier(source: str, labels: Sequence[str], kind: str = "single_label") -> PreTrainedModel:
    """Load an encoder in fp32 with a classification head for `labels`.

    A head of another size is replaced by a random one, drawn from the current torch seed. A missing encoder weight is
    an error, never a random start.

    Raises:
        ModelError: if the checkpoint is unreadable, incomplete or of an unsupported architecture.
    """
    config = load_config(source)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = PROBLEM_TYPES[kind]
    return _load(AutoModelForSequenceClassification, source, config, ignore_mismatched_sizes=True)


def load_masked_lm(source: str, head_is_new: bool = True) -> PreTrainedModel:
    """Load an encoder in fp32 with its masked-LM head.

    A checkpoint without that head gets a random one if `head_is_new` allows it.
    """
    return _load(AutoModelForMaskedLM, source, load_config(source), head_is_new=head_is_new)


def load_trained(folder: str) -> PreTrainedModel:
    """Load a fine-tuned classifier exactly as it was saved; nothing may be missing or differ in shape."""
    model = _load(AutoModelForSequenceClassification, folder, load_config(folder), head_is_new=False)
    return model.eval()


@quiet_loading()
def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer.

    Raises:
        ModelError: if there is none.
    """
    place = where_to_read(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
    except (*_FAULTS, TypeError, ImportError) as error:
        raise ModelError(f"cannot read a tokenizer from {source}: {_first_line(error)}") from None
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path | str) -> None:
    """Save a model with its tokenizer as one folder, in one step.

    It is a plain Transformers folder wherever a plain configuration can hold the model, else one for `load`.
    """
    with whole_folder(Path(folder)) as temporary:
        write_model(model, tokenizer, temporary)


@quiet_loading()
def write_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
    """Write a model with its tokenizer into a folder that exists."""
    model.save_pretrained(folder)
    if not is_plain(model.config):
        _guard(folder / "config.json", model.config)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _guard(path: Path, config: PreTrainedConfig) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    name = depth_key(config)
    hidden = {key: stored[key] for key in (*_GUARDED, name) if key in stored}
    stored[KEY] = {**stored[KEY], "hidden": [[key, value] for key, value in hidden.items()]}
    kept = {key: value for key, value in stored.items() if key not in hidden}
    write_json(path, {**kept, KIND: GUARD, name: GUARD})


def _unguarded(stored: dict[str, Any]) -> PreTrainedConfig:
    if not isinstance(stored[KEY], dict):
        raise ValueError(f"'{KEY}' is no mapping: {str(stored[KEY])[:60]}")
    own = dict(stored[KEY])
    hidden = own.pop("hidden", [])
    if not isinstance(hidden, list) or not all(isinstance(each, list) and len(each) == 2 for each in hidden):
        raise ValueError(f"'{KEY}' hides no pairs of key and value: {str(hidden)[:60]}")
    restored = {**stored, **dict(hidden), KEY: own}
    lost = [name for name, value in restored.items() if value == GUARD]
    if lost:
        raise ValueError(f"'{KEY}' does not say what {lost[0]} was before it was guarded")
    return type(AutoConfig.for_model(restored[KIND])).from_dict(restored)


@quiet_loading()
def _load(
    factory: Any, source: str, config: PreTrainedConfig, head_is_new: bool = True, **options: Any
) -> PreTrainedModel:
    place = where_to_read(source)
    try:
        if is_plain(config):
            model, report = factory.from_pretrained(
                place, config=config, dtype=torch.float32, output_loading_info=True, **options
            )
            lost = [*report["missing_keys"], *(each[0] for each in report["mismatched_keys"])]
        else:
            kind = factory._model_mapping[type(config)] if hasattr(factory, "_model_mapping") else factory
            model, lost = _load_shaped(kind, place, config)
    except _FAULTS as error:
        raise ModelError(f"cannot load the weights of {source}: {_first_line(error)}") from None
    assert isinstance(model, PreTrainedModel)
    prefix = model.base_model_prefix + "."
    if head_is_new:
        lost = [name for name in lost if name.startswith(prefix) and ".pooler." not in name]
    if lost:
        lost.sort()
        raise ModelError(f"the weights of {source} lack or misfit {lost[0]} and {len(lost) - 1} more")
    return model


def _load_shaped(
    kind: type[PreTrainedModel], source: str, config: PreTrainedConfig
) -> tuple[PreTrainedModel, list[str]]:
    """Rebuild a model with layers of their own sizes and load what fits; also name the weights that were not there."""
    model = new_model(kind, config).float()
    own = model.state_dict()
    stored = load_file(str(cached_file(source, WEIGHTS)))
    prefix = model.base_model_prefix + "."
    if kind is not type(model.base_model) and not any(name.startswith(prefix) for name in stored):
        stored = {prefix + name: value for name, value in stored.items()}  # an encoder that was saved without a head
    fitting = {name: value for name, value in stored.items() if name in own and _fits(value, own[name])}
    model.load_state_dict(fitting, strict=False)
    loaded = {own[name].data_ptr() for name in fitting if own[name].numel()}
    return model.eval(), [name for name in own if name not in fitting and own[name].data_ptr() not in loaded]


def _fits(stored: Tensor, own: Tensor) -> bool:
    """Tell whether a stored tensor can be a model's own; int8 steps are no weights, nor weights steps."""
    return stored.shape == own.shape and stored.is_floating_point() == own.is_floating_point()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines[0] += f" {lines[1]}"
    return lines[0][:200] if lines else type(error).__name__
