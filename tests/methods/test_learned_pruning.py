"""Learned gates against formulas and extremes; the method's budget, its cut, what it finds, and kills in both parts."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, TrainerCallback

import tiny
from plankwise.core.errors import MethodError, PlankwiseError
from plankwise.core.recipe import validate
from plankwise.data.task import Task, build_task
from plankwise.data.truncation import Truncation, Windows
from plankwise.encoder.anatomy import layers_of, residual_outputs_of
from plankwise.encoder.cost import linear_flops_per_token
from plankwise.encoder.gates import LayerGates, fold, gated, gated_per_call
from plankwise.encoder.shapes import prune, shapes_of
from plankwise.methods.cost_table import flops_costs
from plankwise.methods.hard_concrete import (
    GATE_KINDS,
    GateKind,
    LearnedGates,
    concrete_keep_probability,
    concrete_sample,
)
from plankwise.methods.learned_pruning import LearnedPruning, LearnedPruningLog
from plankwise.methods.low_rank import LowRank
from plankwise.methods.selection import Selection
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training
from plankwise.training.objectives.classification import SingleLabel
from plankwise.training.objectives.losses import Loss

KINDS: tuple[GateKind, ...] = ("hard_concrete", "movement")
TRAINING = Training(epochs=4, batch_size=16, learning_rate=2e-3, precision="fp32")
OPEN, SHUT = 100.0, -100.0
each_kind = pytest.mark.parametrize("kind", KINDS)


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(**tiny.batch()).logits
        return found


def gates_of(model: PreTrainedModel, kind: GateKind = "hard_concrete") -> LearnedGates:
    return LearnedGates(flops_costs(model), kind, lr_multiplier=1.0)


def set_to(gates: LearnedGates, kept: Selection) -> None:
    """Open the units named and shut all others."""
    with torch.no_grad():
        for parameter in (gates.heads, gates.neurons):
            parameter.fill_(SHUT)
        for parameter in (gates.attention, gates.feed_forward):
            parameter.fill_(OPEN)
        for parameter, layers, count in ((gates.heads, kept.heads, 2), (gates.neurons, kept.neurons, 32)):
            for layer, units in enumerate(layers):
                parameter[[layer * count + each for each in units]] = OPEN


SOME = Selection([[0, 1], [], [1], [0]], [[], [0, 7, 31], list(range(32)), [5]])


@each_kind
def test_the_expected_cost_of_certain_gates_is_the_counted_one(kind: GateKind) -> None:
    model = tiny.model()
    gates = gates_of(model, kind)
    set_to(gates, SOME)
    counted = linear_flops_per_token(prune(model, SOME.heads, SOME.neurons)) / linear_flops_per_token(model)
    assert gates.expected_share().item() == pytest.approx(counted)
    with torch.no_grad():
        gates.attention[0] = SHUT
        gates.feed_forward[2] = SHUT
    fewer = prune(model, [[], *SOME.heads[1:]], [*SOME.neurons[:2], [], SOME.neurons[3]])
    assert gates.expected_share().item() == pytest.approx(linear_flops_per_token(fewer) / linear_flops_per_token(model))


def test_hard_concrete_gates_are_open_as_often_as_their_keep_probability() -> None:
    scores = torch.linspace(-3, 3, 7)
    torch.manual_seed(0)
    drawn = concrete_sample(scores.repeat(20_000, 1))
    assert (drawn > 0).float().mean(0).tolist() == pytest.approx(concrete_keep_probability(scores).tolist(), abs=0.015)
    assert drawn.min() == 0
    assert drawn.max() == 1
    by_hand = [1 / (1 + math.exp(-(score - 2 / 3 * math.log(0.1 / 1.1)))) for score in scores.tolist()]
    assert concrete_keep_probability(scores).tolist() == pytest.approx(by_hand, rel=1e-5)


def test_movement_gates_are_steps_with_the_gradient_of_a_sigmoid() -> None:
    scores = torch.tensor([-2.0, -0.1, 0.1, 2.0], requires_grad=True)
    drawn = GATE_KINDS["movement"].sample(scores)
    assert drawn.tolist() == [0, 0, 1, 1]
    torch.autograd.backward(drawn.sum())
    soft = torch.sigmoid(scores.detach())
    assert torch.allclose(scores.grad, soft * (1 - soft))  # type: ignore[arg-type]


def test_gates_descend_on_the_penalty_and_multipliers_ascend_at_their_own_rate() -> None:
    gates = LearnedGates(flops_costs(tiny.model()), "hard_concrete", lr_multiplier=50.0)
    with torch.no_grad():
        gates.multipliers.copy_(torch.tensor([0.02, 0.06]))  # times lr_multiplier: 1 and 3
    gap = gates.expected_share().item() - 0.5
    penalty = gates.penalty(0.5)
    assert penalty.item() == pytest.approx(gap + (10 + 3) * gap**2)
    torch.autograd.backward(penalty)
    assert gates.multipliers.grad.tolist() == pytest.approx([-gap, -(gap**2)])  # type: ignore[union-attr]
    for each in (gates.heads, gates.neurons, gates.attention, gates.feed_forward):
        assert each.grad is not None
        assert (each.grad > 0).all()
    before = gates.expected_share().item()
    with torch.no_grad():
        gates.attention.sub_(0.1)  # 5 in score
    assert gates.expected_share().item() < before


@pytest.mark.parametrize("architecture", tiny.STRUCTURES)
def test_the_cut_model_with_folded_gates_is_the_gated_network(architecture: str) -> None:
    model = tiny.model(architecture)
    gates = gates_of(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in (gates.heads, gates.neurons, gates.attention, gates.feed_forward):
            parameter.copy_(torch.randn_like(parameter) - 2.4)  # deterministic: some at 0, some at 1, most between
    costs = flops_costs(model)
    kept = gates.select(costs, 0.6 * costs.full(), neuron_step=4)
    smaller = prune(model, kept.heads, kept.neurons)
    fold(smaller, gates.deterministic_factors(kept))
    masks = []
    for all_of, heads, neurons in zip(gates.eval().factors(), kept.heads, kept.neurons, strict=True):
        shut = LayerGates(torch.zeros_like(all_of.heads), torch.zeros_like(all_of.neurons))
        shut.heads[heads], shut.neurons[neurons] = all_of.heads[heads].detach(), all_of.neurons[neurons].detach()
        masks.append(shut)
    before = logits(model)
    with gated(model, masks):
        assert torch.allclose(logits(smaller), logits(model), atol=1e-5)
    assert torch.equal(logits(model), before)
    assert not torch.allclose(logits(smaller), before, atol=1e-5)


def test_gates_are_sampled_at_every_call_and_gone_afterwards() -> None:
    model = tiny.model()
    gates, before = gates_of(model), logits(model)
    with torch.no_grad(), gated_per_call(model, gates.factors):
        torch.manual_seed(0)
        first, second = model(**tiny.batch()).logits, model(**tiny.batch()).logits
        torch.manual_seed(0)
        again = model(**tiny.batch()).logits
        gates.eval()
        assert torch.equal(model(**tiny.batch()).logits, model(**tiny.batch()).logits)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(logits(model), before)


def test_all_gates_learn_from_the_network_they_gate() -> None:
    model = tiny.model()
    gates = gates_of(model)
    torch.manual_seed(0)
    with gated_per_call(model, gates.factors):
        for _ in range(8):  # a gate that is drawn as 1 has no slope
            model(**tiny.batch()).logits.square().sum().backward()
    for parameter in (gates.heads, gates.neurons, gates.attention, gates.feed_forward):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize(("kind", "target"), [("hard_concrete", 1.5), ("movement", 4.0)])
def test_the_target_is_reached_and_the_budget_used(kind: GateKind, target: float, tmp_path: Path) -> None:
    model = tiny.model()
    made = LearnedPruning(target=target, gates=kind, neuron_step=1, training=TRAINING).compress(
        model, tiny.job(tmp_path)
    )
    smaller, log = made.model, made.log
    assert isinstance(log, LearnedPruningLog)
    assert log.training is not None
    whole, left = linear_flops_per_token(model), linear_flops_per_token(smaller)
    assert 0.95 * whole / target < left <= whole / target
    assert log.pruning["linear_flops_per_token"] == [whole, left]
    assert log.pruning["heads_and_neurons"] == [[len(each.heads), each.neurons] for each in shapes_of(smaller.config)]
    assert (log.search.steps, log.training.steps, log.training.planned_steps) == (15, 25, 25)
    assert [each["step"] for each in log.training.history] == [21, 25]
    assert not [name for name, _ in smaller.named_modules() if "gates" in name]


@each_kind
def test_gates_of_units_that_nothing_gains_from_are_shut(kind: GateKind) -> None:
    """Every unit but head 1 of layers 0 and 2 and the last neurons of layer 1 lowers the loss while it is open."""
    model = tiny.model()
    gates, costs = LearnedGates(flops_costs(model), kind, lr_multiplier=1.0), flops_costs(model)
    gains = [LayerGates(torch.ones(2), torch.full((32,), 0.1)) for _ in range(4)]
    gains[0].heads[1] = gains[2].heads[1] = 0
    gains[1].neurons[24:] = 0
    optimizer = torch.optim.AdamW(gates.parameters(), lr=0.05)
    torch.manual_seed(0)
    for step in range(300):
        gained = sum(
            (of.heads * gain.heads).sum() + (of.neurons * gain.neurons).sum()
            for of, gain in zip(gates.factors(), gains, strict=True)
        )
        goal = max(0.84, 1 - step / 600)
        torch.autograd.backward(gates.penalty(goal) - gained)
        optimizer.step()
        optimizer.zero_grad()
    assert gates.expected_share().item() == pytest.approx(0.84, abs=0.03)
    kept = gates.select(costs, (16384 - 2 * 1024 - 8 * 64) / 16384 * costs.full(), neuron_step=1)
    everything = list(range(32))
    assert kept == Selection([[0], [0, 1], [0], [0, 1]], [everything, list(range(24)), everything, everything])


@dataclass(frozen=True)
class OtherLoss(SingleLabel):
    """One label a text, with a loss of the test's own."""

    own: Loss | None = None

    def loss(self, task: Task) -> Loss:
        assert self.own is not None
        return self.own


def test_useless_units_are_found_in_training(tmp_path: Path) -> None:
    """The weights hardly learn, every unit's output matters to the loss, and two heads and eight neurons have none."""
    model = tiny.model()
    with torch.no_grad():
        for index, layer in enumerate(layers_of(model)):
            attention, feed_forward = residual_outputs_of(model, layer)
            attention.weight *= 5  # so that an output that is missing shows in the logits
            feed_forward.weight *= 5
            attention.weight[:, 8:] *= 0 if index in (0, 2) else 1  # head 1
            feed_forward.weight[:, 24:] *= 0 if index == 1 else 1
    whole = copy.deepcopy(model)

    def difference(outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            wanted = whole(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        error: torch.Tensor = 1e6 * (outputs.logits - wanted).square().mean()
        return error

    still = Training(epochs=10, batch_size=16, learning_rate=1e-7, precision="fp32")
    method = LearnedPruning(target=1.2, search=0.9, gate_learning_rate=0.1, neuron_step=1, training=still)
    smaller = method.compress(model, tiny.job(tmp_path, objective=OtherLoss(own=difference))).model
    shapes = shapes_of(smaller.config)
    assert [shapes[index].heads for index in (0, 2)] == [(0,), (0,)]
    lost = [32 - shape.neurons for shape in shapes]
    assert lost[1] > sum(lost) / 2


class Kill(TrainerCallback):  # type: ignore[misc]
    """Ends the process at the beginning of a step, counted over both trainings from 0."""

    def __init__(self, at: int) -> None:
        self._left = at

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1


@functools.cache
def uninterrupted(kind: GateKind) -> PreTrainedModel:
    with tempfile.TemporaryDirectory() as folder:
        return kill_settings(kind).compress(tiny.model(), tiny.job(Path(folder))).model


def kill_settings(kind: GateKind) -> LearnedPruning:
    return LearnedPruning(gates=kind, training=TRAINING, gate_learning_rate=0.3)


@pytest.mark.parametrize(("kind", "kill_at"), [("hard_concrete", 9), ("hard_concrete", 15), ("movement", 23)])
def test_a_kill_in_either_part_changes_nothing(kind: GateKind, kill_at: int, tmp_path: Path) -> None:
    """Steps 0 to 14 search, 15 to 24 tune."""
    method, whole = kill_settings(kind), uninterrupted(kind)
    with pytest.raises(KeyboardInterrupt):
        method.compress(tiny.model(), tiny.job(tmp_path / "killed", callbacks=(Kill(kill_at),)))
    assert (tmp_path / "killed" / "tuning").exists() == (kill_at >= 15)
    resumed = method.compress(tiny.model(), tiny.job(tmp_path / "killed")).model
    first, second = whole.state_dict(), resumed.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert shapes_of(whole.config) == shapes_of(resumed.config)


def test_a_teacher_teaches_both_parts(tmp_path: Path) -> None:
    method = LearnedPruning(teacher=DistillationConfig(task=0.0, logits=1.0, hidden=0.1), training=TRAINING)
    model = tiny.model()
    before = copy.deepcopy(model.state_dict())
    alone = LearnedPruning(training=TRAINING).compress(model, tiny.job(tmp_path / "alone")).model
    taught = method.compress(model, tiny.job(tmp_path / "taught")).model
    assert linear_flops_per_token(taught) <= linear_flops_per_token(model) / 2
    assert not torch.equal(logits(taught), logits(alone))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_several_labels_windows_and_a_corpus(tmp_path: Path) -> None:
    method = LearnedPruning(training=dataclasses.replace(TRAINING, epochs=2))
    rows = [{**row, "label": [str(row["label"])]} for row in tiny.rows(40)]
    several = build_task(
        "tiny", {"train": rows[:30], "development": rows[30:], "test": rows[30:]}, ("macro_f1",), "multi_label"
    )
    corpus = dataclasses.replace(tiny.task(160, 40).without_test(), kind="masked_lm")
    changes: list[tuple[PreTrainedModel, dict[str, Any]]] = [
        (tiny.model(), {"task": several.without_test()}),
        (tiny.model(), {"truncation": Truncation(max_length=6, windows=Windows(stride=2))}),
        (tiny.masked_lm(), {"task": corpus, "cache": tmp_path / "blocks"}),
    ]
    for number, (model, change) in enumerate(changes):
        smaller = method.compress(model, tiny.job(tmp_path / str(number), **change)).model
        assert linear_flops_per_token(smaller) <= linear_flops_per_token(model) / 2
        assert torch.isfinite(logits(smaller)).all()


def test_low_rank_layers_are_refused_before_training() -> None:
    with pytest.raises(MethodError, match="learned_pruning cannot cut low-rank layers"):
        LearnedPruning().plan(LowRank(feed_forward=0.5).plan(tiny.spec()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 1.0}, "greater than 1"),
        ({"search": 1.0}, "less than 1"),
        ({"gates": "soft"}, "hard_concrete"),
        ({"search": 0.2, "warmup": 0.4}, r"warmup 0\.4 ends after the search; allowed: up to 0\.2"),
        ({"teacher": {"relations": 1.0}}, "relations need heads in the last layer"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_words(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PlankwiseError, match=message):
        validate({"method": "learned_pruning", **settings}, LearnedPruning)


def test_the_goal_falls_in_a_straight_line_and_stays() -> None:
    method = LearnedPruning(target=4.0, search=0.8, warmup=0.4)
    assert [method.goal(each) for each in (0.0, 0.2, 0.4, 0.8)] == pytest.approx([1.0, 0.625, 0.25, 0.25])
    assert method.goal(0.2, initial_share=0.75) == pytest.approx(0.5)
    assert LearnedPruning(target=4.0, warmup=0.0).goal(0.0) == 0.25
