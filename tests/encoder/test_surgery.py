"""Cutting and rebuilding, on every architecture, against the model that was cut."""

from __future__ import annotations

import copy

import pytest
import torch

import tiny
from plankwise.core.errors import MethodError
from plankwise.encoder.anatomy import embeddings_of, layer_types, layers_of, layers_prefix
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.surgery import frozen_twin, grow, rebuild, thaw

KINDS = pytest.mark.parametrize("kind", tiny.ARCHITECTURES)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(**tiny.batch()).logits
    return found


@KINDS
def test_rebuilding_every_layer_gives_the_same_model(kind: str) -> None:
    model = tiny.model(kind)
    again = rebuild(model, [(index,) for index in range(4)])
    assert torch.equal(logits(again), logits(model))
    assert not again.training


@KINDS
def test_a_cut_equals_the_model_with_its_other_layers_passed_over(kind: str) -> None:
    """The slow reference: the whole model, whose dropped layers hand on what they are given."""
    model = tiny.model(kind, conv_kernel_size=0) if kind == "deberta-v2" else tiny.model(kind)
    kept = (0, 1, 3) if kind != "modernbert" else (0, 2, 3)
    reference = copy.deepcopy(model)
    (dropped,) = set(range(4)) - set(kept)

    def pass_on(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> object:
        return (inputs[0], *output[1:]) if isinstance(output, tuple) else inputs[0]

    layers_of(reference)[dropped].register_forward_hook(pass_on)
    assert torch.equal(logits(rebuild(model, [(index,) for index in kept])), logits(reference))


@KINDS
def test_a_layer_can_be_the_mean_of_several(kind: str) -> None:
    model = tiny.model(kind)
    mean = rebuild(model, [(1, 2, 3)])
    old = [dict(layers_of(model)[index].named_parameters()) for index in (1, 2, 3)]
    for name, value in layers_of(mean)[0].named_parameters():
        torch.testing.assert_close(value, sum(each[name] for each in old) / 3)


@KINDS
def test_random_layers_follow_the_seed(kind: str) -> None:
    made, model = [], tiny.model(kind)
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(logits(rebuild(model, [(0,), ()])))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@KINDS
def test_a_grown_model_computes_what_it_did(kind: str) -> None:
    """Exactly where norms come first; where they come last, as far as a norm leaves alone what it normalized before."""
    model = tiny.model(kind, 3, conv_kernel_size=0) if kind == "deberta-v2" else tiny.model(kind, 3)
    if kind not in ("modernbert", "eurobert"):
        for name, value in model.named_parameters():
            if "norm" in name.lower():
                torch.nn.init.constant_(value, 1.0 if name.endswith("weight") else 0.0)
    grown = grow(model, 7)
    assert len(layers_of(grown)) == grown.config.num_hidden_layers == 7
    torch.testing.assert_close(logits(grown), logits(model), rtol=0, atol=1e-5)
    with pytest.raises(MethodError, match="cannot grow a model of 3 layers to 2"):
        grow(model, 2)


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(MethodError, match="layer 4 does not exist: the model has layers 0 to 3"):
        rebuild(tiny.model(), [(0,), (4,)])


def test_modernberts_layer_types_follow_their_layers() -> None:
    model = tiny.model("modernbert", 7)
    smaller = rebuild(model, [(0,), (2,), (3,), (5,)])
    own = layer_types(model.config)
    assert layer_types(smaller.config) == [own[index] for index in (0, 2, 3, 5)]
    assert [layer.attention_type for layer in layers_of(smaller)] == layer_types(smaller.config)


@KINDS
def test_a_twin_shares_memory_until_it_is_thawed(kind: str) -> None:
    model = tiny.model(kind)
    twin = frozen_twin(model)
    assert torch.equal(logits(twin), logits(model))
    pairs = list(zip(model.parameters(), twin.parameters(), strict=True))
    assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)
    assert all(one.requires_grad and not other.requires_grad for one, other in pairs)
    thaw(twin.parameters())
    with torch.no_grad():
        for value in twin.parameters():
            value.add_(1.0)
    assert torch.equal(logits(model), logits(tiny.model(kind)))


@KINDS
def test_embeddings_layers_and_head_are_told_apart(kind: str) -> None:
    model = tiny.model(kind)
    prefix = layers_prefix(model)
    embeddings = {id(value) for part in embeddings_of(model) for value in part.parameters()}
    in_layers = {id(value) for value in layers_of(model).parameters()}
    names = {name for name, value in model.named_parameters() if id(value) not in embeddings | in_layers}
    assert not embeddings & in_layers
    assert not [name for name in names if name.startswith(prefix)]
    assert [name for name in names if "classifier" in name]
    assert not [name for name in names if "embed" in name or "relative" in name]
    assert id(model.get_input_embeddings().weight) in embeddings


@KINDS
def test_usable_positions_are_usable_and_no_more(kind: str) -> None:
    model = tiny.model(kind, pad_token_id=1) if kind in ("mpnet", "roberta") else tiny.model(kind)
    longest = usable_positions(model.config)
    ids = torch.full((1, longest), 7)
    assert torch.isfinite(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits).all()
    if kind not in (
        "modernbert",
        "eurobert",
        "gte",
        "nomic_bert",
        "jina_embeddings_v3",
    ):  # rotary positions have no table to run out of
        longer = torch.full((1, longest + 1), 7)
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=longer, attention_mask=torch.ones_like(longer))
