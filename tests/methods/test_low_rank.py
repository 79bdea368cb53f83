"""Low rank as a method: importance by rows against single backward passes, shares, kinds of tasks, recovery."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

import tiny
from plankwise.core.errors import MethodError, RecipeError
from plankwise.core.recipe import validate
from plankwise.data.task import build_task
from plankwise.data.truncation import Truncation, Windows
from plankwise.encoder.anatomy import layers_of, neuron_inputs_of, residual_outputs_of
from plankwise.encoder.cost import count_parameters
from plankwise.encoder.low_rank import Ranks, ranks_of
from plankwise.encoder.shapes import prune
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.low_rank import LowRank
from plankwise.methods.method import Job
from plankwise.methods.row_importance import row_importance
from plankwise.methods.theseus import Theseus
from plankwise.training.fit import Training
from plankwise.training.objectives.losses import task_loss

SHORT = tiny.task(16, 8).without_test()
TRAINING = Training(epochs=1, batch_size=16, learning_rate=2e-3, precision="fp32")


def job(folder: Path, **changes: Any) -> Job:
    return tiny.job(folder, **{"task": tiny.task(64, 16).without_test(), **changes})


def places(model: PreTrainedModel) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {"embeddings": model.get_input_embeddings()}
    for number, layer in enumerate(layers_of(model)):
        linears = [*(linear for linear, _ in neuron_inputs_of(model, layer)), residual_outputs_of(model, layer)[1]]
        found |= {f"{number}.{at}": linear for at, linear in enumerate(linears)}
    return found


@pytest.mark.parametrize("kind", tiny.STRUCTURES)
def test_importance_of_rows_equals_a_backward_pass_for_each_text(kind: str) -> None:
    model = tiny.model(kind, layers=2)
    before = copy.deepcopy(model.state_dict())
    batches = [{**tiny.batch(3, seed=seed), "labels": torch.tensor([0, 1, 1])} for seed in (1, 2)]
    batches[0]["input_ids"][2, 3:6] = 7  # a word that stands in a text three times
    loss = task_loss("single_label")
    expected: dict[str, Any] = dict.fromkeys(places(model), 0.0)
    for batch in batches:
        for row in range(3):
            model.zero_grad()
            one = {name: value[row : row + 1] for name, value in batch.items()}
            torch.autograd.backward(loss(model(input_ids=one["input_ids"], attention_mask=one["attention_mask"]), one))
            for name, module in places(model).items():
                weight = module.get_parameter("weight")
                assert weight.grad is not None
                expected[name] = expected[name] + weight.grad.double().square().sum(dim=1)
    model.zero_grad()
    found = row_importance(model, places(model), batches, loss)
    for name, value in found.items():
        assert torch.allclose(value, expected[name], rtol=1e-3, atol=1e-9), name
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.requires_grad and value.grad is None for value in model.parameters())
    assert not model.get_input_embeddings()._forward_hooks


def test_fisher_weights_keep_the_loss_lower_than_plain_svd(tmp_path: Path) -> None:
    """On the quadratic model of the loss that the Fisher gives: the error, weighted by the importance of its row."""
    model, work = tiny.model(), job(tmp_path)
    weightings: tuple[Literal["fisher", "none"], ...] = ("fisher", "none")
    settings = LowRank(feed_forward=0.4, examples=50)
    results = {each: dataclasses.replace(settings, weighting=each).compress(model, work) for each in weightings}
    names = [f"bert.encoder.layer.{at}.intermediate.dense" for at in range(4)]
    with work.objective.sample(model, work, 50) as sample:
        wanted = {name: model.get_submodule(name) for name in names}
        importance = row_importance(model, wanted, sample.batches(), sample.loss)
    for name in names:
        errors = {}
        for weighting, result in results.items():
            factors: Any = result.model.get_submodule(name)
            product = factors.up.weight @ factors.down.weight
            errors[weighting] = (
                importance[name][:, None] * (product - model.get_parameter(f"{name}.weight")) ** 2
            ).sum()
        assert errors["fisher"] < 0.95 * errors["none"]
    logs = {name: result.log.model_dump() for name, result in results.items()}
    assert {name: log.get("examples") for name, log in logs.items()} == {"fisher": 50, "none": None}
    assert logs["fisher"]["ranks"] == logs["none"]["ranks"] == {"neurons": 4, "output": 4}
    assert list(logs["fisher"]["seconds"]) == ["factorization"]


@pytest.mark.parametrize("kind", tiny.STRUCTURES)
def test_it_keeps_the_share_it_was_given(kind: str, tmp_path: Path) -> None:
    model, method = tiny.model(kind), LowRank(embeddings=0.6, feed_forward=0.5, examples=20)
    smaller = method.compress(model, job(tmp_path)).model
    assert ranks_of(smaller.config) == ranks_of(method.plan(tiny.spec(model)).config)
    whole = {name: module.get_parameter("weight").numel() for name, module in places(model).items()}
    kept = [0.6 * whole.pop("embeddings"), 0.5 * sum(whole.values())]
    lost = model.get_input_embeddings().weight.numel() + sum(whole.values()) - sum(kept)
    assert lost <= count_parameters(model) - count_parameters(smaller) < 1.3 * lost
    assert torch.isfinite(smaller(**tiny.batch()).logits).all()
    shallow = LayerSubset(layers=2, training=TRAINING).compress(smaller, job(tmp_path / "subset", task=SHORT)).model
    assert ranks_of(shallow.config) == ranks_of(smaller.config)


def test_both_parts_may_come_one_after_the_other(tmp_path: Path) -> None:
    first = LowRank(embeddings=0.6, examples=20).compress(tiny.model(), job(tmp_path)).model
    both = LowRank(feed_forward=0.5, examples=20).compress(first, job(tmp_path)).model
    assert ranks_of(both.config) == Ranks(7, 5, 5)
    for name, value in first.get_input_embeddings().state_dict().items():
        assert torch.equal(value, both.get_input_embeddings().state_dict()[name])


def test_recovery_trains_the_factors(tmp_path: Path) -> None:
    method = LowRank(embeddings=0.5, feed_forward=0.5, examples=20)
    raw = method.compress(tiny.model(), job(tmp_path / "raw")).model
    trained = dataclasses.replace(method, training=TRAINING).compress(tiny.model(), job(tmp_path / "trained")).model
    assert not torch.equal(raw.get_input_embeddings().up.weight, trained.get_input_embeddings().up.weight)
    again = Theseus(modules=2, training=TRAINING).compress(trained, job(tmp_path / "theseus")).model
    assert ranks_of(again.config) == ranks_of(trained.config)


def test_several_labels_and_windows(tmp_path: Path) -> None:
    rows = [{**row, "label": [str(row["label"])]} for row in tiny.rows(40)]
    task = build_task(
        "tiny", {"train": rows[:30], "development": rows[30:], "test": rows[30:]}, ("macro_f1",), "multi_label"
    )
    several = LowRank(embeddings=0.5).compress(tiny.model(), job(tmp_path, task=task.without_test())).model
    windows = job(tmp_path, truncation=Truncation(max_length=6, windows=Windows(stride=2)))
    pooled = LowRank(feed_forward=0.5).compress(tiny.model(), windows).model
    for each in (several, pooled):
        assert torch.isfinite(each(**tiny.batch()).logits).all()


def test_a_masked_lm_keeps_its_embeddings_and_may_factorize_the_rest(tmp_path: Path) -> None:
    task = dataclasses.replace(tiny.task(160, 40).without_test(), kind="masked_lm")
    work, model = job(tmp_path, task=task, cache=tmp_path / "blocks"), tiny.masked_lm()
    with pytest.raises(MethodError, match="a masked LM's head shares them"):
        LowRank(embeddings=0.5).plan(tiny.spec(model, "masked_lm"))
    one, two = (LowRank(feed_forward=0.5, examples=10).compress(model, work).model for _ in range(2))
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
    assert one.get_output_embeddings().weight is one.get_input_embeddings().weight


def test_what_cannot_work_is_refused_in_words() -> None:
    spec = tiny.spec()
    with pytest.raises(MethodError, match="low rank already"):
        LowRank(embeddings=0.5).plan(LowRank(embeddings=0.5).plan(spec))
    with pytest.raises(MethodError, match=r"feed_forward 0.05 leaves no rank; allowed here: 0.0938 and more"):
        LowRank(feed_forward=0.05).plan(spec)
    uneven = prune(tiny.model(), [range(2)] * 4, [range(32), range(32), range(32), range(3)])
    with pytest.raises(MethodError, match="makes a matrix of 3 by 16 no smaller"):
        LowRank(feed_forward=0.8).plan(tiny.spec(uneven))
    with pytest.raises(MethodError, match="cannot be averaged"):
        Theseus(modules=2, initialization="mean_of_module").plan(LowRank(feed_forward=0.5).plan(spec))
    for wrong in ({}, {"embeddings": 1.0}, {"feed_forward": 0}):
        with pytest.raises(RecipeError):
            validate(wrong, LowRank)
