"""Unstructured pruning: exactly so many zeros, the right ones, and the ones that evaluations saw."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

import tiny
from plankwise.core.errors import RecipeError
from plankwise.core.recipe import validate
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.checkpoint import save
from plankwise.encoder.sparsity import Masked, Masks, lowest, matrices_of, sparsity_of
from plankwise.methods.unstructured import Unstructured, UnstructuredLog
from plankwise.training.fit import Training
from plankwise.training.prediction import predict

TRAINING = Training(epochs=3, batch_size=16, learning_rate=2e-3, precision="fp32", evaluations_per_epoch=2)
ONE_SHOT = Unstructured(sparsity=0.37, schedule="one_shot", training=None)


def linears(model: nn.Module) -> list[torch.Tensor]:
    return [module.weight for module in layers_of(model).modules() if isinstance(module, nn.Linear)]


def zeros(weights: list[torch.Tensor]) -> int:
    return sum(int((weight == 0).sum()) for weight in weights)


@pytest.mark.parametrize(("absolute", "ties"), [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize("count", [0, 1, 7, 60, 119, 120])
def test_the_lowest_are_those_of_a_stable_sort(absolute: bool, ties: bool, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    scores = [torch.randn(size, generator=generator) * 10.0**power for size, power in (((4, 10), 0), ((80,), -20))]
    if ties:
        scores = [each.mul(2).round().mul(0.0 if power else 1.0) for power, each in enumerate(scores)]
        scores[0][0, :3] = -0.0
    flat = torch.cat([each.flatten() for each in scores])
    order = torch.sort(flat.abs() if absolute else flat, stable=True).indices
    expected = torch.zeros(120, dtype=torch.bool)
    expected[order[:count]] = True
    found = lowest(scores, count, absolute)
    assert [each.shape for each in found] == [each.shape for each in scores]
    assert torch.equal(torch.cat([each.flatten() for each in found]), expected)


@pytest.mark.parametrize("kind", tiny.STRUCTURES)
def test_one_shot_sets_the_smallest_to_zero_and_changes_nothing_else(kind: str, tmp_path: Path) -> None:
    model = tiny.model(kind)
    made = ONE_SHOT.compress(model, tiny.job(tmp_path))
    sparse = made.model
    old = torch.cat([weight.flatten() for weight in linears(model)])
    new = torch.cat([weight.flatten() for weight in linears(sparse)])
    count = round(0.37 * old.numel())
    threshold = old.abs().sort().values[count - 1]
    assert torch.equal(new, torch.where(old.abs() <= threshold, 0.0, old))
    assert int((new == 0).sum()) == count
    assert not torch.signbit(new[new == 0]).any()  # -0.0 would not compress as well
    inside = {id(weight) for weight in linears(sparse)}
    for name, value in sparse.named_parameters():
        assert id(value) in inside or torch.equal(value, model.get_parameter(name)), name
    assert isinstance(made.log, UnstructuredLog)
    assert made.log.sparsity == sparsity_of(matrices_of(sparse))
    assert made.log.sparsity["all"] == pytest.approx(0.37, abs=1 / old.numel())


@pytest.mark.parametrize(("importance", "scope"), [("magnitude", "global"), ("movement", "layer")])
def test_sparsity_is_exact_in_its_scope_and_the_result_is_plain(
    importance: Literal["magnitude", "movement"], scope: Literal["global", "layer"], tmp_path: Path
) -> None:
    method = Unstructured(sparsity=0.613, importance=importance, scope=scope, training=TRAINING)
    sparse = method.compress(tiny.model(layers=2), tiny.job(tmp_path / "work")).model
    weights = linears(sparse)
    assert all(type(module) is nn.Linear for module in layers_of(sparse).modules() if isinstance(module, nn.Linear))
    if scope == "layer":
        assert [zeros([weight]) for weight in weights] == [round(0.613 * weight.numel()) for weight in weights]
    else:
        assert zeros(weights) == round(0.613 * sum(weight.numel() for weight in weights))
        assert len({zeros([weight]) for weight in weights}) > 2
    assert sparse.state_dict().keys() == tiny.model(layers=2).state_dict().keys()
    assert not sparse._forward_pre_hooks
    save(sparse, tiny.tokenizer(), tmp_path / "model")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert all(map(torch.equal, again.state_dict().values(), sparse.state_dict().values()))


@pytest.mark.parametrize(("importance", "keep"), [("magnitude", "best"), ("movement", "best"), ("magnitude", "last")])
def test_the_model_returned_is_the_one_that_was_scored(
    importance: Literal["magnitude", "movement"], keep: Literal["best", "last"], tmp_path: Path
) -> None:
    """`end` falls exactly on an evaluation, which has to see the final sparsity already."""
    training, work = dataclasses.replace(TRAINING, keep=keep), tiny.job(tmp_path)
    method = Unstructured(sparsity=0.9, importance=importance, end=0.5, training=training)
    made = method.compress(tiny.model(), work)
    log = made.log.training
    assert log is not None
    assert log.best_step >= 9
    score = next(each["score"] for each in log.history if each["step"] == log.best_step)
    found = predict(made.model, work.tokenizer, work.task, "development", work.truncation).scores(["macro_f1"])
    assert found["macro_f1"] == pytest.approx(score, abs=1e-12)


def test_an_evaluation_sees_masks_of_the_weights_as_they_are() -> None:
    model = tiny.model(layers=1).train()
    masks = Masks(model, matrices_of(model), learned=False, together=False)
    masks.set(0.25, then=0.5)
    weights = linears(model)
    assert [zeros([weight]) for weight in weights] == [weight.numel() // 4 for weight in weights]
    with torch.no_grad():
        query: Any = model.get_submodule("bert.encoder.layer.0.attention.self.query")
        query.parametrizations.weight.original.fill_(1.0)
    model.eval()(**tiny.batch())
    assert [zeros([weight]) for weight in linears(model)] == [weight.numel() // 2 for weight in weights]
    assert query.weight.flatten()[:128].count_nonzero() == 0  # of equal ones the first
    masks.set(0.25, then=0.5)
    assert query.parametrizations.weight.original.count_nonzero() == 192  # zero for good


def test_movement_gives_scores_the_gradient_of_their_factor_and_dropped_weights_none() -> None:
    weight = torch.tensor([[1.0, -2.0], [3.0, -4.0]], requires_grad=True)
    masked = Masked(weight, learned=True)
    masked.dropped = torch.tensor([[True, False], [False, True]])
    values = torch.tensor([[5.0, 7.0]])
    (values @ masked(weight).T @ torch.tensor([[1.0], [10.0]])).sum().backward()
    gradient = torch.tensor([[5.0, 7.0], [50.0, 70.0]])
    assert weight.grad is not None
    assert masked.scores is not None
    assert masked.scores.grad is not None
    assert torch.equal(weight.grad, gradient * ~masked.dropped)
    assert torch.equal(masked.scores.grad, gradient * weight.detach())


def test_movement_lets_large_weights_go(tmp_path: Path) -> None:
    both: tuple[Literal["magnitude", "movement"], ...] = ("magnitude", "movement")
    made = {
        how: Unstructured(sparsity=0.5, importance=how, training=TRAINING)
        .compress(tiny.model(), tiny.job(tmp_path / how))
        .model
        for how in both
    }
    start = torch.cat([weight.flatten() for weight in linears(tiny.model())]).abs()
    gone = {how: torch.cat([w.flatten() for w in linears(model)]) == 0 for how, model in made.items()}
    assert start[gone["movement"]].mean() > 1.3 * start[gone["magnitude"]].mean()


def test_embeddings_go_with_what_is_tied_to_them(tmp_path: Path) -> None:
    config = tiny.model(layers=1).config
    model = AutoModelForMaskedLM.from_config(config)
    sparse = dataclasses.replace(ONE_SHOT, embeddings=True, scope="layer").compress(model, tiny.job(tmp_path)).model
    table = sparse.get_input_embeddings().weight
    assert sparse.get_output_embeddings().weight is table
    assert zeros([table]) == round(0.37 * table.numel())
    assert zeros(linears(sparse)) == sum(round(0.37 * weight.numel()) for weight in linears(model))


def test_settings_that_contradict_each_other_are_refused() -> None:
    wrong = {
        "start 0.8 is not before end 0.7": {"start": 0.8},
        "importance 'movement' is learned in training": {"importance": "movement", "schedule": "one_shot"},
        "training null leaves no steps": {"training": None},
        "sparsity": {"sparsity": 1.0},
    }
    for message, given in wrong.items():
        with pytest.raises(RecipeError, match=message):
            validate(given, Unstructured)
