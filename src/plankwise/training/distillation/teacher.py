"""The teacher itself: found, checked against the student, and made ready to be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.errors import MethodError
from plankwise.data.task import Kind
from plankwise.encoder.checkpoint import load_config, load_masked_lm, load_trained
from plankwise.encoder.surgery import frozen_twin
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.training.distillation.config import DistillationConfig, check_layers

OF_THE_RUN = ("baseline", "input")
Baseline = Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]


@dataclass(frozen=True)
class Teacher:
    """A teacher at work.

    Attributes:
        model: frozen and in evaluation; it may share its weights with the model it was made of.
        tokenizer: its own.
        name: what the record calls it.
        reads_alike: whether it reads the same token ids as the student.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    reads_alike: bool


def find_teacher(
    teacher: DistillationConfig,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    given: PreTrainedModel | None,
    baseline: Baseline | None,
) -> Teacher:
    """Find the model that `teacher.source` names and make sure that it can teach this student what is asked.

    Args:
        teacher: settings.
        student: the network to train.
        tokenizer: of the student.
        kind: of the task.
        given: the model passed to the method.
        baseline: loads the run's baseline.

    Raises:
        MethodError: if there is no such model, or it knows other labels, or it reads other token ids and more than its
            logits, computed beforehand, is asked of it.
        ModelError: if the folder cannot be read.
    """
    model, own, name = _load(teacher, tokenizer, kind, given, baseline)
    same = own.get_vocab() == tokenizer.get_vocab() and model.config.vocab_size == student.config.vocab_size
    alike = same and set(tokenizer.model_input_names) <= set(own.model_input_names)
    if name == "input" and not alike:  # how it reads is not known
        raise MethodError(f"teacher {name}: its vocabulary is not the student's; allowed: baseline, or a folder")
    if kind != "masked_lm" and model.config.id2label != student.config.id2label:
        raise MethodError(
            f"teacher {name}: it knows {_labels(model)}, the student {_labels(student)}; they have to be the same"
        )
    if not alike and (kind == "masked_lm" or teacher.compares_insides or not teacher.runs_once):
        allowed = "a teacher of the same vocabulary" if kind == "masked_lm" else "logits alone, with cache: logits"
        raise MethodError(f"teacher {name}: it reads another vocabulary than the student; allowed: {allowed}")
    return Teacher(frozen_twin(model).to(student.device).eval(), own, name, alike)


def check_teacher(teacher: DistillationConfig, student_depth: int) -> None:
    """Refuse, before anything is trained, a teacher that is not there and layers that the student will not have.

    Raises:
        MethodError: naming what is allowed.
        ModelError: if its folder holds no encoder.
    """
    check_layers(teacher, student_depth)
    if teacher.source not in OF_THE_RUN:
        _check_folder(teacher)


def _check_folder(teacher: DistillationConfig) -> None:
    if not Path(teacher.source).is_dir():
        raise MethodError(
            f"teacher.source '{teacher.source}' is no folder; allowed: baseline, input, or a model folder"
        )
    load_config(teacher.source)


def _load(
    teacher: DistillationConfig,
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    given: PreTrainedModel | None,
    baseline: Baseline | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    if teacher.source == "baseline" and baseline is not None:
        return *baseline(), "baseline"
    if teacher.source in OF_THE_RUN:
        if given is None:
            raise MethodError(f"teacher.source '{teacher.source}': there is no such model here; name a folder")
        return given, tokenizer, "input"
    _check_folder(teacher)
    model = load_masked_lm(teacher.source, head_is_new=False) if kind == "masked_lm" else load_trained(teacher.source)
    return model, load_tokenizer(teacher.source), teacher.source


def _labels(model: PreTrainedModel) -> str:
    names = [str(name) for name in model.config.id2label.values()]
    return f"the labels {', '.join(names)}" if len(names) <= 10 else f"{len(names)} labels"
