"""Int8 modules against arithmetic by hand, ranges against what was seen, folders of every architecture."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

import plankwise
import tiny
from plankwise.core.errors import MethodError, ModelError
from plankwise.encoder.anatomy import layers_of, query_key_value_of
from plankwise.encoder.checkpoint import load_classifier
from plankwise.encoder.cost import count_bytes, count_nonzero, count_parameters, linear_flops_per_token
from plankwise.encoder.fake_quantized import EMBEDDINGS, FakeQuantized, FakeQuantizedEmbedding, FakeQuantizedLinear
from plankwise.encoder.low_rank import Ranks, with_ranks
from plankwise.encoder.quantized import (
    Quantized,
    QuantizedEmbedding,
    QuantizedLinear,
    input_range,
    is_quantized,
    projections_of,
    quantized_modules,
    quantized_of,
    rounded_rows,
    row_scales,
    weight_limit,
    with_quantized,
)
from plankwise.encoder.shapes import is_plain, new_model, prune

each_architecture = pytest.mark.parametrize("kind", tiny.ARCHITECTURES)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(**tiny.batch()).logits
    return found


def observed(model: PreTrainedModel, portable: bool = True) -> FakeQuantized:
    rounding = FakeQuantized(model, portable)
    with torch.no_grad(), rounding.observing():
        for seed in range(3):
            rounding.network(**tiny.batch(seed=seed))
    rounding.quantize(rounding.names())
    return rounding


def quantized(model: PreTrainedModel, portable: bool = True) -> PreTrainedModel:
    return observed(model, portable).finished().eval()


def pruned(kind: str) -> PreTrainedModel:
    """A model with a layer without heads and one without neurons."""
    model = tiny.model(kind, **tiny.FOUR_HEADS[kind])
    return prune(model, [[0], [], [0, 1], [1]], [[3, 5, 7], [0, 31], list(range(9)), []])


def test_a_linear_layer_equals_integer_arithmetic_by_hand() -> None:
    linear = QuantizedLinear(3, 2)
    linear.weight.copy_(torch.tensor([[127, -64, 1], [0, 5, -127]]))
    linear.scale.copy_(torch.tensor([0.01, 0.5]))
    assert linear.bias is not None
    linear.bias.copy_(torch.tensor([1.0, -1.0]))
    linear.input_scale.fill_(0.1)
    linear.input_zero.fill_(20)
    values = torch.tensor([[0.31, -1.96, 2.04], [-5.0, 99.0, 0.0]])
    steps = [[3, -20, 20], [-20, 235, 0]]  # -5 is below the range, which ends at -2, and 99 above it, at 23.5
    expected = [[0.1 * 0.01 * (127 * a - 64 * b + c) + 1.0, 0.1 * 0.5 * (5 * b - 127 * c) - 1.0] for a, b, c in steps]
    assert torch.allclose(linear(values), torch.tensor(expected), rtol=1e-5)
    assert linear(values[None]).shape == (1, 2, 2)


def test_a_table_equals_arithmetic_by_hand() -> None:
    table = QuantizedEmbedding(3, 2, padding_idx=0)
    table.weight.copy_(torch.tensor([[0, 0], [127, -3], [10, 20]]))
    table.scale.copy_(torch.tensor([1.0, 0.5, 0.25]))
    assert table(torch.tensor([[2, 0], [1, 1]])).tolist() == [[[2.5, 5.0], [0.0, 0.0]], [[63.5, -1.5], [63.5, -1.5]]]
    assert table.padding_idx == 0


@pytest.mark.parametrize(
    ("lowest", "highest", "scale", "zero"),
    [
        (0.0, 2.55, 0.01, 0),
        (-1.0, 1.55, 0.01, 100),
        (0.5, 2.55, 0.01, 0),  # zero is always among them
        (-2.55, -0.5, 0.01, 255),
        (-0.006, 2.544, 0.01, 1),
        (0.0, 0.0, 1.0, 0),
    ],
)
def test_a_range_gives_step_and_zero_point(lowest: float, highest: float, scale: float, zero: int) -> None:
    found, zero_point = input_range(lowest, highest)
    assert found == pytest.approx(scale)
    assert zero_point == zero


def saturated(inputs: NDArray[np.int64], weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum products as processors without VNNI do: in pairs of neighbours, which saturate in 16 bits, then in 32."""
    products = inputs * weights
    pairs = products[..., ::2] + products[..., 1::2]
    sums: NDArray[np.int64] = pairs.clip(-(2**15), 2**15 - 1).sum(axis=-1)
    return sums


@pytest.mark.parametrize("portable", [True, False])
def test_sums_of_portable_weights_saturate_nowhere(portable: bool) -> None:
    rounding = FakeQuantizedLinear(nn.Linear(64, 8), weight_limit(portable))
    with torch.no_grad():
        rounding.weight[:4] = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]  # all as large as they get
    weights = rounded_rows(rounding.weight, row_scales(rounding.weight, rounding.limit)).numpy().astype(np.int64)
    draw = np.random.default_rng(0)
    for inputs in (np.full((1, 1, 64), 255), draw.integers(0, 256, (50, 1, 64))):
        found = saturated(inputs, weights[None])
        assert (found == (inputs * weights[None]).sum(axis=-1)).all() == portable


@pytest.mark.parametrize(("kind", "portable"), [*((kind, True) for kind in tiny.ARCHITECTURES), ("bert", False)])
def test_weights_are_off_by_half_a_step_at_most_and_rows_use_all_steps(kind: str, portable: bool) -> None:
    model = tiny.model(kind, layers=2)
    made = quantized(model, portable)
    assert quantized_of(made.config) == Quantized(portable=portable)
    modules = quantized_modules(made)
    assert len(modules) == len(projections_of(model)) + 1
    assert not projections_of(made)
    for name, module in modules.items():
        whole = model.get_submodule(name).weight.detach()
        assert module.weight.dtype == torch.int8
        limit = 63 if portable and isinstance(module, QuantizedLinear) else 127
        assert (module.weight.abs().amax(dim=1) == limit).all()
        error = (module.weight.double() * module.scale[:, None].double() - whole.double()).abs()
        assert (error <= module.scale[:, None].double() * 0.5001).all()
        assert error.max() > 0
        assert torch.equal(module.scale, whole.abs().amax(dim=1) / limit)


def test_rows_of_zeros_stay_zeros() -> None:
    linear = nn.Linear(4, 3)
    nn.init.zeros_(linear.weight[1])
    assert row_scales(linear.weight)[1] == 1.0
    rounded = FakeQuantizedLinear(linear)
    rounded.active = True
    rounded.set_range(-1, 1)
    assert torch.equal(rounded(torch.ones(2, 4))[:, 1], linear.bias[1].expand(2))


@each_architecture
def test_ranges_cover_what_was_seen_and_are_equal_where_the_input_is(kind: str) -> None:
    model = tiny.model(kind, layers=2)
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in projections_of(model)}
    for name, linear in projections_of(model).items():
        linear.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0]))
    with torch.no_grad():
        for seed in range(3):
            model(**tiny.batch(seed=seed))
    made = quantized(tiny.model(kind, layers=2))
    for name, values in seen.items():
        module = layers_of(made).get_submodule(name)
        assert isinstance(module, QuantizedLinear)
        step, zero = float(module.input_scale), int(module.input_zero)
        low, high = (min(0.0, *(float(each.min()) for each in values)), max(float(each.max()) for each in values))
        assert step == pytest.approx((high - low) / 255, rel=1e-6)
        assert zero == round(-low / step)
        assert 0 <= zero <= 255
        for each in values:
            rounded = torch.fake_quantize_per_tensor_affine(each, step, zero, 0, 255)
            assert (rounded - each).abs().max() <= 0.501 * step
    for layer in layers_of(model):
        names = {linear for linear, _, _ in query_key_value_of(model, layer)}
        modules = [made.get_submodule(name) for name, module in model.named_modules() if module in names]
        for one, other in itertools.pairwise(modules):
            assert torch.equal(one.input_scale, other.input_scale)
            assert torch.equal(one.input_zero, other.input_zero)


def test_inputs_that_are_no_numbers_are_refused() -> None:
    model = tiny.model(layers=1)
    model.get_input_embeddings().weight.data[7] = torch.inf
    rounding = FakeQuantized(model)
    with torch.no_grad(), pytest.raises(MethodError, match="no finite input"), rounding.observing():
        rounding.network(input_ids=torch.tensor([[7, 8]]))
    with (
        pytest.raises(MethodError, match=r"'0\.attention\.self\.query' was given no finite input"),
        rounding.observing(),
    ):
        pass


@each_architecture
def test_a_fake_quantized_network_computes_what_the_model_does_and_then_what_the_quantized_one_does(kind: str) -> None:
    model = tiny.model(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rounding = observed(model)
    rounded = logits(rounding.network)
    assert torch.equal(logits(rounding.finished().eval()), rounded)
    assert not torch.equal(rounded, logits(model))
    assert torch.allclose(rounded, logits(model), atol=0.02)
    rounding.quantize(())
    assert torch.equal(logits(rounding.network), logits(model))
    assert rounding.quantized() is None
    plain = rounding.finished()
    assert is_plain(plain.config)
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@each_architecture
def test_it_saves_and_loads_byte_for_byte_and_refuses_plain_loading(kind: str, tmp_path: Path) -> None:
    for number, model in enumerate((tiny.model(kind, layers=2), pruned(kind))):
        made, one, two = quantized(model), tmp_path / f"{number}a", tmp_path / f"{number}b"
        plankwise.save(made, tiny.tokenizer(), one)
        again = plankwise.load(one)
        assert torch.equal(logits(again), logits(made))
        assert is_quantized(again.config)
        plankwise.save(again, tiny.tokenizer(), two)
        for name in ("config.json", "model.safetensors"):
            assert (one / name).read_bytes() == (two / name).read_bytes()
        for mismatched in (False, True):
            with pytest.raises(Exception, match=r"plankwise\.load"):
                type(model).from_pretrained(one, ignore_mismatched_sizes=mismatched)


def test_parts_stay_in_fp32_and_are_rebuilt_so(tmp_path: Path) -> None:
    rounding = observed(tiny.model())
    groups = rounding.groups()
    assert groups[EMBEDDINGS] == (EMBEDDINGS,)
    assert groups["1.attention inputs"] == tuple(f"1.attention.self.{name}" for name in ("query", "key", "value"))
    assert groups["3.feed-forward output"] == ("3.output.dense",)
    assert groups["0.attention output"] == ("0.attention.output.dense",)
    assert sorted(name for names in groups.values() for name in names) == sorted(rounding.names())
    kept = (*groups["1.attention inputs"], "3.output.dense")
    rounding.quantize([name for name in rounding.names() if name not in {*kept, EMBEDDINGS}])
    made = rounding.finished().eval()
    assert quantized_of(made.config) == Quantized(kept, embeddings=False)
    plankwise.save(made, tiny.tokenizer(), tmp_path / "model")
    again = plankwise.load(tmp_path / "model")
    assert torch.equal(logits(again), logits(made))
    assert tuple(projections_of(again)) == kept
    assert isinstance(again.get_input_embeddings(), nn.Embedding)
    assert torch.equal(projections_of(again)["3.output.dense"].weight, projections_of(tiny.model())[kept[-1]].weight)


def test_a_model_of_before_there_was_a_choice_is_in_full_range(tmp_path: Path) -> None:
    made = quantized(tiny.model(), portable=False)
    plankwise.save(made, tiny.tokenizer(), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    assert config["plankwise"]["quantized"].pop("portable") is False
    path.write_text(json.dumps(config))
    again = plankwise.load(tmp_path / "model")
    assert quantized_of(again.config) == Quantized(portable=False)
    assert torch.equal(logits(again), logits(made))


@each_architecture
def test_groups_hold_every_projection_of_every_architecture(kind: str) -> None:
    model = tiny.model(kind, layers=1)
    factorized = new_model(type(model), with_ranks(model.config, Ranks(3, 4, 5)))
    for each in (model, factorized):
        groups = FakeQuantized(each).groups()
        sides = [f"0.{part} {end}" for part in ("attention", "feed-forward") for end in ("inputs", "output")]
        assert set(groups) == {EMBEDDINGS, *sides}


@each_architecture
def test_low_rank_models_are_quantized_as_well(kind: str, tmp_path: Path) -> None:
    config = with_ranks(tiny.model(kind, layers=2).config, Ranks(embeddings=4, neurons=4, output=5))
    made = quantized(new_model(type(tiny.model(kind)), config).eval())
    assert isinstance(made.get_input_embeddings().table, QuantizedEmbedding)
    assert not projections_of(made)
    plankwise.save(made, tiny.tokenizer(), tmp_path / "model")
    assert torch.equal(logits(plankwise.load(tmp_path / "model")), logits(made))


def test_gradients_pass_straight_through() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(5, 3)
    rounded = FakeQuantizedLinear(linear)
    rounded.active = True
    rounded.set_range(-1.0, 1.0)
    values = torch.tensor([[0.3, -0.7, 1.5, -2.0, 0.9]], requires_grad=True)
    gradient = torch.tensor([[1.0, -2.0, 0.5]])
    rounded(values).backward(gradient)
    scale = linear.weight.detach().abs().amax(dim=1, keepdim=True) / 127
    held = (linear.weight.detach() / scale).round() * scale
    inside = torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0]])  # what the range cuts off gets no gradient
    assert values.grad is not None
    assert torch.allclose(values.grad, gradient @ held * inside)
    seen = torch.fake_quantize_per_tensor_affine(values.detach(), rounded.input_scale, rounded.input_zero, 0, 255)
    assert linear.weight.grad is not None
    assert torch.allclose(linear.weight.grad, gradient.mT @ seen)
    assert linear.bias.grad is not None
    assert torch.equal(linear.bias.grad, gradient[0])


def test_steps_follow_the_weights() -> None:
    rounded = FakeQuantizedLinear(nn.Linear(4, 2, bias=False))
    rounded.active = True
    rounded.set_range(0.0, 1.0)
    with torch.no_grad():
        for factor in (1.0, 3.0):
            rounded.weight.copy_(factor * torch.tensor([[1.27, 0.5049, 0.0, 0.0], [0.0, 0.0, 127.0, 0.6]]))
            found = rounded(torch.eye(4)).mT / factor
            expected = torch.tensor([[1.27, 0.50, 0.0, 0.0], [0.0, 0.0, 127.0, 1.0]])
            assert torch.allclose(found, expected, atol=1e-5)


def test_only_rows_that_are_read_are_rounded_and_trained() -> None:
    table = nn.Embedding(6, 4, padding_idx=0)
    rounded = FakeQuantizedEmbedding(table)
    rounded.active = True
    ids = torch.tensor([[1, 3, 3], [0, 1, 5]])
    scale = table.weight.detach()[ids].abs().amax(dim=-1, keepdim=True) / 127
    scale[scale == 0] = 1.0
    found = rounded(ids)
    assert torch.equal(found, (table.weight.detach()[ids] / scale).round() * scale)
    found.sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad[:, 0].tolist() == [0.0, 2.0, 0.0, 2.0, 0.0, 1.0]  # padding is not trained


def test_under_autocast_rounding_is_done_in_fp32() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 8)
    rounded = FakeQuantizedLinear(linear)
    rounded.active = True
    rounded.set_range(-3.0, 3.0)
    values = torch.randn(16, 64).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = rounded(values)
    scale = row_scales(linear.weight)
    held = (linear.weight.detach() / scale[:, None]).round() * scale[:, None]
    seen = torch.fake_quantize_per_tensor_affine(values.float(), rounded.input_scale, rounded.input_zero, 0, 255)
    expected = nn.functional.linear(seen.bfloat16(), held.bfloat16(), linear.bias.detach().bfloat16())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
    found.float().sum().backward()
    assert linear.weight.grad is not None
    assert linear.weight.grad.dtype == torch.float32


def test_costs_count_int8_weights_as_weights() -> None:
    model = tiny.model()
    made = quantized(model)
    assert count_parameters(made) == count_parameters(model)
    assert linear_flops_per_token(made) == linear_flops_per_token(model)
    zeros = sum(int((module.weight == 0).sum()) for module in quantized_modules(made).values())
    assert zeros > 0
    assert count_nonzero(made) == count_nonzero(model) - zeros
    matrices = [module.weight for module in quantized_modules(made).values()]
    rows, linears = sum(len(each) for each in matrices), len(matrices) - 1
    assert count_bytes(model) == 4 * count_parameters(model)
    assert count_bytes(made) == count_bytes(model) - 3 * sum(map(torch.numel, matrices)) + 4 * rows + 8 * linears


def test_a_model_of_large_matrices_takes_up_a_quarter(tmp_path: Path) -> None:
    model = tiny.model("modernbert", layers=1, hidden_size=256, intermediate_size=512, vocab_size=2048)
    rounding = FakeQuantized(model)
    with torch.no_grad(), rounding.observing():
        rounding.network(**tiny.batch())
    rounding.quantize(rounding.names())
    sizes = []
    for name, each in (("whole", model), ("quantized", rounding.finished())):
        plankwise.save(each, None, tmp_path / name)
        sizes.append((tmp_path / name / "model.safetensors").stat().st_size)
    head = sum(value.numel() for name, value in model.named_parameters() if "layers" not in name and value.ndim == 2)
    head -= model.get_input_embeddings().weight.numel()
    assert 0.25 < (sizes[1] - 4 * head) / (sizes[0] - 4 * head) < 0.26


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (5, "needs kept, a list of names, and embeddings"),
        ({"kept": []}, "needs kept, a list of names, and embeddings"),
        ({"kept": [3], "embeddings": True}, "needs kept, a list of names, and embeddings"),
        ({"kept": [], "embeddings": "yes"}, "needs kept, a list of names, and embeddings"),
        ({"kept": [], "embeddings": True, "portable": 1}, "needs kept, a list of names, and embeddings and portable"),
        ({"kept": [], "embeddings": True, "bits": 7}, "needs kept, a list of names, and embeddings and portable"),
        ({"kept": ["9.output.dense"], "embeddings": True}, "the model has no '9.output.dense'"),
        ({"kept": ["0.output.dense"], "embeddings": True}, "lack or misfit bert.encoder.layer.0.output.dense.weight"),
        ({"kept": [], "embeddings": False}, "lack or misfit bert.embeddings.word_embeddings.weight"),
    ],
)
def test_a_damaged_configuration_never_gives_random_weights(stored: Any, message: str, tmp_path: Path) -> None:
    plankwise.save(quantized(tiny.model()), tiny.tokenizer(), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["plankwise"]["quantized"] = stored
    path.write_text(json.dumps(config))
    for loading in (plankwise.load, lambda folder: load_classifier(str(folder), ("a", "b"))):
        with pytest.raises(ModelError, match=message) as caught:
            loading(tmp_path / "model")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["weight", "scale", "bias", "input_scale", "input_zero"])
def test_a_missing_part_is_named(part: str, tmp_path: Path) -> None:
    plankwise.save(quantized(tiny.model()), None, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    state = load_file(path)
    name = f"bert.encoder.layer.1.output.dense.{part}"
    taken = state.pop(name)
    other = torch.int32 if taken.is_floating_point() else torch.float32  # fp32 where steps should be, and so on
    for wrong in ({}, {name: taken.to(other)}):
        save_file({**state, **wrong}, path, {"format": "pt"})
        with pytest.raises(ModelError, match=rf"lack or misfit {name} and 0 more"):
            plankwise.load(tmp_path / "model")


def test_a_new_head_goes_onto_a_quantized_encoder_but_no_language_models_head(tmp_path: Path) -> None:
    made = quantized(tiny.model())
    plankwise.save(made, tiny.tokenizer(), tmp_path / "model")
    other = load_classifier(str(tmp_path / "model"), ("a", "b", "c"))
    assert logits(other).shape == (4, 3)
    for name, value in made.base_model.state_dict().items():
        assert torch.equal(value, other.base_model.state_dict()[name])
    config = with_quantized(tiny.model().config, Quantized())
    with pytest.raises(ModelError, match="shared by the head of a masked LM"):
        new_model(AutoModelForMaskedLM._model_mapping[type(config)], config)
