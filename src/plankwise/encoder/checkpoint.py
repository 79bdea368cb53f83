"""Loading and saving checkpoints: local folders or Hub ids in, Transformers folders out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from plankwise.core.errors import ModelError
from plankwise.core.files import atomic_folder
from plankwise.core.hub import looks_like_path, where_to_read
from plankwise.core.paths import MANIFEST, check_files_of
from plankwise.core.progress import quiet_loading
from plankwise.encoder.anatomy import anatomy_of
from plankwise.encoder.classifier_head import PROBLEM_TYPES, check_answers, head_order, match_head, put_in_order
from plankwise.encoder.guard import guard_config, unguarded_config
from plankwise.encoder.quantized import quantized_of
from plankwise.encoder.score_head import make_regressor
from plankwise.encoder.shapes import KEY, check_shapes, is_plain
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.encoder.unsupported import check_foreign, replace_attention
from plankwise.encoder.weights import WEIGHTS, first_line, load_weights

logger = logging.getLogger(__name__)
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
    if (Path(place) / MANIFEST).is_file() and not (Path(place) / WEIGHTS).is_file():
        raise ModelError(f"{source} is an artefact, for prediction; allowed: the model that it was exported from")
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
    return load_weights(kind, str(source), config, head_is_new=False)[0].eval()


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
    model, lost = load_weights(AutoModelForSequenceClassification, source, config, ignore_mismatched_sizes=True)
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


def load_scorer(source: str) -> PreTrainedModel:
    """Load an encoder in fp32 with a head of one output, a score as it is; one that is there is kept.

    Args:
        source: a local folder or a Hub id.

    Raises:
        ModelError: as `load_classifier`.
    """
    stored = load_config(source)
    config = copy.deepcopy(stored)
    make_regressor(config)
    model, lost = load_weights(AutoModelForSequenceClassification, source, config, ignore_mismatched_sizes=True)
    match_head(model, stored, source, lost)
    return model


def load_masked_lm(source: str, head_is_new: bool = True) -> PreTrainedModel:
    """Load an encoder in fp32 with its masked-LM head.

    Args:
        source: a local folder or a Hub id.
        head_is_new: whether a checkpoint without such a head gets a random one.

    Raises:
        ModelError: if the checkpoint is unreadable, incomplete or of an unsupported architecture.
    """
    return load_weights(AutoModelForMaskedLM, source, load_config(source), head_is_new=head_is_new)[0]


def load_trained(folder: str) -> PreTrainedModel:
    """Load a fine-tuned classifier or scorer exactly as it was saved.

    Raises:
        ModelError: if a weight is missing or has another shape, or the model is neither.
    """
    config = load_config(folder)
    check_answers(config, folder)
    return load_weights(AutoModelForSequenceClassification, folder, config, head_is_new=False)[0].eval()


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
    # By the names that its modules have: Transformers would turn those of newer architectures back into older ones.
    model.save_pretrained(folder, save_original_format=False)
    if not is_plain(model.config):
        guard_config(folder / "config.json", model.config)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
