"""Distillation end to end: students, caches, several labels, windows, language models, Theseus with a teacher."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForMaskedLM, PreTrainedModel

import tiny
from plankwise.core.errors import MethodError, RecipeError
from plankwise.data.batching.examples import encode
from plankwise.data.task import Task, build_task
from plankwise.data.truncation import Truncation, Windows
from plankwise.encoder.anatomy import layers_of
from plankwise.methods.distillation import Distillation, Sizes, Student
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.method import Compressed, Job, Method
from plankwise.methods.registry import method_of
from plankwise.methods.theseus import Theseus
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training
from plankwise.training.objectives.masking import MaskedPositions
from plankwise.training.prediction import predict_logits

TRAINING = Training(epochs=1, batch_size=16, learning_rate=2e-3, precision="fp32", keep="last")
INSIDE = {"hidden": 1.0, "cosine": 1.0}
SHORT = tiny.task(32, 16).without_test()
WINDOWS = Truncation(max_length=6, windows=Windows(stride=1))


def job(folder: Path, **changes: Any) -> Job:
    return tiny.job(folder / "work", **{"cache": folder / "cache", **changes})


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


def teacher_log(made: Compressed) -> dict[str, Any]:
    assert made.log.teacher is not None
    return made.log.teacher.model_dump()


@pytest.mark.parametrize(
    ("cache", "truncation", "tolerance"),
    [("logits", Truncation(max_length=32), 1e-5), ("hidden", WINDOWS, 2e-3)],
    ids=["logits of whole texts", "hidden states of windows"],
)
def test_cached_predictions_train_the_same_weights(
    cache: Literal["logits", "hidden"], truncation: Truncation, tolerance: float, tmp_path: Path
) -> None:
    weights: dict[str, float] = INSIDE if cache == "hidden" else {}
    untaught = LayerSubset(layers=2, keep="alternate", training=TRAINING)
    cached, online, alone = (
        method.compress(tiny.model(), job(tmp_path / str(number), truncation=truncation))
        for number, method in enumerate((subset(cache=cache, **weights), subset(cache="none", **weights), untaught))
    )
    assert teacher_log(cached)["asked"] == "once"
    assert teacher_log(cached)["examples"] == 96
    assert close(cached.model, online.model, tolerance)
    assert not close(cached.model, alone.model, tolerance)


def test_a_second_run_reads_the_predictions_of_the_first(tmp_path: Path) -> None:
    first = subset().compress(tiny.model(), job(tmp_path))
    (stored,) = (tmp_path / "cache").rglob("logits.npy")
    written = stored.stat().st_mtime_ns
    again = subset().compress(tiny.model(), dataclasses.replace(job(tmp_path), folder=tmp_path / "again"))
    assert close(first.model, again.model, 0.0)
    assert stored.stat().st_mtime_ns == written
    assert teacher_log(again)["seconds"] == teacher_log(first)["seconds"]  # of the one computation


def test_the_task_alone_is_layer_subset(tmp_path: Path) -> None:
    alone = subset(task=1.0, logits=0.0).compress(tiny.model(), job(tmp_path / "1")).model
    plain = LayerSubset(layers=2, keep="alternate", training=TRAINING)
    assert close(alone, plain.compress(tiny.model(), job(tmp_path / "2")).model, 0.0)


def test_a_student_learns_the_task_from_its_teacher_alone(tmp_path: Path) -> None:
    longer = dataclasses.replace(TRAINING, epochs=8, learning_rate=5e-3)
    teacher = LayerSubset(layers=4, training=longer).compress(tiny.model(), job(tmp_path / "1")).model
    student = Student(sizes=Sizes(num_hidden_layers=2))
    settings = Distillation(student=student, teacher=DistillationConfig(task=0.0, logits=1.0), training=longer)
    taught = settings.compress(teacher, job(tmp_path / "2")).model
    texts = encode(tiny.task().splits["development"], tiny.tokenizer(), Truncation(max_length=32))
    there, start, end = (
        predict_logits(each, tiny.tokenizer(), texts) for each in (teacher, settings._student(teacher).eval(), taught)
    )
    assert set(there.argmax(1)) == {0, 1}, "the teacher learned something"
    assert ((end - there) ** 2).mean() < 0.5 * ((start - there) ** 2).mean()
    assert (end.argmax(1) == there.argmax(1)).mean() > 0.9


@pytest.mark.parametrize("kind", tiny.STRUCTURES)
def test_every_architecture_has_smaller_students(kind: str, tmp_path: Path) -> None:
    sizes = Sizes(hidden_size=8, num_hidden_layers=2, num_attention_heads=1, intermediate_size=12)
    teacher = DistillationConfig(relations=1.0, hidden=1.0, cosine=1.0)
    settings = Distillation(student=Student(sizes=sizes), teacher=teacher, training=TRAINING)
    model = tiny.model(kind, labels=2)
    made = settings.compress(model, job(tmp_path, task=SHORT))
    smaller = made.model
    assert len(layers_of(smaller)) == 2
    assert smaller.config.hidden_size == 8
    assert smaller.config.id2label == model.config.id2label
    assert teacher_log(made)["hidden_layers"] == [[0, 1], [1, 3]]
    assert not [name for name in smaller.state_dict() if "distillation" in name]


def test_the_model_so_far_may_be_the_student(tmp_path: Path) -> None:
    model = tiny.model(seed=3)
    settings = Distillation(teacher=DistillationConfig(), training=TRAINING)
    given = job(tmp_path, baseline=lambda: (tiny.model(), tiny.tokenizer()))
    recovered = settings.compress(model, given).model
    assert recovered.config.num_hidden_layers == 4
    assert not close(recovered, model, 1e-4)
    assert close(model, tiny.model(seed=3), 0.0)


@pytest.mark.parametrize("cache", ["logits", "none"])
def test_several_labels(cache: Literal["logits", "none"], tmp_path: Path) -> None:
    task = flags_task()
    model = tiny.model(labels=len(task.labels))
    model.config.problem_type = "multi_label_classification"
    made = subset(cache=cache).compress(model, job(tmp_path, task=task))
    assert made.log.training is not None
    assert made.log.training.steps == 4
    assert all(torch.isfinite(value).all() for value in made.model.parameters())


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
def test_language_models_compare_the_same_masked_tokens(
    method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, hooked = AutoModelForMaskedLM.from_config(tiny.model().config).eval(), list[int]()
    on = MaskedPositions.on

    def recorded(self: MaskedPositions, network: PreTrainedModel) -> AbstractContextManager[MaskedPositions]:
        hooked.append(id(self))
        return on(self, network)

    monkeypatch.setattr(MaskedPositions, "on", recorded)
    smaller = method.compress(model, job(tmp_path, task=corpus(), truncation=Truncation(max_length=16))).model
    assert len(hooked) == 2
    assert len(set(hooked)) == 1
    assert len(layers_of(smaller)) == 2
    assert not model.base_model._forward_hooks
    assert smaller.get_input_embeddings().weight is smaller.get_output_embeddings().weight


def test_a_corpus_keeps_no_hidden_states() -> None:
    with pytest.raises(MethodError, match="on a corpus masks change"):
        subset(cache="hidden", **INSIDE).plan(tiny.spec(kind="masked_lm"))


def test_a_teacher_of_another_vocabulary_teaches_logits(tmp_path: Path) -> None:
    """Its own tokenizer reads the texts for it; here that knows every word by another number."""
    words = tiny.tokenizer().get_vocab()
    other = tiny.tokenizer()
    other.add_tokens(["novel"])
    given = job(tmp_path / "1", baseline=lambda: (tiny.model(), other))
    assert len(other) == len(words) + 1
    same = job(tmp_path / "2", baseline=lambda: (tiny.model(), tiny.tokenizer()))
    one, two = (subset().compress(tiny.model(), each).model for each in (given, same))
    assert close(one, two, 1e-6)
    with pytest.raises(MethodError, match="another vocabulary"):
        subset(hidden=1.0).compress(tiny.model(), dataclasses.replace(given, folder=tmp_path / "3"))


@pytest.mark.parametrize("mode", ["replace", "blend"])
def test_theseus_leaves_no_trace_of_its_teacher(mode: Literal["replace", "blend"], tmp_path: Path) -> None:
    teacher = DistillationConfig(task=0.0, logits=0.0, relations=1.0, hidden=1.0, layer_map=[(0, 1)])
    settings = Theseus(modules=2, mode=mode, teacher=teacher, training=TRAINING)
    model = tiny.model()
    made = settings.compress(model, job(tmp_path))
    assert teacher_log(made)["hidden_layers"] == [[0, 1]]
    assert teacher_log(made)["relation_layers"] == [1, 3]
    for each in (model, made.model):
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in each.modules())
    plain = Theseus(modules=2, mode=mode, training=TRAINING).compress(model, job(tmp_path / "plain")).model
    assert not close(made.model, plain, 1e-4)


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
        method_of(given)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Distillation(student=Student(sizes=Sizes(hidden_size=15))), "do not divide hidden_size 15"),
        (Distillation(student=Student(layers=9)), "allowed: 1 to 4"),
    ],
)
def test_what_cannot_fit_is_refused_by_the_plan(method: Method, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        method.plan(tiny.spec())
