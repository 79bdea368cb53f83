"""Structured pruning as a whole: budgets kept, repair worth it, every kind of task, refusals before anything runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
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
from plankwise.methods.cost_table import CostTable, flops_costs
from plankwise.methods.layer_sizes import LatencyTarget
from plankwise.methods.method import Job
from plankwise.methods.pruning import Pruning, PruningLog
from plankwise.training.objectives.classification import SingleLabel
from plankwise.training.objectives.losses import Loss


def model(kind: str = "bert", **changes: Any) -> PreTrainedModel:
    return tiny.model(kind, layers=3, **{**tiny.FOUR_HEADS[kind], **changes})


def job(folder: Path, task: Task | None = None, **changes: Any) -> Job:
    return tiny.job(folder, task=(tiny.task() if task is None else task).without_test(), **changes)


def pruned(settings: Pruning, given: PreTrainedModel, work: Job) -> PreTrainedModel:
    return settings.compress(given, work).model


@pytest.mark.parametrize(("kind", "target"), [*((kind, 2.0) for kind in tiny.STRUCTURES), ("bert", 1.2), ("bert", 4.0)])
def test_the_budget_of_operations_is_kept_and_used(kind: str, target: float, tmp_path: Path) -> None:
    given = model(kind)
    settings = Pruning(target=target, neuron_step=1, examples=24, reconstruction=False)
    smaller = pruned(settings, given, job(tmp_path))
    fewer = linear_flops_per_token(given) / linear_flops_per_token(smaller)
    assert target <= fewer < 1.15 * target


def test_the_budget_of_parameters_is_that_of_the_whole_model(tmp_path: Path) -> None:
    given = model()
    settings = Pruning(target=1.5, measure="parameters", neuron_step=1, examples=24)
    smaller = pruned(settings, given, job(tmp_path))
    assert count_parameters(given) / count_parameters(smaller) == pytest.approx(1.5, abs=0.02)
    with pytest.raises(MethodError, match="parameters"):
        Pruning(target=50, measure="parameters", examples=24).compress(given, job(tmp_path))


def test_a_plain_shape_is_plain_and_a_uniform_one_uniform(tmp_path: Path) -> None:
    plain = Pruning(shape="plain", neuron_step=1, target=1.3, examples=24)
    assert is_plain(pruned(plain, model(), job(tmp_path)).config)
    settings = Pruning(shape="uniform", neuron_step=1, target=2.5, examples=24)
    uniform = pruned(settings, model(), job(tmp_path))
    sizes = {(len(shape.heads), shape.neurons) for shape in shapes_of(uniform.config)}
    assert len(sizes) == 1


@dataclass(frozen=True)
class LossRefused(SingleLabel):
    """One label a text, and a loss at it that must not be asked for."""

    def loss(self, task: Task) -> Loss:
        raise AssertionError("the task's own loss was asked for")


def test_labels_are_read_only_where_the_settings_say_so(tmp_path: Path) -> None:
    """The same texts with other labels give the same model; with `labels` the task's own loss is measured."""
    task = tiny.task()
    swapped = task.splits["train"].map(lambda row: {"label": 1 - row["label"]})
    other = dataclasses.replace(task, splits=DatasetDict({**task.splits, "train": swapped}))
    settings = Pruning(target=2.0, neuron_step=1, examples=32)
    one, same = (pruned(settings, model(), job(tmp_path, each)).state_dict() for each in (task, other))
    assert all(torch.equal(one[name], value) for name, value in same.items())
    cut = dataclasses.replace(settings, reconstruction=False)
    cut.compress(model(), job(tmp_path, objective=LossRefused()))
    with pytest.raises(AssertionError, match="own loss was asked for"):
        dataclasses.replace(cut, labels=True).compress(model(), job(tmp_path, objective=LossRefused()))


def test_reconstruction_brings_the_hidden_states_nearer(tmp_path: Path) -> None:
    given = model()
    distances = []
    for fitted in (False, True):
        settings = Pruning(target=2.0, neuron_step=1, examples=96, reconstruction=fitted)
        smaller = pruned(settings, given, job(tmp_path))
        with torch.inference_mode():
            hidden = [each.base_model(**tiny.batch(32, seed=9))[0] for each in (given, smaller)]
        distances.append(float((hidden[0] - hidden[1]).square().mean()))
    assert distances[1] < 0.7 * distances[0]


def test_a_planted_useless_head_goes_first(tmp_path: Path) -> None:
    given = model()
    with torch.no_grad():
        given.bert.encoder.layer[1].attention.output.dense.weight[:, 8:12] = 0
    smaller = pruned(Pruning(target=1.05, neuron_step=1, examples=48), given, job(tmp_path))
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
    cases: list[tuple[PreTrainedModel, Task, dict[str, Any], int]] = [
        (model(), several, {}, 16),
        (model(), tiny.task(), {"truncation": windows}, 16),
        (language_model, corpus, {"cache": tmp_path / "blocks", "truncation": Truncation(max_length=16)}, 16),
    ]
    for given, task, changes, examples in cases:
        made = settings.compress(given, job(tmp_path, task, **changes))
        assert linear_flops_per_token(given) >= 2 * linear_flops_per_token(made.model)
        assert isinstance(made.log, PruningLog)
        assert made.log.examples == examples
        assert made.log.repaired is not None
        assert len(made.log.repaired) == 6


@pytest.mark.parametrize("target", [LatencyTarget(), LatencyTarget("openvino", "int8")], ids=["torch", "openvino"])
def test_times_are_measured_in_the_runtime_and_for_the_shape_of_the_settings(
    target: LatencyTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, LatencyTarget]] = []

    def measured(
        model: PreTrainedModel, *, batch_size: int, tokens: int, target: LatencyTarget, progress: bool
    ) -> CostTable:
        asked.append((batch_size, tokens, target))
        return flops_costs(model)

    monkeypatch.setattr(pruning, "latency_costs", measured)
    timed: dict[str, Any] = {"latency_runtime": target.runtime, "latency_precision": target.precision}
    settings = Pruning(
        target=1.5, measure="latency", latency_shape=(2, 16), neuron_step=1, examples=16, reconstruction=False, **timed
    )
    smaller = pruned(settings, model(), job(tmp_path))
    assert linear_flops_per_token(model()) >= 1.5 * linear_flops_per_token(smaller)
    assert asked == [(2, 16, target)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": 1.0}, "greater than 1"),
        ({"teacher": {"logits": 1.0}}, "add training, or leave teacher out"),
        ({"ridge": 0}, "greater than 0"),
        ({"latency_shape": [0, 8]}, "greater than or equal to 1"),
        ({"measure": "latency", "latency_precision": "int8"}, "allowed: latency_runtime openvino or onnx"),
        ({"latency_runtime": "onnx"}, "latency_runtime onnx is for measure: latency; measure is flops"),
        ({"measure": "latency", "latency_runtime": "tensorrt"}, "latency_runtime"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate({"method": "pruning", **given}, Pruning)


def test_the_key_of_older_recipes_is_read() -> None:
    assert validate({"method": "pruning", "repair": False}, Pruning) == Pruning(reconstruction=False)


def test_low_rank_layers_are_refused_by_the_plan() -> None:
    with pytest.raises(MethodError, match="put low_rank after pruning"):
        Pruning().plan(tiny.spec(with_ranks(model().config, Ranks(neurons=2, output=2))))
