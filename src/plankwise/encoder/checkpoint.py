"""Loading and saving checkpoints: local folders or Hub ids in, Transformers folders out."""

from __future__ import annotations

import copy
import logging
import pickle  # only for its error; nothing here unpickles
import warnings
from collections.abc import Mapping, Sequence
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
from plankwise.core.files import atomic_folder
from plankwise.core.hub import looks_like_path, where_to_read
from plankwise.core.paths import check_files_of
from plankwise.core.progress import quiet_loading
from plankwise.encoder.anatomy import anatomy_of
from plankwise.encoder.classifier_head import PROBLEM_TYPES, check_classifier, head_order, match_head, put_in_order
from plankwise.encoder.configuration import depth_key
from plankwise.encoder.guard import guard_config, unguarded_config
from plankwise.encoder.quantized import quantized_of
from plankwise.encoder.shapes import KEY, check_shapes, is_plain, new_model
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.encoder.unsupported import check_foreign, check_stored_types, replace_attention

logger = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
_COUNTED = ("position_ids", "token_type_ids", "inv_freq")  # buffers that older versions of Transformers saved
_UNSAFE = (
    "a pickle that torch's weights-only reader refuses: it is damaged, or runs code when it is loaded; "
    "allowed: model.safetensors, or a .bin file of tensors alone"
)
_FAULTS = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError)


@quiet_loading()
def load_config(source: str) -> PreTrainedConfig:
    """Load a configuration and check that its architecture is a supported encoder.

    Args:
        source: a local folder or a Hub id.

    Raises:
        ModelError: if there is no configuration, or it is of a decoder or of an unknown architecture.
    """
    if looks_like_path(source) and not Path(source).is_dir():
        raise ModelError(f"there is no model folder {source}")
    place = where_to_read(source)
    try:
        check_files_of(Path(place))
        stored, _ = PreTrainedConfig.get_config_dict(place)
        check_foreign(stored, place)
        config = (
            unguarded_config(stored) if stored.get(KEY) else AutoConfig.from_pretrained(place, trust_remote_code=False)
        )
    except (*_FAULTS, TypeError, AttributeError) as error:
        raise ModelError(f"cannot read a model configuration from {source}: {first_line(error)}") from None
    replace_attention(config, source)
    anatomy_of(config)
    check_shapes(config)
    quantized_of(config)  # this and the next are read only for their errors
    stored_truncation(config, source)
    return config


def load(source: str | Path) -> PreTrainedModel:
    """Load a saved model with its head in fp32, including models with layers of individual sizes.

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

    A head that was trained for the same labels is kept, with its labels matched by name. Any other is replaced by a
    random one from the current torch seed, with a warning. A missing encoder weight is an error, never random.

    Args:
        source: a local folder or a Hub id.
        labels: of the task, in the order of the logits.
        kind: of the task: whether a text has one label or any number of them.

    Raises:
        ModelError: if the checkpoint is unreadable, incomplete or of an unsupported architecture.
    """
    stored = load_config(source)
    config = copy.deepcopy(stored)  # `stored` keeps the labels of the head in the source
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = PROBLEM_TYPES[kind]
    model, lost = _load(AutoModelForSequenceClassification, source, config, ignore_mismatched_sizes=True)
    match_head(model, stored, source, lost)
    return model


def load_fine_tuned(
    source: str, labels: Sequence[str], kind: str = "single_label", names: Mapping[str, str] | None = None
) -> PreTrainedModel:
    """Load a fine-tuned classifier in fp32 as it is, its outputs in the order of `labels`.

    Args:
        source: a local folder or a Hub id.
        labels: of the task, in the order of the logits.
        kind: of the task.
        names: the task's labels by the model's own; others keep their names.

    Raises:
        ModelError: as `load_trained`, and if its labels are not those of the task.
    """
    order = head_order(load_config(source), source, labels, kind, names=names)
    model = load_trained(source)
    put_in_order(model, order, labels)
    model.config.problem_type = PROBLEM_TYPES[kind]
    return model


def load_masked_lm(source: str, head_is_new: bool = True) -> PreTrainedModel:
    """Load an encoder in fp32 with its masked-LM head.

    Args:
        source: a local folder or a Hub id.
        head_is_new: whether a checkpoint without such a head gets a random one.

    Raises:
        ModelError: if the checkpoint is unreadable, incomplete or of an unsupported architecture.
    """
    return _load(AutoModelForMaskedLM, source, load_config(source), head_is_new=head_is_new)[0]


def load_trained(folder: str) -> PreTrainedModel:
    """Load a fine-tuned classifier exactly as it was saved.

    Raises:
        ModelError: if a weight is missing or has another shape, or the model does not choose among labels.
    """
    config = load_config(folder)
    check_classifier(config, folder)
    return _load(AutoModelForSequenceClassification, folder, config, head_is_new=False)[0].eval()


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path | str) -> None:
    """Save a model with its tokenizer atomically as one folder.

    Where a plain configuration can hold the model, it is a plain Transformers folder; otherwise only `load` reads it.

    Raises:
        OutputError: if the folder cannot be written to.
    """
    with atomic_folder(Path(folder)) as temporary:
        write_model(model, tokenizer, temporary)


@quiet_loading()
def write_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
    """Write a model with its tokenizer into a folder that exists."""
    model.save_pretrained(folder)
    if not is_plain(model.config):
        guard_config(folder / "config.json", model.config)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


@quiet_loading()
def _load(
    factory: Any, source: str, config: PreTrainedConfig, head_is_new: bool = True, **options: Any
) -> tuple[PreTrainedModel, list[str]]:
    """Load a model; also return the names of parameters that the source lacks in this size, which are random now."""
    place = where_to_read(source)
    try:
        if is_plain(config):
            check_stored_types(place)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected pickle protocol")  # it is loaded, or refused below
                model, report = factory.from_pretrained(
                    place, config=config, dtype=torch.float32, output_loading_info=True, **options
                )
            lost = [*report["missing_keys"], *(each[0] for each in report["mismatched_keys"])]
            unused = list(report["unexpected_keys"])
        else:
            # An Auto class maps the configuration to a class; `load` passes the class itself.
            kind = factory._model_mapping[type(config)] if hasattr(factory, "_model_mapping") else factory
            model, lost, unused = _load_shaped(kind, place, config)
    except ModelError:
        raise
    except pickle.UnpicklingError:
        raise ModelError(f"the weights of {source} are {_UNSAFE}") from None
    except Exception as error:  # the libraries raise nearly every kind for a damaged file
        raise ModelError(f"cannot load the weights of {source}: {first_line(error)}") from None
    assert isinstance(model, PreTrainedModel)
    prefix = model.base_model_prefix + "."
    # A pooler belongs to the head: masked LMs are saved without one, and BERT's classifier needs it.
    needed = [name for name in lost if not head_is_new or (name.startswith(prefix) and ".pooler." not in name)]
    if needed:
        needed.sort()
        raise ModelError(f"the weights of {source} lack or misfit {needed[0]} and {len(needed) - 1} more")
    _check_unused(model, unused, source)
    return model, lost


def _check_unused(model: PreTrainedModel, unused: list[str], source: str) -> None:
    """Refuse weights of layers that the model does not have; warn of other encoder weights that are not used."""
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
    """Rebuild a model with layers of individual sizes; also return the names of missing and of unused weights.

    Transformers' own loader would build full-sized layers, so the file is read here.
    """
    model = new_model(kind, config).float()
    own = model.state_dict()
    stored = load_file(str(cached_file(source, WEIGHTS)))
    prefix = model.base_model_prefix + "."
    if kind is not type(model.base_model) and not any(name.startswith(prefix) for name in stored):
        stored = {prefix + name: value for name, value in stored.items()}  # an encoder that was saved without a head
    fitting = {name: value for name, value in stored.items() if name in own and _fits(value, own[name])}
    model.load_state_dict(fitting, strict=False)
    # Of tied parameters only one is stored; the other shares its memory. Empty tensors all have the address 0.
    loaded = {own[name].data_ptr() for name in fitting if own[name].numel()}
    lost = [name for name in own if name not in fitting and own[name].data_ptr() not in loaded]
    return model.eval(), lost, [name for name in stored if name not in own]


def _fits(stored: Tensor, own: Tensor) -> bool:
    """Return whether a stored tensor fits: same shape, and both are floats or both integers (steps of int8)."""
    return stored.shape == own.shape and stored.is_floating_point() == own.is_floating_point()


def first_line(error: BaseException) -> str:
    """Return the message of a library's error as one line of at most 200 characters."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines[0] += f" {lines[1]}"
    return lines[0][:200] if lines else type(error).__name__
