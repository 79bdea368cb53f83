"""What every method promises, run over every method."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

import tiny
from plankwise.core.errors import MethodError
from plankwise.core.recipe import to_plain, validate
from plankwise.data.reading import Reading
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.checkpoint import save
from plankwise.encoder.cost import count_parameters, weights_size_bytes
from plankwise.methods.checkpoint import Checkpoint
from plankwise.methods.distillation import Distillation, Sizes, Student
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.method import Job, Method
from plankwise.methods.registry import METHODS, AnyMethod
from plankwise.methods.theseus import Theseus
from plankwise.training.fit import Training
from plankwise.training.losses import task_loss
from plankwise.training.teacher import Teacher

TRAINING = Training(epochs=2, batch_size=16, learning_rate=2e-3, precision="fp32", evaluations_per_epoch=2)
OTHER = tiny.save_source(Path(tempfile.mkdtemp(prefix="plankwise-tests-")), layers=3)
SETTINGS: dict[str, Method] = {
    "theseus": Theseus(modules=2, training=TRAINING),
    "theseus-paper": Theseus(preset="paper", modules=2, training=TRAINING),
    "theseus-blend": Theseus(modules=2, mode="blend", train_embeddings=True, training=TRAINING),
    "layer-subset": LayerSubset(layers=2, training=TRAINING),
    "checkpoint": Checkpoint(source=str(OTHER), training=TRAINING),
    "distillation": Distillation(student=Student(layers=2), training=TRAINING),
    "distillation-inside": Distillation(
        student=Student(sizes=Sizes(hidden_size=8, num_hidden_layers=2, intermediate_size=16)),
        teacher=Teacher(hidden=1.0, relations=1.0, cosine=0.5),
        training=TRAINING,
    ),
    "theseus-teacher": Theseus(modules=2, teacher=Teacher(relations=0.5), training=TRAINING),
}
each_method = pytest.mark.parametrize("method", SETTINGS.values(), ids=SETTINGS.keys())


class Killed(BaseException):
    """Stands for a process that ends without warning."""


def job(folder: Path, seed: int = 1, notes: dict[str, Any] | None = None) -> Job:
    kept: dict[str, Any] = {} if notes is None else notes
    task = tiny.task().without_test()
    reading, loss = Reading(max_length=32), task_loss("single_label")
    return Job(task, tiny.tokenizer(), reading, loss, seed, folder, note=kept.__setitem__)


def same_weights(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(**tiny.batch()).logits


def test_every_registered_method_is_under_contract() -> None:
    assert {type(method) for method in SETTINGS.values()} == set(METHODS)


@each_method
def test_the_model_passed_in_is_left_as_it_was(method: Method, tmp_path: Path) -> None:
    model = tiny.model()
    before = copy.deepcopy(model)
    wanted = [value.requires_grad for value in model.parameters()]
    method.compress(model, job(tmp_path))
    assert same_weights(model, before)
    assert [value.requires_grad for value in model.parameters()] == wanted
    assert model.training == before.training
    assert torch.equal(logits(model), logits(before))


@each_method
def test_the_result_is_smaller_and_called_the_same_way(method: Method, tmp_path: Path) -> None:
    model = tiny.model()
    smaller = method.compress(model, job(tmp_path / "work"))
    planned = method.plan(model.config)
    assert len(layers_of(smaller)) == smaller.config.num_hidden_layers == planned.num_hidden_layers < 4
    assert count_parameters(smaller) < count_parameters(model)
    assert logits(smaller).shape == logits(model).shape
    assert smaller.config.id2label == model.config.id2label
    for kept, name in ((model, "large"), (smaller, "small")):
        save(kept, tiny.tokenizer(), tmp_path / name)
    assert weights_size_bytes(tmp_path / "small") < weights_size_bytes(tmp_path / "large")


@each_method
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(method: Method, tmp_path: Path) -> None:
    results = [method.compress(tiny.model(), job(tmp_path / str(at), seed)) for at, seed in enumerate((1, 1, 2))]
    assert same_weights(results[0], results[1])
    assert not same_weights(results[0], results[2])


@pytest.mark.parametrize("kill_at", [0, 2, 3, 4, 7, 11])
@each_method
def test_a_killed_run_ends_at_the_same_weights(
    method: Method, kill_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = method.compress(tiny.model(), job(tmp_path / "whole"))

    def kill(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == kill_at:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("plankwise.training.callbacks.Watch.on_step_begin", kill, raising=False)
        with pytest.raises(Killed):
            method.compress(tiny.model(), job(tmp_path / "killed"))
    notes: dict[str, Any] = {}
    resumed = method.compress(tiny.model(), job(tmp_path / "killed", notes=notes))
    assert same_weights(whole, resumed)
    assert len(notes["training"]["history"]) == 4


@each_method
def test_it_reloads_by_plain_transformers(method: Method, tmp_path: Path) -> None:
    smaller = method.compress(tiny.model(), job(tmp_path / "work"))
    save(smaller, tiny.tokenizer(), tmp_path / "model")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert same_weights(smaller, again)
    assert torch.equal(logits(smaller), logits(again))


@pytest.mark.parametrize("second", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("first", SETTINGS.values(), ids=SETTINGS.keys())
def test_every_pair_composes(first: Method, second: Method, tmp_path: Path) -> None:
    model = tiny.model(layers=6)
    quick = dataclasses.replace(TRAINING, epochs=0.5)
    smaller = dataclasses.replace(first, training=quick).compress(model, job(tmp_path / "1"))  # type: ignore[type-var]
    last = dataclasses.replace(second, training=quick).compress(smaller, job(tmp_path / "2"))  # type: ignore[type-var]
    assert torch.isfinite(logits(last)).all()
    assert last.config.num_hidden_layers == second.plan(first.plan(model.config)).num_hidden_layers


def test_a_chain_that_cannot_work_is_refused_by_the_plan() -> None:
    with pytest.raises(MethodError, match="3 modules do not fit a model of 2 layers; allowed: 1 to 2"):
        Theseus(modules=3).plan(LayerSubset(layers=2).plan(tiny.model().config))


@each_method
def test_the_test_split_is_out_of_reach(method: Method, tmp_path: Path) -> None:
    given = job(tmp_path)
    assert set(given.task.splits) == {"train", "development"}
    method.compress(tiny.model(), given)


@each_method
def test_settings_round_trip(method: Method) -> None:
    assert validate(to_plain(method), AnyMethod) == method
    parts = (Training, Teacher, Student, Sizes)
    names = {**{each.__name__: each for each in parts}, **{each.__name__: each for each in METHODS}}
    assert eval(repr(method), names) == method
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.training = Training()  # type: ignore[misc]


def test_every_method_has_its_card() -> None:
    folder = Path(__file__).parents[2] / "src" / "plankwise" / "methods"
    for method in METHODS:
        assert (folder / f"{method.__module__.rpartition('.')[2]}.md").read_text().startswith("# ")
