"""Distillation end to end: students, caches, several labels, windows, language models, Theseus with a teacher."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForMaskedLM, PreTrainedModel

import tiny
from plankwise.core.errors import MethodError, RecipeError
from plankwise.core.recipe import validate
from plankwise.data.batching.examples import encode
from plankwise.data.task import Task, build_task
from plankwise.data.truncation import Truncation, Windows
from plankwise.encoder.anatomy import layers_of
from plankwise.methods.distillation import Distillation, Sizes, Student
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.method import Job, Method
from plankwise.methods.registry import AnyMethod
from plankwise.methods.theseus import Theseus
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training
from plankwise.training.objectives.losses import masked_lm_loss, task_loss
from plankwise.training.objectives.masking import MaskedPositions
from plankwise.training.prediction import predict_logits

TRAINING = Training(epochs=1, batch_size=16, learning_rate=2e-3, precision="fp32", keep="last")
INSIDE = {"hidden": 1.0, "cosine": 1.0}
WINDOWS = Truncation(max_length=6, windows=Windows(stride=1))


def job(folder: Path, notes: dict[str, Any] | None = None, **changes: Any) -> Job:
    made: dict[str, Any] = {
        "task": tiny.task().without_test(),
        "tokenizer": tiny.tokenizer(),
        "truncation": Truncation(max_length=32),
        "loss": task_loss("single_label"),
        "seed": 1,
        "folder": folder / "work",
        "cache": folder / "cache",
        "note": ({} if notes is None else notes).__setitem__,
    }
    return Job(**{**made, **changes})


def flags_task() -> Task:
    made = {
        part: [{**row, "label": ["good", "long"][: 1 + at % 2]} for at, row in enumerate(tiny.rows(count, count))]
        for part, count in {"train": 64, "development": 24, "test": 25}.items()
    }
    return build_task("flags", made, ("macro_f1",), "multi_label").without_test()


def corpus() -> Task:
    splits = {
        part: Dataset.from_dict({"text": [row["text"] for row in tiny.rows(150, at)]})
        for at, part in enumerate(("train", "development"))
    }
    hashes = {part: f"distillation/{part}" for part in splits}
    return Task("corpus", DatasetDict(splits), (), "masked_lm", ("masked_accuracy",), "open", hashes)


def subset(**teacher: Any) -> Distillation:
    return Distillation(student=Student(layers=2), teacher=DistillationConfig(**teacher), training=TRAINING)


def close(one: PreTrainedModel, other: PreTrainedModel, tolerance: float) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.allclose(a, b, atol=tolerance, rtol=0) for a, b in pairs)


@pytest.mark.parametrize("truncation", [Truncation(max_length=32), WINDOWS], ids=["whole", "windows"])
@pytest.mark.parametrize(("kept", "tolerance"), [("logits", 1e-5), ("hidden", 2e-3)])
def test_cached_answers_train_the_same_weights(
    kept: Any, tolerance: float, truncation: Truncation, tmp_path: Path
) -> None:
    weights = INSIDE if kept == "hidden" else {}
    notes: dict[str, Any] = {}
    cached = subset(cache=kept, **weights).compress(tiny.model(), job(tmp_path / "1", notes, truncation=truncation))
    asked = subset(cache="none", **weights).compress(tiny.model(), job(tmp_path / "2", truncation=truncation))
    untaught = LayerSubset(layers=2, keep="alternate", training=TRAINING).compress(
        tiny.model(), job(tmp_path / "3", truncation=truncation)
    )
    assert notes["teacher"]["asked"] == "once"
    assert notes["teacher"]["examples"] == 96
    assert close(cached, asked, tolerance)
    assert not close(cached, untaught, tolerance)


def test_a_second_run_does_not_run_the_teacher(tmp_path: Path) -> None:
    notes, later = dict[str, Any](), dict[str, Any]()
    first = subset().compress(tiny.model(), job(tmp_path, notes))
    again = subset().compress(tiny.model(), dataclasses.replace(job(tmp_path, later), folder=tmp_path / "again"))
    assert close(first, again, 0.0)
    assert later["teacher"] == notes["teacher"], "seconds too: another computation would take another time"


def test_the_task_alone_is_layer_subset(tmp_path: Path) -> None:
    alone = subset(task=1.0, logits=0.0).compress(tiny.model(), job(tmp_path / "1"))
    plain = LayerSubset(layers=2, keep="alternate", training=TRAINING)
    assert close(alone, plain.compress(tiny.model(), job(tmp_path / "2")), 0.0)


def test_a_student_learns_the_task_from_its_teacher_alone(tmp_path: Path) -> None:
    longer = dataclasses.replace(TRAINING, epochs=8, learning_rate=5e-3)
    teacher = LayerSubset(layers=4, training=longer).compress(tiny.model(), job(tmp_path / "1"))
    student = Student(sizes=Sizes(num_hidden_layers=2))
    settings = Distillation(student=student, teacher=DistillationConfig(task=0.0, logits=1.0), training=longer)
    taught = settings.compress(teacher, job(tmp_path / "2"))
    texts = encode(tiny.task().splits["development"], tiny.tokenizer(), Truncation(max_length=32))
    there, start, end = (
        predict_logits(each, tiny.tokenizer(), texts) for each in (teacher, settings._student(teacher).eval(), taught)
    )
    assert (there.argmax(1) == 0).any()
    assert (there.argmax(1) == 1).any(), "the teacher learned something"
    assert ((end - there) ** 2).mean() < 0.5 * ((start - there) ** 2).mean()
    assert (end.argmax(1) == there.argmax(1)).mean() > 0.9


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
def test_every_architecture_has_smaller_students(kind: str, tmp_path: Path) -> None:
    sizes = Sizes(hidden_size=8, num_hidden_layers=2, num_attention_heads=1, intermediate_size=12)
    settings = Distillation(
        student=Student(sizes=sizes), teacher=DistillationConfig(relations=1.0, **INSIDE), training=TRAINING
    )
    model, notes = tiny.model(kind, labels=2), {}
    smaller = settings.compress(model, job(tmp_path, notes))
    assert len(layers_of(smaller)) == 2
    assert smaller.config.hidden_size == 8
    assert smaller.config.id2label == model.config.id2label
    assert notes["teacher"]["hidden_layers"] == [[0, 1], [1, 3]]
    assert not [name for name in smaller.state_dict() if "distillation" in name]


def test_the_model_so_far_may_be_the_student(tmp_path: Path) -> None:
    model = tiny.model(seed=3)
    settings = Distillation(teacher=DistillationConfig(), training=TRAINING)
    given = job(tmp_path, baseline=lambda: (tiny.model(), tiny.tokenizer()))
    recovered = settings.compress(model, given)
    assert recovered.config.num_hidden_layers == 4
    assert not close(recovered, model, 1e-4)
    assert close(model, tiny.model(seed=3), 0.0)


@pytest.mark.parametrize("cache", ["logits", "none"])
def test_several_labels(cache: Any, tmp_path: Path) -> None:
    task = flags_task()
    model = tiny.model(labels=len(task.labels))
    model.config.problem_type = "multi_label_classification"
    notes: dict[str, Any] = {}
    given = job(tmp_path, notes, task=task, loss=task_loss("multi_label"))
    smaller = subset(cache=cache).compress(model, given)
    assert notes["training"]["steps"] == 4
    assert all(torch.isfinite(value).all() for value in smaller.parameters())


@pytest.mark.parametrize(
    "method",
    [
        subset(relations=1.0, **INSIDE),
        subset(task=0.0),
        Theseus(
            modules=2, train_embeddings=True, teacher=DistillationConfig(relations=1.0, hidden=1.0), training=TRAINING
        ),
    ],
    ids=["inside", "logits", "theseus"],
)
def test_language_models_are_asked_about_the_same_masked_tokens(
    method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, hooked = AutoModelForMaskedLM.from_config(tiny.model().config).eval(), []
    on = MaskedPositions.on
    monkeypatch.setattr(MaskedPositions, "on", lambda self, each: hooked.append(id(self)) or on(self, each))
    given = job(tmp_path, task=corpus(), loss=masked_lm_loss, truncation=Truncation(max_length=16))
    smaller = method.compress(model, given)
    assert len(hooked) == 2
    assert len(set(hooked)) == 1
    assert len(layers_of(smaller)) == 2
    assert not model.base_model._forward_hooks
    assert smaller.get_input_embeddings().weight is smaller.get_output_embeddings().weight


def test_a_corpus_keeps_no_hidden_states(tmp_path: Path) -> None:
    model = AutoModelForMaskedLM.from_config(tiny.model().config)
    given = job(tmp_path, task=corpus(), loss=masked_lm_loss, truncation=Truncation(max_length=16))
    with pytest.raises(MethodError, match="on a corpus masks change"):
        subset(cache="hidden", **INSIDE).compress(model, given)


def test_a_teacher_of_another_vocabulary_teaches_logits(tmp_path: Path) -> None:
    """Its own tokenizer reads the texts for it; here that knows every word by another number."""
    words = tiny.tokenizer().get_vocab()
    other = tiny.tokenizer()
    other.add_tokens(["novel"])
    given = job(tmp_path / "1", baseline=lambda: (tiny.model(), other))
    assert len(other) == len(words) + 1
    same = job(tmp_path / "2", baseline=lambda: (tiny.model(), tiny.tokenizer()))
    assert close(subset().compress(tiny.model(), given), subset().compress(tiny.model(), same), 1e-6)
    with pytest.raises(MethodError, match="another vocabulary"):
        subset(hidden=1.0).compress(tiny.model(), dataclasses.replace(given, folder=tmp_path / "3"))


@pytest.mark.parametrize("mode", ["replace", "blend"])
def test_theseus_leaves_no_trace_of_its_teacher(mode: Any, tmp_path: Path) -> None:
    notes: dict[str, Any] = {}
    teacher = DistillationConfig(task=0.0, logits=0.0, relations=1.0, hidden=1.0, layer_map=[(0, 1)])
    settings = Theseus(modules=2, mode=mode, teacher=teacher, training=TRAINING)
    model = tiny.model()
    smaller = settings.compress(model, job(tmp_path, notes))
    assert notes["teacher"]["hidden_layers"] == [[0, 1]]
    assert notes["teacher"]["relation_layers"] == [1, 3]
    for each in (model, smaller):
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in each.modules())
    plain = Theseus(modules=2, mode=mode, training=TRAINING).compress(model, job(tmp_path / "plain"))
    assert not close(smaller, plain, 1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "theseus", "preset": "paper", "teacher": {}}, "a teacher contradicts the preset 'paper'"),
        ({"method": "distillation", "student": {"layers": 2, "sizes": {"hidden_size": 8}}}, "give layers or sizes"),
        ({"method": "distillation", "student": {"sizes": {}}}, "give at least one of hidden_size"),
        ({"method": "distillation", "student": {"keep": "top"}}, "give layers, how many"),
        ({"method": "distillation", "teacher": {"task": 0, "logits": 0}}, "all weights are 0"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(given, AnyMethod)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Distillation(student=Student(sizes=Sizes(hidden_size=15))), "do not divide hidden_size 15"),
        (Distillation(student=Student(layers=9)), "allowed: 1 to 4"),
    ],
)
def test_what_cannot_fit_is_refused_by_the_plan(method: Method, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        method.plan(tiny.model().config)
