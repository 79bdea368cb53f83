"""The teacher: found by its name, checked against the student, frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.errors import MethodError
from plankwise.encoder.checkpoint import load_config
from plankwise.encoder.surgery import frozen_twin
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.distillation.layer_mapping import check_layers

OF_THE_RUN = ("baseline", "input")
Baseline = Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]


@dataclass(frozen=True)
class Teacher:
    """A teacher that is ready to run.

    Attributes:
        model: frozen and in evaluation mode; it may share its weights with the model it was made of.
        tokenizer: of the teacher.
        name: its name in the record.
        shares_tokens: whether it takes the same token ids as the student.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    shares_tokens: bool


def find_teacher(
    config: DistillationConfig,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    load: Callable[[str], PreTrainedModel],
    has_labels: bool,
    given: PreTrainedModel | None,
    baseline: Baseline | None,
) -> Teacher:
    """Find the model that `config.source` names and check that it can teach this student.

    Args:
        config: settings.
        student: the network to train.
        tokenizer: of the student.
        load: loads a model of the task's objective from a folder.
        has_labels: whether the models decide among labels, which then have to match. Only then may the teacher have
            another vocabulary, and only where its logits are computed before training.
        given: the model passed to the method.
        baseline: loads the run's baseline.

    Raises:
        MethodError: if there is no such model, it has other labels, or it has another vocabulary and more than logits
            computed before training are compared.
        ModelError: if the folder cannot be read.
    """
    model, own, name = _locate(config, tokenizer, load, given, baseline)
    same_ids = own.get_vocab() == tokenizer.get_vocab() and model.config.vocab_size == student.config.vocab_size
    shares_tokens = same_ids and set(tokenizer.model_input_names) <= set(own.model_input_names)
    if name == "input" and not shares_tokens:  # the tokenizer of that model is not known
        raise MethodError(f"teacher {name}: it has another vocabulary than the student; allowed: baseline, or a folder")
    if has_labels and model.config.id2label != student.config.id2label:
        raise MethodError(
            f"teacher {name}: it has {_labels(model)} and the student has {_labels(student)}; they have to be the same"
        )
    if not shares_tokens and (not has_labels or config.compares_layers or not config.runs_once):
        allowed = "logits alone, with cache: logits" if has_labels else "a teacher of the same vocabulary"
        raise MethodError(f"teacher {name}: it has another vocabulary than the student; allowed: {allowed}")
    return Teacher(frozen_twin(model).to(student.device).eval(), own, name, shares_tokens)


def check_teacher(config: DistillationConfig, student_depth: int) -> None:
    """Refuse, before anything is trained, a teacher that does not exist and layers that the student will not have.

    Raises:
        MethodError: naming what is allowed.
        ModelError: if the folder holds no encoder.
    """
    check_layers(config, student_depth)
    if config.source not in OF_THE_RUN:
        _check_folder(config.source)


def _check_folder(source: str) -> None:
    if not Path(source).is_dir():
        raise MethodError(f"teacher.source '{source}' is not a folder; allowed: baseline, input, or a model folder")
    load_config(source)


def _locate(
    config: DistillationConfig,
    tokenizer: PreTrainedTokenizerBase,
    load: Callable[[str], PreTrainedModel],
    given: PreTrainedModel | None,
    baseline: Baseline | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """Return the teacher's model, its tokenizer and its name."""
    if config.source == "baseline" and baseline is not None:
        return *baseline(), "baseline"
    if config.source in OF_THE_RUN:
        if given is None:
            raise MethodError(f"teacher.source '{config.source}': there is no such model here; allowed: a model folder")
        return given, tokenizer, "input"
    _check_folder(config.source)
    return load(config.source), load_tokenizer(config.source), config.source


def _labels(model: PreTrainedModel) -> str:
    names = [str(name) for name in model.config.id2label.values()]
    return f"the labels {', '.join(names)}" if len(names) <= 10 else f"{len(names)} labels"
