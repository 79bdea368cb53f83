"""Which model a teacher is, and which models cannot be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import tiny
from plankwise.core.errors import MethodError
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.checkpoint import load_trained
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.distillation.teacher import Teacher, find_teacher


def other_tokenizer() -> PreTrainedTokenizerBase:
    made = tiny.tokenizer()
    made.add_tokens(["novel"])
    return made


def find(
    config: DistillationConfig,
    student: PreTrainedModel,
    baseline: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    **changes: Any,
) -> Teacher:
    options: dict[str, Any] = {"load": load_trained, "has_labels": True, "given": student, **changes}
    run = None if baseline is None else lambda: (baseline, tiny.tokenizer())
    return find_teacher(config, student, tokenizer or tiny.tokenizer(), baseline=run, **options)


def test_it_is_the_baseline_the_input_or_a_folder(tmp_path: Path) -> None:
    given, baseline = tiny.model(layers=2), tiny.model()
    for each in (given, baseline):
        each.config.id2label = dict(enumerate(tiny.LABELS))
    found = find(DistillationConfig(), given, baseline)
    assert (found.name, len(layers_of(found.model)), found.shares_tokens) == ("baseline", 4, True)
    own = find(DistillationConfig(source="input"), given, baseline)
    assert (own.name, len(layers_of(own.model))) == ("input", 2)
    assert find(DistillationConfig(), given).name == "input"
    folder = str(tiny.save_source(tmp_path / "m", layers=3))
    loaded = find(DistillationConfig(source=folder), given, baseline)
    assert (loaded.name, len(layers_of(loaded.model))) == (folder, 3)
    assert not any(value.requires_grad for value in own.model.parameters())
    assert all(value.requires_grad for value in given.parameters())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DistillationConfig(source="nowhere"), "is not a folder; allowed: baseline, input"),
        (DistillationConfig(hidden=1.0), "another vocabulary.*logits alone"),
        (DistillationConfig(relations=1.0), "another vocabulary.*logits alone"),
        (DistillationConfig(cache="none"), "another vocabulary.*logits alone"),
    ],
)
def test_a_model_that_cannot_teach_is_refused(config: DistillationConfig, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        find(config, tiny.model(vocab_size=40), tiny.model(), other_tokenizer())


def test_the_input_has_to_read_what_the_student_reads() -> None:
    """The tokenizer of the model passed in is not known where it is not the student's."""
    with pytest.raises(MethodError, match=r"another vocabulary.*allowed: baseline, or a folder"):
        find(DistillationConfig(source="input"), tiny.model(vocab_size=40), given=tiny.model())


def test_without_a_model_a_folder_is_needed() -> None:
    with pytest.raises(MethodError, match="'input': there is no such model here; allowed: a model folder"):
        find(DistillationConfig(source="input"), tiny.model(), given=None)


def test_another_vocabulary_may_teach_logits_where_there_are_labels() -> None:
    student, baseline = tiny.model(vocab_size=40), tiny.model()
    assert not find(DistillationConfig(), student, baseline, other_tokenizer()).shares_tokens
    with pytest.raises(MethodError, match="a teacher of the same vocabulary"):
        find(DistillationConfig(), student, baseline, other_tokenizer(), has_labels=False)


def test_other_labels_are_refused_where_there_are_labels() -> None:
    message = "it has the labels LABEL_0, LABEL_1, LABEL_2 and the student has the labels LABEL_0, LABEL_1"
    with pytest.raises(MethodError, match=message):
        find(DistillationConfig(), tiny.model(), tiny.model(labels=3))
    assert find(DistillationConfig(), tiny.model(), tiny.model(labels=3), has_labels=False).shares_tokens
