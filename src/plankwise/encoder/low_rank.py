"""Matrices as products of two thinner ones: their ranks kept in the configuration, rebuilt on loading.

What a plain configuration cannot hold stands beside it, as sizes of layers do: the rank of the word embeddings, and of
the feed-forward projections, the same for all layers.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.errors import ModelError
from plankwise.encoder.anatomy import anatomy_of, layers_of
from plankwise.encoder.configuration import OWN

LOW_RANK = "low_rank"
UNSEEN = 1e-6  # of the mean importance is added to every row, so that rows of no importance share what is left
Sizes = tuple[int, int]  # rows and columns


@dataclass(frozen=True)
class Ranks:
    """The ranks of what is factorized.

    Attributes:
        embeddings: of the word embeddings; `None` leaves them whole, and so on.
        neurons: of each projection to the feed-forward neurons.
        output: of the projection from the feed-forward neurons.
    """

    embeddings: int | None = None
    neurons: int | None = None
    output: int | None = None


def ranks_of(config: PreTrainedConfig) -> Ranks:
    """Give the ranks that a configuration holds."""
    return Ranks(**(getattr(config, OWN, None) or {}).get(LOW_RANK, {}))


def has_low_rank(config: PreTrainedConfig, part: Literal["embeddings", "feed_forward"] | None = None) -> bool:
    """Tell whether a part of such a model, or any, is factorized."""
    ranks = ranks_of(config)
    feed_forward, embeddings = ranks.neurons is not None, ranks.embeddings is not None
    return {"embeddings": embeddings, "feed_forward": feed_forward, None: embeddings or feed_forward}[part]


def with_ranks(config: PreTrainedConfig, ranks: Ranks) -> PreTrainedConfig:
    """Copy `config` for a model of these ranks."""
    changed = copy.deepcopy(config)
    kept = {name: rank for name, rank in dataclasses.asdict(ranks).items() if rank is not None}
    setattr(changed, OWN, {**(getattr(config, OWN, None) or {}), LOW_RANK: kept})
    return changed


def rank_for(share: float, sizes: Iterable[Sizes]) -> int:
    """Give the largest common rank at which matrices of these sizes keep at most `share` of their parameters."""
    matrices = list(sizes)
    return math.floor(share * sum(rows * columns for rows, columns in matrices) / sum(map(sum, matrices)))


class LowRankLinear(nn.Module):
    """A linear layer through a bottleneck: down to the rank, and up to what the whole one gives."""

    def __init__(self, whole: nn.Linear, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(whole.in_features, rank, bias=False)
        self.up = nn.Linear(rank, whole.out_features, bias=whole.bias is not None)
        _start_like(whole.weight, self.down.weight, self.up.weight)
        self.to(whole.weight.device, whole.weight.dtype)

    def forward(self, values: Tensor) -> Tensor:
        """Project values [..., inputs] to [..., outputs]."""
        projected: Tensor = self.up(self.down(values))
        return projected


class LowRankEmbedding(nn.Module):
    """A table of embeddings as thin as the rank, and a projection up to the whole width."""

    def __init__(self, whole: nn.Embedding, rank: int) -> None:
        super().__init__()
        self.table = nn.Embedding(whole.num_embeddings, rank, whole.padding_idx)
        self.up = nn.Linear(rank, whole.embedding_dim, bias=False)
        _start_like(whole.weight, self.table.weight, self.up.weight)
        self.to(whole.weight.device, whole.weight.dtype)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up token ids [...] as vectors [..., width]."""
        vectors: Tensor = self.up(self.table(ids))
        return vectors


def _start_like(whole: Tensor, first: Tensor, second: Tensor) -> None:
    """Draw two factors whose product is about as large as the matrix they stand for."""
    rank = second.shape[1]
    deviation = math.sqrt(float(whole.detach().float().std()) / math.sqrt(rank))
    for factor in (first, second):
        nn.init.normal_(factor, std=deviation)


def install(model: PreTrainedModel, ranks: Ranks) -> None:
    """Replace, in place, the matrices of a model that is not factorized yet by random factors of these ranks.

    Raises:
        ModelError: if embeddings were to be factorized that a masked LM's head shares.
    """
    if ranks.embeddings is not None:
        if model.get_output_embeddings() is not None:
            raise ModelError("word embeddings of low rank cannot be shared by the head of a masked LM")
        table = model.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        model.set_input_embeddings(LowRankEmbedding(table, ranks.embeddings))
    for layer in layers_of(model):
        for path, rank in _feed_forward(model.config, ranks):
            linear = layer.get_submodule(path)
            assert isinstance(linear, nn.Linear)
            layer.set_submodule(path, LowRankLinear(linear, rank))


def _feed_forward(config: PreTrainedConfig, ranks: Ranks) -> Iterator[tuple[str, int]]:
    """Name what is factorized in each layer, with its rank."""
    anatomy = anatomy_of(config)
    if ranks.neurons is not None and ranks.output is not None:
        yield from ((projection.path, ranks.neurons) for projection in anatomy.neuron_inputs)
        yield anatomy.residual_outputs[1], ranks.output


def feed_forward_sizes(config: PreTrainedConfig, neurons: Iterable[int]) -> tuple[list[Sizes], list[Sizes]]:
    """Give the sizes of the projections to the neurons and from them, for layers of these numbers of neurons."""
    width, counts = int(config.hidden_size), list(neurons)
    blocks = [projection.blocks for projection in anatomy_of(config).neuron_inputs]
    return [(each * count, width) for count in counts for each in blocks], [(width, count) for count in counts]


def embedding_sizes(config: PreTrainedConfig) -> Sizes:
    """Give the sizes of the table of word embeddings."""
    return int(config.vocab_size), int(getattr(config, "embedding_size", None) or config.hidden_size)


def factors(matrix: Tensor, rank: int, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Give the two factors whose product is nearest to `matrix`, where errors count by the importance of their row.

    Fisher-weighted SVD (Hsu et al. 2022, arXiv 2207.00112). With the weighted matrix D·W = U·S·Vᵀ, D the square roots
    of the importance, the paper's first factor D⁻¹·U_r·S_r equals W·V_r, which divides by nothing.

    Args:
        matrix: [rows, columns].
        rank: at most the smaller of both.
        importance: of each row, [rows], not negative; equal rows without it, which is truncated SVD.

    Returns:
        [rows, rank] and [rank, columns]; the rows of the second are orthonormal.
    """
    exact = matrix.detach().double()
    if importance is None or not float(importance.sum()) > 0:
        weighted = exact
    else:
        even = importance.to(exact) / importance.to(exact).mean() + UNSEEN
        weighted = even.sqrt()[:, None] * exact
    directions = _right_vectors(weighted)[:rank]
    return (exact @ directions.T).to(matrix.dtype), directions.to(matrix.dtype)


def _right_vectors(matrix: Tensor) -> Tensor:
    """Give the right singular vectors, largest first, as rows, [at most columns, columns]."""
    if matrix.shape[0] >= matrix.shape[1]:
        ascending: Tensor = torch.linalg.eigh(matrix.T @ matrix).eigenvectors
        return ascending.flip(1).T
    vectors: Tensor = torch.linalg.svd(matrix, full_matrices=False).Vh
    return vectors


@torch.no_grad()
def factorize(matrix: Tensor, target: LowRankLinear | LowRankEmbedding, importance: Tensor | None) -> None:
    """Write the factors of a weight matrix into the module that stands for it, in place."""
    if isinstance(target, LowRankLinear):
        up, down = factors(matrix, target.up.in_features, importance)
        target.up.weight.copy_(up)
        target.down.weight.copy_(down)
    else:
        table, directions = factors(matrix, target.up.in_features, importance)
        target.table.weight.copy_(table)
        target.up.weight.copy_(directions.T)
