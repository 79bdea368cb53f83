"""Loading and saving checkpoints: local folders or Hub ids in, plain Transformers folders out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from plankwise.core.errors import ModelError
from plankwise.core.files import whole_folder
from plankwise.encoder.anatomy import anatomy_of

PROBLEM_TYPES = {"single_label": "single_label_classification", "multi_label": "multi_label_classification"}
_FAULTS = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)


def load_config(source: str) -> PreTrainedConfig:
    """Read a configuration and make sure that the architecture is a supported encoder.

    Raises:
        ModelError: if there is none, or it is a decoder or unknown.
    """
    if _looks_like_path(source) and not Path(source).is_dir():
        raise ModelError(f"there is no model folder {source}")
    try:
        config = AutoConfig.from_pretrained(source)
    except _FAULTS as error:
        raise ModelError(f"cannot read a model configuration from {source}: {_first_line(error)}") from None
    anatomy_of(config)
    return config


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


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer.

    Raises:
        ModelError: if there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (*_FAULTS, TypeError, ImportError) as error:
        raise ModelError(f"cannot read a tokenizer from {source}: {_first_line(error)}") from None
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
    """Save a model with its tokenizer as a plain Transformers folder, in one step."""
    with whole_folder(folder) as temporary:
        model.save_pretrained(temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)


def _load(
    factory: Any, source: str, config: PreTrainedConfig, head_is_new: bool = True, **options: Any
) -> PreTrainedModel:
    try:
        model, report = factory.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True, **options
        )
    except _FAULTS as error:
        raise ModelError(f"cannot load the weights of {source}: {_first_line(error)}") from None
    assert isinstance(model, PreTrainedModel)
    prefix = model.base_model_prefix + "."
    lost = sorted([*report["missing_keys"], *(each[0] for each in report["mismatched_keys"])])
    if head_is_new:
        lost = [name for name in lost if name.startswith(prefix) and ".pooler." not in name]
    if lost:
        raise ModelError(f"the weights of {source} lack or misfit {lost[0]} and {len(lost) - 1} more")
    return model


def _looks_like_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or Path(source).exists()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
