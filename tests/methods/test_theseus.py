"""Theseus against slow references: the module it runs, the draws, the freezing, the exported model."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, GPT2Config, PreTrainedModel

import tiny
from plankwise.core.errors import MethodError, ModelError, RecipeError
from plankwise.core.schedules import constant, linear
from plankwise.encoder.anatomy import ANATOMIES, anatomy_of, layer_types, layers_of
from plankwise.encoder.surgery import rebuild
from plankwise.methods.layer_init import Initialization, contiguous_modules, sources_of
from plankwise.methods.module_replacing import Gate, Replacing, Slot
from plankwise.methods.theseus import Theseus
from plankwise.training.fit import Training

TRAINING = Training(epochs=1, batch_size=16, learning_rate=2e-3, precision="fp32")
SHORT = tiny.task(32, 16).without_test()
KINDS = pytest.mark.parametrize("kind", tiny.STRUCTURES)


def assembled(model: PreTrainedModel, settings: Theseus) -> tuple[PreTrainedModel, list[Gate], PreTrainedModel]:
    planned = settings.plan(tiny.spec(model)).config
    modules = contiguous_modules(len(layers_of(model)), settings.modules)
    successor = rebuild(model, sources_of(modules, settings.initialization), layer_types(planned)).eval()
    with torch.no_grad():
        for value in layers_of(successor).parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))
    network, gates = settings.assemble(model, successor)
    return network, gates, successor


def slots_of(network: PreTrainedModel) -> list[Slot]:
    slots = list(layers_of(network))
    assert all(isinstance(each, Slot) for each in slots)
    return slots  # type: ignore[return-value]


def run(network: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = network(**tiny.batch()).logits
        return logits


def in_training_without_dropout(network: PreTrainedModel) -> PreTrainedModel:
    network.train()
    for part in network.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if hasattr(part, "attention_dropout") and isinstance(part.attention_dropout, float):
            part.attention_dropout = 0.0
        if type(part).__name__ == "StableDropout":
            part.drop_prob = 0.0
    return network


@pytest.mark.parametrize(
    ("kind", "initialization"),
    [
        *((kind, "last_of_module") for kind in tiny.STRUCTURES),
        *(("modernbert", each) for each in ("first_of_module", "bottom", "top", "mean_of_module")),
    ],
)
def test_in_evaluation_the_network_is_the_exported_model(kind: str, initialization: Initialization) -> None:
    network, _, successor = assembled(tiny.model(kind, 5), Theseus(modules=2, initialization=initialization))
    torch.testing.assert_close(run(network.eval()), run(successor.eval()), rtol=0, atol=1e-6)


@KINDS
def test_with_every_predecessor_drawn_the_network_is_the_predecessor(kind: str) -> None:
    model = tiny.model(kind, 5)
    network, gates, _ = assembled(model, Theseus(modules=2))
    in_training_without_dropout(network)
    assert all(gate.share == 0.0 for gate in gates)
    torch.testing.assert_close(run(network), run(model.eval()), rtol=0, atol=1e-6)


@KINDS
def test_every_draw_equals_a_plain_stack_of_the_branches_drawn(kind: str) -> None:
    """The slow reference: a plain model whose layers are, module by module, those of the branch drawn."""
    model = tiny.model(kind, 5, conv_kernel_size=0) if kind == "deberta-v2" else tiny.model(kind, 5)
    settings = Theseus(modules=2, initialization="first_of_module")
    network, gates, successor = assembled(model, settings)
    in_training_without_dropout(network)
    modules, types = contiguous_modules(5, 2), layer_types(model.config)
    for draw in itertools.product([0.0, 1.0], repeat=2):
        for gate, share in zip(gates, draw, strict=True):
            gate.share = share
        stack = [
            layer
            for module, share, one in zip(modules, draw, layers_of(successor), strict=True)
            for layer in ([one] if share else [layers_of(model)[index] for index in module])
        ]
        kinds = [
            each
            for module, share in zip(modules, draw, strict=True)
            for each in ([types[module[0]]] if share else [types[index] for index in module])
        ]
        reference = rebuild(model, [()] * len(stack), kinds).eval()
        for target, source in zip(layers_of(reference), stack, strict=True):
            target.load_state_dict(source.state_dict())
        torch.testing.assert_close(run(network), run(reference), rtol=0, atol=1e-6)


@KINDS
def test_a_blend_mixes_the_outputs_of_each_module(kind: str) -> None:
    model = tiny.model(kind, 4, conv_kernel_size=0) if kind == "deberta-v2" else tiny.model(kind, 4)
    network, gates, successor = assembled(model, Theseus(modules=1, mode="blend"))
    in_training_without_dropout(network)
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _, __, output: seen.__setitem__(name, output[0] if isinstance(output, tuple) else output)

    slots = slots_of(network)
    slots[-1].register_forward_hook(keep("mixed"))
    slots[-1].predecessor.register_forward_hook(keep("old"))
    layers_of(successor)[0].register_forward_hook(keep("new"))
    gates[0].share = 0.25
    run(network)
    torch.testing.assert_close(seen["mixed"], 0.75 * seen["old"] + 0.25 * seen["new"], rtol=0, atol=1e-6)


def test_a_blend_is_refused_where_the_encoder_convolves_between_layers() -> None:
    with pytest.raises(MethodError, match="blend"):
        assembled(tiny.model("deberta-v2"), Theseus(modules=2, mode="blend"))


@KINDS
def test_the_predecessor_is_frozen_for_real(kind: str) -> None:
    network, gates, _ = assembled(tiny.model(kind, 4), Theseus(modules=2, train_head=False))
    network.train()
    gates[0].share, gates[1].share = 0.0, 1.0
    network(**tiny.batch()).logits.square().sum().backward()
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    assert trained
    assert all(".successor." in name for name in trained)
    assert {name for name, value in network.named_parameters() if value.grad is not None} <= trained
    slots = slots_of(network)
    assert not any(slot.predecessor.training for slot in slots)
    assert all(slot.successor.training for slot in slots if slot.successor is not None)


def test_the_graph_begins_at_the_first_successor() -> None:
    network, gates, _ = assembled(tiny.model(layers=4), Theseus(modules=2, train_head=False))
    network.train()
    gates[0].share, gates[1].share = 0.0, 1.0
    graph = []
    for slot in slots_of(network):
        slot.register_forward_hook(lambda _, __, output: graph.append(output.requires_grad))
    network(**tiny.batch())
    assert graph == [False, False, True, True]


def test_predecessor_dropout_is_off_by_default() -> None:
    quiet, gates, _ = assembled(tiny.model(layers=4), Theseus(modules=2))
    noisy, other, _ = assembled(tiny.model(layers=4), Theseus(modules=2, predecessor_dropout=True))
    assert not any(slot.predecessor.training for slot in slots_of(quiet.train()))
    assert all(slot.predecessor.training for slot in slots_of(noisy.train()))
    assert len(gates) == len(other) == 2


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("head", [False, True])
def test_what_trains_is_what_the_settings_say(embeddings: bool, head: bool, tmp_path: Path) -> None:
    model = tiny.model()
    settings = Theseus(modules=2, train_embeddings=embeddings, train_head=head, training=TRAINING)
    smaller = settings.compress(model, tiny.job(tmp_path, task=SHORT)).model
    old, new = model.state_dict(), smaller.state_dict()
    changed = {name for name in new if name in old and not torch.equal(old[name], new[name])}
    assert any("embeddings" in name for name in changed) == embeddings
    assert any(name.startswith("classifier") for name in changed) == head


def test_modules_draw_one_by_one() -> None:
    """The known wrong implementation has one gate for all modules."""
    replacing = Replacing(constant(0.5, 1.0), [Gate() for _ in range(6)], seed=3, mode="replace")
    draws = np.array([replacing.draw(step, 0.5)[0] for step in range(2000)])
    assert abs(draws.mean() - 0.5 / (1 - 0.5**6)) < 0.02
    assert np.abs(np.corrcoef(draws.T) - np.eye(6)).max() < 0.1
    assert {int(total) for total in draws.sum(axis=1)} == {1, 2, 3, 4, 5, 6}


def test_draws_depend_on_seed_and_step_alone() -> None:
    one, other = (Replacing(linear(0.2, 0.85), [Gate() for _ in range(6)], seed=3, mode="replace") for _ in range(2))
    different = Replacing(linear(0.2, 0.85), [Gate() for _ in range(6)], seed=4, mode="replace")
    torch.manual_seed(99)
    backwards = {step: other.draw(step, 0.3) for step in reversed(range(50))}
    assert all(one.draw(step, 0.3) == backwards[step] for step in range(50))
    assert any(one.draw(step, 0.3) != different.draw(step, 0.3) for step in range(50))


def test_an_all_predecessor_draw_is_redrawn_and_counted() -> None:
    replacing = Replacing(constant(0.1, 1.0), [Gate() for _ in range(6)], seed=0, mode="replace")
    draws = [replacing.draw(step, 0.1) for step in range(1000)]
    assert all(sum(chosen) >= 1 for chosen, _ in draws)
    expected = 1000 * 0.9**6 / (1 - 0.9**6)
    assert abs(replacing.redraws_until(1000, 1000) - expected) < 0.15 * expected
    assert replacing.redraws_until(1000, 1000) == sum(redraws for _, redraws in draws)


def test_the_curve_of_the_replacement_rate_is_what_was_drawn() -> None:
    replacing = Replacing(linear(0.2, 0.5), [Gate() for _ in range(6)], seed=0, mode="replace")
    curve = replacing.curve(1000, 1000)
    assert len(curve) == 50
    assert [point["step"] for point in curve[:2]] == [20, 40]
    drawn = [np.mean([replacing.draw(step, replacing._schedule(step / 1000))[0] for step in range(20, 40)])]
    assert curve[1]["replaced"] == pytest.approx(drawn[0], abs=1e-4)
    assert curve[1]["rate"] == pytest.approx(0.2 + 0.8 * 29.5 / 500, abs=1e-4)
    assert curve[-1] == {"step": 1000, "rate": 1.0, "replaced": 1.0}
    assert replacing.curve(7, 1000)[-1]["step"] == 7  # a training that was stopped early


def test_the_gates_follow_the_schedule_and_end_all_replaced() -> None:
    gates = [Gate() for _ in range(4)]
    replacing = Replacing(linear(0.2, 0.5), gates, seed=0, mode="replace")
    for step in range(50, 100):
        replacing(step, 100)
        assert [gate.share for gate in gates] == [1.0] * 4
    blending = Replacing(linear(0.2, 0.5), gates, seed=0, mode="blend")
    blending(25, 100)
    assert [gate.share for gate in gates] == [pytest.approx(0.6)] * 4


@pytest.mark.parametrize(
    ("depth", "modules", "expected"),
    [
        (4, 2, [[0, 1], [2, 3]]),
        (5, 2, [[0, 1, 2], [3, 4]]),
        (3, 3, [[0], [1], [2]]),
        (7, 3, [[0, 1, 2], [3, 4], [5, 6]]),
        (4, [[0], [1, 2, 3]], [[0], [1, 2, 3]]),
    ],
)
def test_modules(depth: int, modules: Any, expected: Any) -> None:
    assert contiguous_modules(depth, modules) == expected


@pytest.mark.parametrize("modules", [5, [[0, 1], [3]], [[1, 0], [2, 3]], [[0, 1, 2, 3], []]])
def test_modules_that_do_not_fit_are_refused(modules: Any) -> None:
    with pytest.raises(MethodError):
        contiguous_modules(4, modules)


def test_sources() -> None:
    modules = contiguous_modules(12, 4)
    expected = {
        "bottom": [(0,), (1,), (2,), (3,)],
        "top": [(8,), (9,), (10,), (11,)],
        "first_of_module": [(0,), (3,), (6,), (9,)],
        "last_of_module": [(2,), (5,), (8,), (11,)],
        "alternate": [(0,), (4,), (7,), (11,)],
        "mean_of_module": [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)],
        "random": [(), (), (), ()],
    }
    assert {name: sources_of(modules, name) for name in expected} == expected  # type: ignore[arg-type]
    assert sources_of(modules, [3, 1, 4, 1]) == [(3,), (1,), (4,), (1,)]
    with pytest.raises(MethodError, match="name 4 layers between 0 and 11"):
        sources_of(modules, [0, 12, 1, 2])


@KINDS
def test_end_to_end_on_every_architecture(kind: str, tmp_path: Path) -> None:
    """Compressed, saved, and loaded by plain Transformers: same depth, same layer types, same logits."""
    settings = Theseus(modules=[[0], [1, 2], [3, 4]], initialization="last_of_module", training=TRAINING)
    model = tiny.model(kind, 5)
    made = settings.compress(model, tiny.job(tmp_path / "w", task=SHORT))
    smaller, log = made.model, made.log
    smaller.save_pretrained(tmp_path / "m")
    again, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not any(report.values())
    assert again.config.num_hidden_layers == 3
    if kind == "modernbert":
        assert again.config.layer_types == [model.config.layer_types[index] for index in (0, 2, 4)]
    with torch.inference_mode():
        assert torch.equal(again.eval()(**tiny.batch()).logits, smaller(**tiny.batch()).logits)
    assert log.training is not None
    assert log.training.steps == 2
    replacing = Replacing(linear(0.2, 0.85), [Gate() for _ in range(3)], seed=1, mode="replace")
    assert log.redraws == replacing.redraws_until(2, 2)


def test_other_architectures_are_refused_by_name_with_the_list() -> None:
    with pytest.raises(ModelError, match=r"'gpt2' is not a supported encoder.*bert, roberta.*eurobert"):
        anatomy_of(GPT2Config())
    with pytest.raises(ModelError, match="decoder"):
        anatomy_of(tiny.model(is_decoder=True).config)
    assert set(tiny.SIZES) == set(ANATOMIES)


def test_the_paper_preset() -> None:
    paper = Theseus(preset="paper", modules=3)
    assert (paper.initialization, paper.train_embeddings, paper.train_head) == ("bottom", False, False)
    assert paper.predecessor_dropout
    with pytest.raises(ValueError, match="train_head True contradicts the preset 'paper'"):
        Theseus(preset="paper", train_head=True)
    assert RecipeError.exit_code == 2
