"""Layers of their own sizes, on every architecture: slicing equals masking, and all else works as on any model."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from transformers import AutoModelForMaskedLM, PreTrainedModel

import tiny
from plankwise.core.errors import MethodError
from plankwise.encoder.anatomy import layers_of, residual_outputs_of
from plankwise.encoder.configuration import head_units
from plankwise.encoder.gates import LayerGates, gated
from plankwise.encoder.shapes import is_plain, prune, shapes_of
from plankwise.encoder.surgery import frozen_twin, grow, rebuild
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.theseus import Theseus

Selection = tuple[list[list[int]], list[list[int]]]
CASES = {
    **{kind: (kind, tiny.FOUR_HEADS[kind]) for kind in tiny.ARCHITECTURES},
    "deberta-v2-shared": ("deberta-v2", {**tiny.FOUR_HEADS["deberta-v2"], "share_att_key": True}),
}
each_kind = pytest.mark.parametrize("name", CASES)
# Two kinds differ from roberta in nothing but their names, which the tests over each kind cover.
each_family = pytest.mark.parametrize("name", [name for name in CASES if name not in ("xlm-roberta", "camembert")])


def whole(name: str, layers: int = 4) -> PreTrainedModel:
    """Build a model whose layers weigh enough for every cut to show."""
    kind, changes = CASES[name]
    model = tiny.model(kind, layers, **changes)
    with torch.no_grad():
        for value in layers_of(model).parameters():
            value.add_(0.3 * torch.randn_like(value))
    return model


def select(model: PreTrainedModel, seed: int = 0) -> Selection:
    """Choose heads and neurons at random, no two layers alike: one without heads, one without neurons, one whole."""
    draw, sizes = random.Random(seed), shapes_of(model.config)
    some = [(_some(draw, len(each.heads)), _some(draw, each.neurons)) for each in sizes]
    heads, neurons = [each[0] for each in some], [each[1] for each in some]
    heads[1], neurons[2] = [], []
    heads[3], neurons[3] = list(range(len(sizes[3].heads))), list(range(sizes[3].neurons))
    return heads, neurons


def _some(draw: random.Random, count: int) -> list[int]:
    return sorted(draw.sample(range(count), draw.randint(min(1, count), count)))


def cut(name: str, seed: int = 0) -> PreTrainedModel:
    model = whole(name)
    return prune(model, *select(model, seed))


def masks(model: PreTrainedModel, chosen: Selection) -> list[LayerGates]:
    """Return the gates, 0 or 1, that keep what is chosen."""
    gates = []
    for shape, heads, neurons in zip(shapes_of(model.config), *chosen, strict=True):
        gate = LayerGates(torch.zeros(len(shape.heads)), torch.zeros(shape.neurons))
        gate.heads[heads], gate.neurons[neurons] = 1.0, 1.0
        gates.append(gate)
    return gates


def logits(model: torch.nn.Module, **batch: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(**(batch or tiny.batch())).logits
    return found


@pytest.mark.parametrize(("seed", "dtype", "tolerance"), [(0, torch.float32, 1e-5), (1, torch.float64, 1e-10)])
@each_kind
def test_slicing_equals_masking(name: str, seed: int, dtype: torch.dtype, tolerance: float) -> None:
    model = whole(name).to(dtype)
    before, chosen = copy.deepcopy(model.state_dict()), select(model, seed)
    with gated(model, masks(model, chosen)):
        masked = logits(model)
    torch.testing.assert_close(logits(prune(model, *chosen)), masked, rtol=0, atol=tolerance)
    assert (masked - logits(model)).abs().max() > 1e-2  # the cut cuts something
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@each_kind
def test_cut_models_have_the_sizes_that_they_say(name: str) -> None:
    model = whole(name)
    heads, neurons = select(model)
    smaller = prune(model, heads, neurons)
    assert [shape.heads for shape in shapes_of(smaller.config)] == [tuple(each) for each in heads]
    assert [shape.neurons for shape in shapes_of(smaller.config)] == [len(each) for each in neurons]
    width = model.config.hidden_size // head_units(model.config)
    for layer, kept, stay in zip(layers_of(smaller), heads, neurons, strict=True):
        sizes = [projection.in_features for projection in residual_outputs_of(smaller, layer)]
        assert sizes == [width * len(kept), len(stay)]
    assert is_plain(model.config)
    assert not is_plain(smaller.config)


@each_family
def test_gates_may_differ_from_text_to_text(name: str) -> None:
    model, batch = whole(name), tiny.batch()
    draw = torch.Generator().manual_seed(0)
    gates = [
        LayerGates(torch.rand(4, len(each.heads), generator=draw), torch.rand(4, each.neurons, generator=draw))
        for each in shapes_of(model.config)
    ]
    with gated(model, gates):
        together = logits(model)
    for text in range(4):
        with gated(model, [LayerGates(gate.heads[text], gate.neurons[text]) for gate in gates]):
            alone = logits(model, **{key: value[text : text + 1] for key, value in batch.items()})
        torch.testing.assert_close(alone, together[text : text + 1], rtol=0, atol=1e-5)
    assert torch.equal(logits(model), logits(whole(name)))


@each_family
def test_gates_of_a_cut_model_work_and_have_gradients(name: str) -> None:
    model = cut(name)
    gates = [LayerGates(torch.ones(len(each.heads)), torch.ones(each.neurons)) for each in shapes_of(model.config)]
    for gate in gates:
        gate.heads.requires_grad_(), gate.neurons.requires_grad_()
    with gated(model, gates):
        model(**tiny.batch()).logits.square().sum().backward()
    assert torch.equal(logits(model), logits(cut(name)))
    for gate in gates:
        for factors in (gate.heads, gate.neurons):
            if factors.numel():
                assert factors.grad is not None
                assert factors.grad.abs().sum() > 0


@each_family
def test_pruning_twice_is_pruning_once_by_what_is_left(name: str) -> None:
    model = whole(name)
    first = select(model)
    once = prune(model, *first)
    second = select(once, seed=1)
    left = tuple(
        [[kept[each] for each in then] for kept, then in zip(had, keep, strict=True)]
        for had, keep in zip(first, second, strict=True)
    )
    direct, twice = prune(model, *left), prune(once, *second)
    assert shapes_of(direct.config) == shapes_of(twice.config)
    assert all(torch.equal(value, twice.state_dict()[key]) for key, value in direct.state_dict().items())
    torch.testing.assert_close(logits(twice), logits(direct), rtol=0, atol=0)


@each_family
def test_a_cut_model_copies_trains_and_runs_in_bf16(name: str) -> None:
    model = cut(name)
    expected = logits(model)
    for again in (copy.deepcopy(model), frozen_twin(model)):
        assert torch.equal(logits(again), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(logits(model).float(), expected, rtol=0, atol=0.2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss = model.train()(**tiny.batch(), labels=torch.tensor([0, 1, 0, 1])).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    assert torch.isfinite(loss)
    assert not torch.equal(logits(model.eval()), expected)
    assert all(torch.isfinite(value).all() for value in model.parameters())


@each_family
def test_layers_keep_their_sizes_when_depth_changes(name: str) -> None:
    model = cut(name)
    shapes = shapes_of(model.config)
    again = rebuild(model, [(index,) for index in range(4)])
    assert torch.equal(logits(again), logits(model))
    shallow = rebuild(model, [(0,), (3,), ()])
    assert shapes_of(shallow.config) == (shapes[0], shapes[3], shapes_of(whole(name).config)[0])
    assert torch.isfinite(logits(shallow)).all()
    deep = grow(model, 8)
    assert shapes_of(deep.config) == tuple(shapes[index // 2] for index in range(8))
    assert torch.isfinite(logits(deep)).all()
    last = rebuild(model, [(3,)])
    assert is_plain(last.config)  # the one layer left is whole


@each_family
def test_growing_a_cut_model_changes_nothing_where_norms_come_first(name: str) -> None:
    model = cut(name)
    if name in ("modernbert", "eurobert"):
        torch.testing.assert_close(logits(grow(model, 6)), logits(model), rtol=0, atol=1e-5)
    else:
        assert torch.equal(logits(grow(model, 4)), logits(model))


def test_methods_plan_with_the_sizes_of_each_layer() -> None:
    model = cut("bert")
    shapes = shapes_of(model.config)
    assert shapes_of(LayerSubset(layers=2, keep=[1, 2]).plan(tiny.spec(model)).config) == shapes[1:3]
    assert shapes_of(Theseus(modules=2, initialization="top").plan(tiny.spec(model)).config) == shapes[2:]
    refusal = r"layers \[0, 1\] cannot be averaged: they have different heads or neurons"
    for method in (Theseus(modules=2, initialization="mean_of_module"), LayerSubset(layers=2, keep="mean_of_module")):
        with pytest.raises(MethodError, match=refusal):
            method.plan(tiny.spec(model))


@each_family
def test_a_cut_predecessor_gives_way_to_successors(name: str) -> None:
    model = cut(name)
    method = Theseus(modules=2, initialization=[0, 2])
    network, gates = method.assemble(model, rebuild(model, [(0,), (2,)]))
    network.train()
    for share in (0.0, 1.0):
        for gate in gates:
            gate.share = share
        assert torch.isfinite(network(**tiny.batch()).logits).all()


@each_family
def test_a_cut_language_model_keeps_its_head(name: str) -> None:
    model = AutoModelForMaskedLM.from_config(whole(name).config).eval()
    chosen = select(model)
    with gated(model, masks(model, chosen)):
        masked = logits(model)
    smaller = prune(model, *chosen)
    torch.testing.assert_close(logits(smaller), masked, rtol=0, atol=1e-5)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (smaller.get_output_embeddings().weight is smaller.get_input_embeddings().weight) == tied


@pytest.mark.parametrize(
    ("heads", "neurons", "message"),
    [
        ([0, 4], [0], r"layer 0 cannot keep heads \[0, 4\]: name positions from 0 to 3, in ascending order"),
        ([1, 0], [0], r"layer 0 cannot keep heads \[1, 0\]"),
        ([1, 1], [0], r"layer 0 cannot keep heads \[1, 1\]"),
        ([0], [-1], r"layer 0 cannot keep neurons \[-1\]: name positions from 0 to 31"),
    ],
)
def test_what_is_not_there_cannot_be_kept(heads: list[int], neurons: list[int], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        prune(whole("bert"), [heads] * 4, [neurons] * 4)
