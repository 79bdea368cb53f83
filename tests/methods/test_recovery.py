"""Module replacing as recovery: compressed layers of any shape take the place of those that they were made of."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import tiny
from plankwise.core.errors import MethodError
from plankwise.core.schedules import linear
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.fake_quantized import FakeQuantized
from plankwise.encoder.low_rank import LowRankLinear
from plankwise.encoder.shapes import prune, shapes_of
from plankwise.encoder.surgery import rebuild
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.low_rank import LowRank
from plankwise.methods.method import Compressed
from plankwise.methods.module_replacing import Gate, Replacing
from plankwise.methods.pruning import Pruning
from plankwise.methods.quantization import Quantization
from plankwise.methods.recovery import ReplacingConfig, replacing_network
from plankwise.methods.theseus import Theseus
from plankwise.methods.vocabulary import TrimmedVocabulary
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.distillation.distillation_loss import distillation
from plankwise.training.distillation.losses import softmax_logits_loss
from plankwise.training.distillation.teacher import Teacher
from plankwise.training.fit import Training
from plankwise.training.objectives.losses import task_loss

TRAINING = Training(epochs=1, batch_size=16, learning_rate=2e-3, precision="fp32")
SHORT = tiny.task(64, 16).without_test()
ALONE = [[0], [1], [2]]  # a module for each layer
KINDS = pytest.mark.parametrize("kind", tiny.STRUCTURES)


def pruned(model: PreTrainedModel) -> PreTrainedModel:
    """Cut every layer differently: one keeps a head and few neurons, one no neuron, one no head."""
    units = len(shapes_of(model.config)[0].heads)
    return prune(model, [[units - 1], list(range(units)), []], [[3, 5], [], list(range(7))])


def run(network: PreTrainedModel, gates: list[Gate], draw: tuple[float, ...] = ()) -> torch.Tensor:
    """Run a network in training mode, but without dropout, with the branches drawn."""
    for part in network.train().modules():
        for name in ("p", "attention_dropout", "drop_prob", "dropout_prob"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
    for gate, share in zip(gates, draw, strict=True):
        gate.share = share
    with torch.inference_mode():
        logits: torch.Tensor = network(**tiny.batch()).logits
        return logits


def evaluated(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(**tiny.batch()).logits
        return logits


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@KINDS
def test_every_draw_runs_the_branches_that_the_gates_name(kind: str) -> None:
    """The slow reference is a model that keeps the layers whose predecessor runs whole, and cuts the others."""
    model = tiny.model(kind, 3, **tiny.FOUR_HEADS[kind])
    successor = pruned(model)
    network, gates = replacing_network(model, successor, ALONE)
    full = shapes_of(model.config)[0]
    answers = []
    for draw in itertools.product([0.0, 1.0], repeat=3):
        cut = [([len(full.heads) - 1], [3, 5]), (list(full.heads), []), ([], list(range(7)))]
        kept = [
            each if share else (list(full.heads), list(range(full.neurons)))
            for each, share in zip(cut, draw, strict=True)
        ]
        reference = prune(model, [heads for heads, _ in kept], [neurons for _, neurons in kept])
        answers.append(run(network, gates, draw))
        torch.testing.assert_close(answers[-1], evaluated(reference), rtol=0, atol=1e-5)
    assert all(not torch.allclose(one, other, atol=1e-4) for one, other in itertools.combinations(answers, 2))


def test_fake_int8_layers_replace_whole_ones() -> None:
    model = tiny.model(layers=3)
    rounding = FakeQuantized(model)
    with rounding.observing(), torch.no_grad():
        rounding.network(**tiny.batch())
    rounding.quantize([name for name in rounding.names() if name != "embeddings"])
    network, gates = replacing_network(model, rounding.network, ALONE)
    torch.testing.assert_close(run(network, gates, (0.0, 0.0, 0.0)), evaluated(model), rtol=0, atol=1e-6)
    alone = run(network, gates, (1.0, 1.0, 1.0))
    assert torch.equal(alone, evaluated(rounding.finished()))
    assert not torch.allclose(alone, evaluated(model), rtol=0, atol=1e-5)


@KINDS
def test_what_is_trained_in_the_network_is_the_successor_and_nothing_else(kind: str) -> None:
    model = tiny.model(kind, 3, **tiny.FOUR_HEADS[kind])
    before = weights(model)
    successor = pruned(model)
    network, gates = replacing_network(model, successor, ALONE)
    network.train()
    gates[1].share = 1.0
    network(**tiny.batch()).logits.square().sum().backward()
    trained = {id(value) for value in network.parameters() if value.requires_grad}
    assert trained == {id(value) for value in successor.parameters()}
    learned = {id(value) for value in network.parameters() if value.grad is not None}
    assert learned <= trained
    assert learned & {id(value) for value in layers_of(successor)[1].parameters()}
    assert not learned & {id(value) for value in layers_of(successor)[0].parameters()}
    assert same(before, weights(model))


@pytest.mark.parametrize(
    "method",
    [
        Pruning(neuron_step=4, examples=16, training=TRAINING, replacing=ReplacingConfig()),
        LowRank(feed_forward=0.5, weighting="none", training=TRAINING, replacing=ReplacingConfig()),
        Quantization(examples=16, training=TRAINING, replacing=ReplacingConfig(start=0.5, full_at=0.9)),
    ],
    ids=lambda method: method.method,
)
def test_the_log_has_the_draws(method: Any, tmp_path: Path) -> None:
    log = method.compress(tiny.model(), tiny.job(tmp_path / "a", task=SHORT)).log
    again = method.compress(tiny.model(), tiny.job(tmp_path / "a", task=SHORT)).log  # restores what is finished
    other = method.compress(tiny.model(), tiny.job(tmp_path / "b", task=SHORT, seed=2)).log
    replacing = method.replacing
    draws = Replacing(linear(replacing.start, replacing.full_at), [Gate() for _ in range(4)], seed=1, mode="replace")
    assert log.redraws == draws.redraws_until(4, 4)
    assert log.draws_sha256 == again.draws_sha256 == draws.digest_until(4, 4)
    assert log.draws_sha256 != other.draws_sha256


def test_a_resumed_process_hashes_the_draws_before_it() -> None:
    whole, resumed = (Replacing(linear(0.2, 0.8), [Gate() for _ in range(3)], seed=4, mode="replace") for _ in range(2))
    for step in range(20):
        whole(step, 20)
    for step in range(11, 20):
        resumed(step, 20)
    assert whole.digest_until(20, 20) == resumed.digest_until(20, 20) != resumed.digest_until(21, 21)


def test_replacing_changes_what_is_learnt(tmp_path: Path) -> None:
    alone = Pruning(neuron_step=4, examples=16, importance="magnitude", training=TRAINING)
    plain = alone.compress(tiny.model(), tiny.job(tmp_path / "a", task=SHORT)).model
    replaced = dataclasses.replace(alone, replacing=ReplacingConfig(start=0.3, full_at=1.0))
    made = replaced.compress(tiny.model(), tiny.job(tmp_path / "b", task=SHORT)).model
    assert shapes_of(made.config) == shapes_of(plain.config)
    assert not same(weights(plain), weights(made))


def test_low_rank_layers_stay_factorized(tmp_path: Path) -> None:
    method = LowRank(embeddings=0.5, feed_forward=0.5, training=TRAINING, replacing=ReplacingConfig())
    made = method.compress(tiny.model(), tiny.job(tmp_path, task=SHORT)).model
    assert sum(isinstance(part, LowRankLinear) for part in layers_of(made).modules()) == 8
    assert not any(".predecessor." in name or ".successor." in name for name in made.state_dict())


@pytest.mark.parametrize(
    ("method", "keys", "message"),
    [
        (Pruning, {}, "replacing is a way of training; add training"),
        (LowRank, {"feed_forward": 0.5}, "replacing is a way of training; add training"),
        (Quantization, {}, "replacing is a way of training; add training"),
        (LowRank, {"embeddings": 0.5, "training": TRAINING}, "embeddings alone change no layer; add feed_forward"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(method: Any, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**keys, replacing=ReplacingConfig())


def trimmed_and_shortened(tmp_path: Path, model: PreTrainedModel) -> Compressed:
    """Return a model with half the layers and another vocabulary than `model` has."""
    shorter = LayerSubset(layers=2, training=TRAINING).compress(model, tiny.job(tmp_path / "1", task=SHORT))
    job = tiny.job(tmp_path / "2", task=SHORT, tokenizer=shorter.tokenizer)
    return TrimmedVocabulary(minimum_count=16).compress(shorter.model, job)


def test_the_layers_of_the_baseline_give_way_to_those_of_the_model_so_far(tmp_path: Path) -> None:
    baseline = tiny.model()
    small = trimmed_and_shortened(tmp_path, baseline)
    network, gates = Theseus(modules=2).assemble(baseline, small.model)
    reference = rebuild(small.model, [(0,), (0,), (0,), (0,)]).eval()
    for target, source in zip(layers_of(reference), layers_of(baseline), strict=True):
        target.load_state_dict(source.state_dict())
    ids = {"input_ids": tiny.batch()["input_ids"] % small.model.config.vocab_size}
    network.train()
    for part in network.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    with torch.inference_mode():
        torch.testing.assert_close(network(**ids).logits, reference(**ids).logits, rtol=0, atol=1e-6)
        for gate in gates:
            gate.share = 1.0
        torch.testing.assert_close(network(**ids).logits, small.model.eval()(**ids).logits, rtol=0, atol=1e-6)


def test_a_run_with_the_baseline_as_predecessor_resumes_exactly(tmp_path: Path) -> None:
    given, asked = tiny.model(), list[str]()
    small = trimmed_and_shortened(tmp_path, given)
    method = Theseus(modules=2, predecessor="baseline", teacher=DistillationConfig(), training=TRAINING)

    def baseline() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        asked.append("baseline")
        return given, tiny.tokenizer()

    def compress(folder: str, **changes: Any) -> Compressed:
        job = tiny.job(tmp_path / folder, task=SHORT, tokenizer=small.tokenizer, baseline=baseline, **changes)
        return method.compress(small.model, job)

    before, own = weights(given), weights(small.model)
    first = compress("whole")
    assert asked
    assert same(weights(first.model), weights(compress("whole again").model))
    with pytest.raises(KeyboardInterrupt):
        compress("killed", callbacks=(tiny.Kill("killed"),))
    resumed = compress("killed")
    assert same(weights(first.model), weights(resumed.model))
    assert first.log.draws_sha256 == resumed.log.draws_sha256
    assert same(before, weights(given))
    assert same(own, weights(small.model))
    assert first.model.config.vocab_size == small.model.config.vocab_size < given.config.vocab_size
    assert not same(own, weights(first.model))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 8}, "its hidden_size is 16, and that of the model so far is 8"),
        ({"num_attention_heads": 4}, "its width of a head is 8, and that of the model so far is 4"),
        ({"layers": 1}, "2 modules do not fit a model of 1 layers"),
    ],
)
def test_a_model_that_does_not_fit_into_the_baseline_is_refused_by_the_plan(
    changes: dict[str, Any], message: str
) -> None:
    spec = tiny.spec(tiny.model(**changes), baseline=tiny.model(layers=6).config)
    with pytest.raises(MethodError, match=message):
        Theseus(modules=2, predecessor="baseline").plan(spec)


def test_the_plan_of_a_baseline_as_predecessor_keeps_the_sizes_of_the_model_so_far() -> None:
    small = pruned(tiny.model(layers=3))
    spec = tiny.spec(small, baseline=tiny.model(layers=6).config)
    planned = Theseus(modules=3, predecessor="baseline").plan(spec)
    assert shapes_of(planned.config) == shapes_of(small.config)
    assert planned.baseline is spec.baseline


def test_a_teacher_teaches_the_successors_that_run(tmp_path: Path) -> None:
    model = tiny.model()
    successor = pruned(tiny.model(layers=3, seed=3))
    network, gates = replacing_network(tiny.model(layers=3), successor, ALONE)
    config = DistillationConfig(task=0.0, logits=0.0, hidden=1.0, cache="none")
    examples = [{"input_ids": row} for row in tiny.batch()["input_ids"].tolist()]
    network.train()
    for draw in itertools.product([0.0, 1.0], repeat=3):
        for gate, share in zip(gates, draw, strict=True):
            gate.share = share
        network.zero_grad()
        with distillation(
            network,
            list(layers_of(successor)),
            Teacher(model, tiny.tokenizer(), "input", True),
            config,
            task_loss=task_loss("single_label"),
            logits_loss=softmax_logits_loss,
            examples=examples,
            pooling=None,
            cache=tmp_path,
            seed=1,
        ) as supervision:
            torch.autograd.backward(supervision.loss(network(**tiny.batch()), tiny.batch()))
        for share, layer in zip(draw, layers_of(successor), strict=True):
            learned = [value.grad is not None and bool(value.grad.any()) for value in layer.parameters()]
            assert any(learned) == bool(share)


def test_a_blend_of_single_layers_works_beside_a_convolution() -> None:
    model = tiny.model("deberta-v2", 3)
    Theseus(modules=3, mode="blend").plan(tiny.spec(model))
    with pytest.raises(MethodError, match=r"mode 'blend'.*convolves after layer 0; allowed: replace"):
        Theseus(modules=2, mode="blend").plan(tiny.spec(model))
    successor = rebuild(model, [(0,), (1,), (2,)])
    network, gates = replacing_network(model, successor, ALONE)
    torch.testing.assert_close(run(network, gates, (0.5, 0.5, 0.5)), evaluated(model), rtol=0, atol=1e-5)
