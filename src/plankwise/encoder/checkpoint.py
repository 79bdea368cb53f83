"""Loading and saving checkpoints: local folders or Hub ids in, Transformers folders out.

A folder whose layers have sizes that a plain configuration cannot hold is guarded: in its `config.json` the model type
and the number of layers are a sentence that names `plankwise.load`, and what they replace stands beside the sizes.
Transformers refuses such a file by that very sentence before it looks at a weight: its Auto classes for the type, the
others for the number. With `ignore_mismatched_sizes=True` it would otherwise start full-sized layers at random.
"""

from __future__ import annotations

import copy
import json
import logging
import pickle  # only for its error: nothing here unpickles
import warnings
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
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from plankwise.core.errors import ModelError
from plankwise.core.files import atomic_folder, write_json
from plankwise.core.hub import looks_like_path, where_to_read
from plankwise.core.paths import check_files_of
from plankwise.core.progress import quiet_loading
from plankwise.encoder.anatomy import KIND, anatomy_of
from plankwise.encoder.classifier_head import check_classifier, settle_head
from plankwise.encoder.configuration import depth_key
from plankwise.encoder.quantized import quantized_of
from plankwise.encoder.shapes import KEY, check_shapes, is_plain, new_model
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.encoder.unsupported import check_foreign, check_stored_types, settle_attention

logger = logging.getLogger(__name__)
PROBLEM_TYPES = {"single_label": "single_label_classification", "multi_label": "multi_label_classification"}
GUARD = "layers of their own sizes: load this folder by plankwise.load"
WEIGHTS = "model.safetensors"
_GUARDED = (KIND, "layer_types")  # the second is checked against the depth, by tokenizers' loading too
_COUNTED = ("position_ids", "token_type_ids", "inv_freq")  # buffers that older versions saved
_UNSAFE = (
    "a pickle that torch's weights-only reader refuses: it is damaged, or runs code when it is loaded; "
    "allowed: model.safetensors, or a .bin file of tensors alone"
)
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
        check_foreign(stored, place)
        config = _unguarded(stored) if stored.get(KEY) else AutoConfig.from_pretrained(place, trust_remote_code=False)
    except (*_FAULTS, TypeError, AttributeError) as error:
        raise ModelError(f"cannot read a model configuration from {source}: {first_line(error)}") from None
    settle_attention(config, source)
    anatomy_of(config)
    check_shapes(config)
    quantized_of(config)  # it raises where it cannot be read, as does the next
    stored_truncation(config, source)
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
    return _load(kind, str(source), config, head_is_new=False)[0].eval()


def load_classifier(source: str, labels: Sequence[str], kind: str = "single_label") -> PreTrainedModel:
    """Load an encoder in fp32 with a classification head for `labels`.

    A head that was trained for the same labels is kept, its labels matched by name; any other is replaced by a random
    one, drawn from the current torch seed, and that is said. A missing encoder weight is an error, never random.

    Raises:
        ModelError: if the checkpoint is unreadable, incomplete or of an unsupported architecture.
    """
    stored = load_config(source)
    config = copy.deepcopy(stored)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = PROBLEM_TYPES[kind]
    model, lost = _load(AutoModelForSequenceClassification, source, config, ignore_mismatched_sizes=True)
    settle_head(model, stored, source, lost)
    return model


def load_masked_lm(source: str, head_is_new: bool = True) -> PreTrainedModel:
    """Load an encoder in fp32 with its masked-LM head.

    A checkpoint without that head gets a random one if `head_is_new` allows it.
    """
    return _load(AutoModelForMaskedLM, source, load_config(source), head_is_new=head_is_new)[0]


def load_trained(folder: str) -> PreTrainedModel:
    """Load a fine-tuned classifier exactly as it was saved; nothing may be missing or differ in shape.

    Raises:
        ModelError: if it cannot be loaded so, or does not choose among labels.
    """
    config = load_config(folder)
    check_classifier(config, folder)
    return _load(AutoModelForSequenceClassification, folder, config, head_is_new=False)[0].eval()


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path | str) -> None:
    """Save a model with its tokenizer as one folder, in one step.

    It is a plain Transformers folder wherever a plain configuration can hold the model, else one for `load`.
    """
    with atomic_folder(Path(folder)) as temporary:
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
) -> tuple[PreTrainedModel, list[str]]:
    """Load a model; also name its parameters that the source does not have in their size, and that are random now."""
    place = where_to_read(source)
    try:
        if is_plain(config):
            check_stored_types(place)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected pickle protocol")  # it is read, or refused below
                model, report = factory.from_pretrained(
                    place, config=config, dtype=torch.float32, output_loading_info=True, **options
                )
            lost = [*report["missing_keys"], *(each[0] for each in report["mismatched_keys"])]
            unused = list(report["unexpected_keys"])
        else:
            kind = factory._model_mapping[type(config)] if hasattr(factory, "_model_mapping") else factory
            model, lost, unused = _load_shaped(kind, place, config)
    except ModelError:
        raise
    except pickle.UnpicklingError:
        raise ModelError(f"the weights of {source} are {_UNSAFE}") from None
    except Exception as error:  # of a damaged file, the libraries beneath raise nearly every kind
        raise ModelError(f"cannot load the weights of {source}: {first_line(error)}") from None
    assert isinstance(model, PreTrainedModel)
    prefix = model.base_model_prefix + "."
    needed = [name for name in lost if not head_is_new or (name.startswith(prefix) and ".pooler." not in name)]
    if needed:
        needed.sort()
        raise ModelError(f"the weights of {source} lack or misfit {needed[0]} and {len(needed) - 1} more")
    _check_unused(model, unused, source)
    return model, lost


def _check_unused(model: PreTrainedModel, unused: list[str], source: str) -> None:
    """Refuse weights of layers that the model does not have; say what else of an encoder is not used."""
    prefix, layers = model.base_model_prefix + ".", anatomy_of(model.config).layers + "."
    parts = {str(name) for name, _ in model.base_model.named_children()} - {"pooler"}
    inside = sorted(name.removeprefix(prefix) for name in unused)
    inside = [each for each in inside if each.partition(".")[0] in parts and not each.endswith(_COUNTED)]
    over = [each for each in inside if each.startswith(layers)]
    if over:
        raise ModelError(
            f"the weights of {source} hold {over[0]} and {len(over) - 1} more that its configuration has no place for, "
            f"with {depth_key(model.config)} {model.config.num_hidden_layers}; allowed: weights that all have a place"
        )
    if inside:
        logger.warning("%s: %s and %d more weights of its encoder are not used", source, inside[0], len(inside) - 1)


def _load_shaped(
    kind: type[PreTrainedModel], source: str, config: PreTrainedConfig
) -> tuple[PreTrainedModel, list[str], list[str]]:
    """Rebuild a model with layers of their own sizes and load what fits; also name what was missing or not used."""
    model = new_model(kind, config).float()
    own = model.state_dict()
    stored = load_file(str(cached_file(source, WEIGHTS)))
    prefix = model.base_model_prefix + "."
    if kind is not type(model.base_model) and not any(name.startswith(prefix) for name in stored):
        stored = {prefix + name: value for name, value in stored.items()}  # an encoder that was saved without a head
    fitting = {name: value for name, value in stored.items() if name in own and _fits(value, own[name])}
    model.load_state_dict(fitting, strict=False)
    loaded = {own[name].data_ptr() for name in fitting if own[name].numel()}
    lost = [name for name in own if name not in fitting and own[name].data_ptr() not in loaded]
    return model.eval(), lost, [name for name in stored if name not in own]


def _fits(stored: Tensor, own: Tensor) -> bool:
    """Tell whether a stored tensor can be a model's own; int8 steps are no weights, nor weights steps."""
    return stored.shape == own.shape and stored.is_floating_point() == own.is_floating_point()


def first_line(error: BaseException) -> str:
    """Shorten what a library says to one line."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines[0] += f" {lines[1]}"
    return lines[0][:200] if lines else type(error).__name__
