"""Structured pruning as a whole: budgets kept, repair worth it, every kind of task, refusals before anything runs."""

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
from plankwise.data.task import Task, build_task
from plankwise.data.truncation import Truncation, Windows
from plankwise.encoder.cost import count_parameters, linear_flops_per_token
from plankwise.encoder.low_rank import Ranks, with_ranks
from plankwise.encoder.shapes import is_plain, shapes_of
from plankwise.methods import pruning
from plankwise.methods.method import Job
from plankwise.methods.pruning import Pruning
from plankwise.training.objectives.losses import masked_lm_loss, task_loss

each_architecture = pytest.mark.parametrize("kind", tiny.ARCHITECTURES)


def model(kind: str = "bert", **changes: Any) -> PreTrainedModel:
    return tiny.model(kind, layers=3, **{**tiny.FOUR_HEADS[kind], **changes})


def job(folder: Path, task: Task | None = None, notes: dict[str, Any] | None = None, **changes: Any) -> Job:
    kept: dict[str, Any] = {} if notes is None else notes
    given = tiny.task() if task is None else task
    loss = masked_lm_loss if given.kind == "masked_lm" else task_loss(given.kind)
    made = Job(
        given.without_test(), tiny.tokenizer(), Truncation(max_length=32), loss, 1, folder, note=kept.__setitem__
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize("target", [1.2, 2.0, 4.0])
@each_architecture
def test_the_budget_of_operations_is_kept_and_used(kind: str, target: float, tmp_path: Path) -> None:
    given = model(kind)
    smaller = Pruning(target=target, neuron_step=1, examples=24, repair=False).compress(given, job(tmp_path))
    fewer = linear_flops_per_token(given) / linear_flops_per_token(smaller)
    assert target <= fewer < 1.15 * target


def test_the_budget_of_parameters_is_that_of_the_whole_model(tmp_path: Path) -> None:
    given = model()
    smaller = Pruning(target=1.5, measure="parameters", neuron_step=1, examples=24).compress(given, job(tmp_path))
    assert count_parameters(given) / count_parameters(smaller) == pytest.approx(1.5, abs=0.02)
    with pytest.raises(MethodError, match="parameters"):
        Pruning(target=50, measure="parameters", examples=24).compress(given, job(tmp_path))


def test_a_plain_shape_is_plain_and_a_uniform_one_uniform(tmp_path: Path) -> None:
    plain = Pruning(shape="plain", neuron_step=1, target=1.3, examples=24).compress(model(), job(tmp_path))
    assert is_plain(plain.config)
    uniform = Pruning(shape="uniform", neuron_step=1, target=2.5, examples=24).compress(model(), job(tmp_path))
    sizes = {(len(shape.heads), shape.neurons) for shape in shapes_of(uniform.config)}
    assert len(sizes) == 1


def test_labels_are_not_looked_at_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same texts with other labels: nothing may change. With `labels` it is the job's own loss that is measured."""
    task = tiny.task()
    turned = task.splits["train"].map(lambda row: {"label": 1 - row["label"]})
    other = dataclasses.replace(task, splits=DatasetDict({**task.splits, "train": turned}))
    settings = Pruning(target=2.0, neuron_step=1, examples=32)
    one, same = (settings.compress(model(), job(tmp_path, each)).state_dict() for each in (task, other))
    assert all(torch.equal(one[name], value) for name, value in same.items())
    measured, losses = pruning.gate_importance, []

    def watch(network: PreTrainedModel, sample: Any, *rest: Any) -> Any:
        losses.append(sample.loss)
        return measured(network, sample, *rest)

    monkeypatch.setattr(pruning, "gate_importance", watch)
    given = job(tmp_path)
    dataclasses.replace(settings, labels=True).compress(model(), given)
    assert losses == [given.loss]


def test_repair_brings_the_logits_nearer(tmp_path: Path) -> None:
    given = model()
    distances = []
    for repair in (False, True):
        smaller = Pruning(target=2.0, neuron_step=1, examples=96, repair=repair).compress(given, job(tmp_path))
        with torch.inference_mode():
            hidden = [each.base_model(**tiny.batch(32, seed=9))[0] for each in (given, smaller)]
        distances.append(float((hidden[0] - hidden[1]).square().mean()))
    assert distances[1] < 0.7 * distances[0]


def test_a_planted_useless_head_goes_first(tmp_path: Path) -> None:
    given = model()
    with torch.no_grad():
        given.bert.encoder.layer[1].attention.output.dense.weight[:, 8:12] = 0
    smaller = Pruning(target=1.05, neuron_step=1, examples=48).compress(given, job(tmp_path))
    assert 2 not in shapes_of(smaller.config)[1].heads


def test_several_labels_windows_and_a_corpus(tmp_path: Path) -> None:
    rows = [{**row, "label": [row["label"]]} for row in tiny.rows(48)]
    several = build_task(
        "several", {"train": rows, "development": rows[:8], "test": rows[:8]}, ("micro_f1",), "multi_label"
    )
    texts = Dataset.from_dict({"text": [" ".join(row["text"] for row in tiny.rows(40, seed)) for seed in range(4)]})
    hashes = {"train": "a", "development": "b"}
    splits = DatasetDict({"train": texts, "development": texts})
    corpus = Task("texts", splits, (), "masked_lm", ("masked_accuracy",), "open", hashes)
    settings = Pruning(target=2.0, neuron_step=1, examples=16)
    windows = Truncation(max_length=8, windows=Windows(stride=2))
    torch.manual_seed(0)
    language_model = AutoModelForMaskedLM.from_config(model().config)
    for given, task, changes in (
        (model(), several, {}),
        (model(), tiny.task(), {"truncation": windows}),
        (language_model, corpus, {"cache": tmp_path / "blocks", "truncation": Truncation(max_length=16)}),
    ):
        notes: dict[str, Any] = {}
        smaller = settings.compress(given, job(tmp_path, task, notes, **changes))
        assert linear_flops_per_token(given) >= 2 * linear_flops_per_token(smaller)
        assert notes["examples"] > 0
        assert len(notes["repaired"]) == 6


def test_measured_times_are_asked_for_the_shape_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def costs(given: PreTrainedModel, *shape: int, **_: Any) -> Any:
        asked.append(shape)
        return pruning.flops_costs(given)

    monkeypatch.setattr(pruning, "latency_costs", costs)
    settings = Pruning(measure="latency", latency_shape=(2, 16), neuron_step=1, examples=16)
    settings.compress(model(), job(tmp_path))
    assert asked == [(2, 16)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": 1.0}, "greater than 1"),
        ({"teacher": {"logits": 1.0}}, "give training too, or leave teacher out"),
        ({"ridge": 0}, "greater than 0"),
        ({"latency_shape": [0, 8]}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate({"method": "pruning", **given}, Pruning)


def test_low_rank_layers_are_refused_by_the_plan() -> None:
    with pytest.raises(MethodError, match="put low_rank behind pruning"):
        Pruning().plan(with_ranks(model().config, Ranks(neurons=2, output=2)))
