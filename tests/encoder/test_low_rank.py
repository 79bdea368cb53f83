"""Low rank: factors equal truncated SVD, weights count, full rank changes nothing, folders are guarded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForMaskedLM

import plankwise
import tiny
from plankwise.core.errors import MethodError, ModelError
from plankwise.encoder.anatomy import layers_of, neuron_inputs_of, residual_outputs_of
from plankwise.encoder.checkpoint import load_masked_lm
from plankwise.encoder.cost import linear_flops_per_token
from plankwise.encoder.low_rank import (
    LowRankEmbedding,
    LowRankLinear,
    Ranks,
    embedding_sizes,
    factorize,
    factors,
    feed_forward_sizes,
    has_low_rank,
    rank_for,
    ranks_of,
    with_ranks,
)
from plankwise.encoder.shapes import new_model, prune, shapes_of
from plankwise.encoder.surgery import rebuild
from plankwise.methods.low_rank import _factorized, fill

each_architecture = pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
each_shape = pytest.mark.parametrize(("rows", "columns"), [(9, 5), (5, 9), (40, 8)])


def a_matrix(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows * columns))


def some_importance(rows: int) -> torch.Tensor:
    return torch.rand(rows, generator=torch.Generator().manual_seed(rows)) ** 4 + 1e-3


def weighted_error(matrix: torch.Tensor, product: torch.Tensor, importance: torch.Tensor) -> float:
    return float((importance[:, None] * (matrix - product).square()).sum())


@each_shape
@pytest.mark.parametrize("importance", [None, 3.0])
def test_equal_rows_give_the_truncated_svd(rows: int, columns: int, importance: float | None) -> None:
    matrix = a_matrix(rows, columns)
    weights = None if importance is None else torch.full((rows,), importance)
    left, right = factors(matrix, 3, weights)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.allclose(left @ right, (u[:, :3] * s[:3]) @ v[:3], atol=1e-5)


@each_shape
def test_weighted_factors_are_those_of_the_paper(rows: int, columns: int) -> None:
    matrix, importance = a_matrix(rows, columns), some_importance(rows)
    left, right = factors(matrix, 3, importance)
    roots = importance.sqrt()[:, None]
    u, s, v = torch.linalg.svd(roots * matrix, full_matrices=False)
    assert torch.allclose(left @ right, (u[:, :3] * s[:3]) @ v[:3] / roots, atol=1e-3)
    plain = torch.matmul(*factors(matrix, 3))
    assert weighted_error(matrix, left @ right, importance) < 0.9 * weighted_error(matrix, plain, importance)


def test_rows_of_no_importance_get_what_is_left() -> None:
    matrix = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    left, right = factors(matrix, 2, torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert torch.allclose(left @ right, torch.diag(torch.tensor([1.0, 0.0, 0.0, 4.0])), atol=1e-5)
    assert torch.isfinite(torch.matmul(*factors(matrix, 2, torch.zeros(4)))).all()


def test_a_share_means_a_rank() -> None:
    assert rank_for(0.5, [(30522, 768)]) == 374
    assert rank_for(0.5, [(3072, 768)]) == 307
    assert rank_for(0.5, [(3072, 768)] * 12) == 307
    assert rank_for(0.01, [(4, 4)]) == 0


@each_architecture
def test_sizes_are_those_of_the_model(kind: str) -> None:
    model = tiny.model(kind, layers=2)
    neurons, output = feed_forward_sizes(model.config, [shape.neurons for shape in shapes_of(model.config)])
    assert neurons == [tuple(w.weight.shape) for y in layers_of(model) for w, _ in neuron_inputs_of(model, y)]
    assert output == [tuple(residual_outputs_of(model, layer)[1].weight.shape) for layer in layers_of(model)]
    assert embedding_sizes(model.config) == tuple(model.get_input_embeddings().weight.shape)


@each_architecture
def test_full_rank_reproduces_the_logits(kind: str) -> None:
    model = tiny.model(kind, layers=3)
    ranks = Ranks(embeddings=embedding_sizes(model.config)[1], neurons=16, output=16)
    whole = new_model(type(model), with_ranks(model.config, ranks))
    fill(model, whole, _factorized(model, whole), {})
    batch = tiny.batch()
    with torch.inference_mode():
        assert torch.allclose(whole.eval()(**batch).logits, model(**batch).logits, atol=1e-4)


@each_architecture
def test_it_saves_and_loads_and_refuses_plain_loading(kind: str, tmp_path: Path) -> None:
    config = with_ranks(tiny.model(kind).config, Ranks(embeddings=3, neurons=4, output=5))
    model = new_model(type(tiny.model(kind)), config).eval()
    plankwise.save(model, tiny.tokenizer(), tmp_path / "model")
    again = plankwise.load(tmp_path / "model")
    assert ranks_of(again.config) == Ranks(3, 4, 5)
    batch = tiny.batch()
    with torch.inference_mode():
        assert torch.equal(again(**batch).logits, model(**batch).logits)
    with pytest.raises(Exception, match=r"plankwise\.load"):
        type(model).from_pretrained(tmp_path / "model", ignore_mismatched_sizes=True)


@torch.no_grad()
def test_random_factors_are_about_as_large_as_the_matrix() -> None:
    torch.manual_seed(0)
    whole, table = nn.Linear(200, 300), nn.Embedding(500, 200)
    product = LowRankLinear(whole, 40)
    assert float((product.up.weight @ product.down.weight).std() / whole.weight.std()) == pytest.approx(1, abs=0.1)
    embedding = LowRankEmbedding(table, 40)
    assert float(embedding(torch.arange(500)).std() / table.weight.std()) == pytest.approx(1, abs=0.1)


def test_flops_are_those_of_the_factors() -> None:
    config = tiny.model("bert", layers=1).config
    factorized = new_model(type(tiny.model()), with_ranks(config, Ranks(neurons=4, output=5)))
    assert linear_flops_per_token(factorized) == 2 * (4 * 16 * 16 + (4 + 5) * (16 + 32))


@each_architecture
def test_pruning_behind_it_is_refused_and_before_it_works(kind: str) -> None:
    model = tiny.model(kind, layers=2)
    pruned = prune(model, [[0], [0]], [range(20), range(12)])
    config = with_ranks(pruned.config, Ranks(neurons=3, output=3))
    factorized = new_model(type(model), config)
    fill(pruned, factorized, _factorized(pruned, factorized), {})
    assert torch.isfinite(factorized.eval()(**tiny.batch()).logits).all()
    assert has_low_rank(config)
    assert has_low_rank(config, "feed_forward")
    assert not has_low_rank(config, "embeddings")
    assert not has_low_rank(pruned.config)
    with pytest.raises(MethodError, match="before low_rank"):
        residual_outputs_of(factorized, layers_of(factorized)[0])
    with pytest.raises(MethodError, match="before low_rank"):
        neuron_inputs_of(factorized, layers_of(factorized)[0])


def test_layers_are_copied_but_never_averaged() -> None:
    model = new_model(type(tiny.model()), with_ranks(tiny.model().config, Ranks(neurons=4, output=4)))
    shallow = rebuild(model, [(3,), (1,)])
    for name, value in layers_of(shallow)[0].state_dict().items():
        assert torch.equal(value, layers_of(model)[3].state_dict()[name])
    with pytest.raises(MethodError, match=r"layers \[0, 1\] cannot be averaged"):
        rebuild(model, [(0, 1), (2, 3)])


def test_embeddings_shared_by_a_head_are_refused(tmp_path: Path) -> None:
    config = with_ranks(tiny.model().config, Ranks(embeddings=4))
    with pytest.raises(ModelError, match="shared by the head of a masked LM"):
        new_model(AutoModelForMaskedLM._model_mapping[type(config)], config)
    feed_forward = with_ranks(tiny.model().config, Ranks(neurons=4, output=4))
    model = new_model(AutoModelForMaskedLM._model_mapping[type(config)], feed_forward)
    plankwise.save(model, tiny.tokenizer(), tmp_path / "lm")
    again = load_masked_lm(str(tmp_path / "lm"), head_is_new=False)
    assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))


def test_factors_go_where_they_belong() -> None:
    whole = nn.Linear(6, 9, bias=False)
    target = LowRankLinear(whole, 6)
    assert target.up.bias is None
    factorize(whole.weight, target, None)
    values = torch.randn(2, 3, 6)
    assert torch.allclose(target(values), whole(values), atol=1e-5)
    table = nn.Embedding(9, 6, padding_idx=0)
    thin = LowRankEmbedding(table, 6)
    factorize(table.weight, thin, None)
    ids = torch.tensor([[0, 3, 8]])
    assert torch.allclose(thin(ids), table(ids), atol=1e-5)
    assert thin(torch.tensor([0])).abs().max() < 1e-6
