"""Matrices as products of two thinner ones; the ranks are stored in the configuration and rebuilt on loading.

The ranks of the word embeddings and of the feed-forward projections (the same for all layers) are stored under the key
`plankwise`, as are the sizes of pruned layers.
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
UNSEEN = 1e-6  # times the mean importance is added to every row, so that rows of no importance get the rest
MatrixSize = tuple[int, int]  # rows and columns


@dataclass(frozen=True)
class Ranks:
    """The ranks of factorized matrices; `None` where a matrix is not factorized.

    Attributes:
        embeddings: of the word embeddings.
        neurons: of each projection to the feed-forward neurons.
        output: of the projection from the feed-forward neurons.
    """

    embeddings: int | None = None
    neurons: int | None = None
    output: int | None = None


def ranks_of(config: PreTrainedConfig) -> Ranks:
    """Return the ranks that a configuration holds."""
    return Ranks(**(getattr(config, OWN, None) or {}).get(LOW_RANK, {}))


def has_low_rank(config: PreTrainedConfig, part: Literal["embeddings", "feed_forward"] | None = None) -> bool:
    """Return whether a part of a model with this configuration is factorized; by default, whether any part is."""
    ranks = ranks_of(config)
    feed_forward, embeddings = ranks.neurons is not None, ranks.embeddings is not None
    return {"embeddings": embeddings, "feed_forward": feed_forward, None: embeddings or feed_forward}[part]


def with_ranks(config: PreTrainedConfig, ranks: Ranks) -> PreTrainedConfig:
    """Return a copy of `config` for a model with these ranks."""
    changed = copy.deepcopy(config)
    kept = {name: rank for name, rank in dataclasses.asdict(ranks).items() if rank is not None}
    setattr(changed, OWN, {**(getattr(config, OWN, None) or {}), LOW_RANK: kept})
    return changed


def rank_for(share: float, sizes: Iterable[MatrixSize]) -> int:
    """Return the largest common rank at which matrices of these sizes keep at most `share` of their parameters.

    A matrix of m rows and n columns has r · (m + n) parameters at rank r, instead of m · n.
    """
    matrices = list(sizes)
    return math.floor(share * sum(rows * columns for rows, columns in matrices) / sum(map(sum, matrices)))


class LowRankLinear(nn.Module):
    """A linear layer with a bottleneck: down to the rank, then up to the outputs of the full layer."""

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
    """An embedding of the width of the rank, and a projection up to the full width."""

    def __init__(self, whole: nn.Embedding, rank: int) -> None:
        super().__init__()
        self.table = nn.Embedding(whole.num_embeddings, rank, whole.padding_idx)
        self.up = nn.Linear(rank, whole.embedding_dim, bias=False)
        _start_like(whole.weight, self.table.weight, self.up.weight)
        self.to(whole.weight.device, whole.weight.dtype)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors [..., width] of token ids [...]."""
        vectors: Tensor = self.up(self.table(ids))
        return vectors


def _start_like(whole: Tensor, first: Tensor, second: Tensor) -> None:
    """Draw two factors with a product of about the same standard deviation as the matrix they replace."""
    rank = second.shape[1]
    # A product of two factors of deviation d, summed over r terms, has the deviation d² · √r.
    deviation = math.sqrt(float(whole.detach().float().std()) / math.sqrt(rank))
    for factor in (first, second):
        nn.init.normal_(factor, std=deviation)


def install(model: PreTrainedModel, ranks: Ranks) -> None:
    """Replace the matrices of a model by random factors of these ranks, in place. It must not be factorized yet.

    Raises:
        ModelError: if the embeddings to factorize are shared with the head of a masked LM.
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
    """Yield the paths of factorized projections in each layer, with their ranks."""
    anatomy = anatomy_of(config)
    if ranks.neurons is not None and ranks.output is not None:
        yield from ((projection.path, ranks.neurons) for projection in anatomy.neuron_inputs)
        yield anatomy.residual_outputs[1], ranks.output


def feed_forward_sizes(config: PreTrainedConfig, neurons: Iterable[int]) -> tuple[list[MatrixSize], list[MatrixSize]]:
    """Return the sizes of the projections to the neurons and of those from them.

    Args:
        config: of the model.
        neurons: number of neurons of each layer.
    """
    width, counts = int(config.hidden_size), list(neurons)
    blocks = [projection.blocks for projection in anatomy_of(config).neuron_inputs]
    return [(each * count, width) for count in counts for each in blocks], [(width, count) for count in counts]


def embedding_sizes(config: PreTrainedConfig) -> MatrixSize:
    """Return the size of the word embeddings: tokens and width."""
    own = getattr(config, "embedding_size", None) or getattr(config, "input_embedding_size", None)
    return int(config.vocab_size), int(own or config.hidden_size)


def factors(matrix: Tensor, rank: int, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the two factors with the product closest to `matrix`, with errors weighted by the importance of the row.

    This is Fisher-weighted SVD (Hsu et al. 2022, arXiv 2207.00112). For the weighted matrix D·W = U·S·Vᵀ, with the
    square roots of the importance in D, the paper's first factor D⁻¹·U_r·S_r equals W·V_r, which needs no division.

    Args:
        matrix: [rows, columns].
        rank: at most the smaller of rows and columns.
        importance: of each row, [rows], not negative. Without it all rows are equal, which is truncated SVD.

    Returns:
        [rows, rank] and [rank, columns]; the rows of the second are orthonormal.
    """
    exact = matrix.detach().double()  # MᵀM squares the condition number, too much for fp32
    if importance is None or not float(importance.sum()) > 0:
        weighted = exact
    else:
        even = importance.to(exact) / importance.to(exact).mean() + UNSEEN
        weighted = even.sqrt()[:, None] * exact
    directions = _right_vectors(weighted)[:rank]
    return (exact @ directions.T).to(matrix.dtype), directions.to(matrix.dtype)


def _right_vectors(matrix: Tensor) -> Tensor:
    """Return the right singular vectors as rows, [at most columns, columns], largest singular value first."""
    if matrix.shape[0] >= matrix.shape[1]:  # eigenvectors of MᵀM, [columns, columns], are cheaper than an SVD
        ascending: Tensor = torch.linalg.eigh(matrix.T @ matrix).eigenvectors
        return ascending.flip(1).T
    vectors: Tensor = torch.linalg.svd(matrix, full_matrices=False).Vh
    return vectors


@torch.no_grad()
def factorize(matrix: Tensor, target: LowRankLinear | LowRankEmbedding, importance: Tensor | None) -> None:
    """Write the factors of a weight matrix into the module that replaces it, in place."""
    if isinstance(target, LowRankLinear):
        up, down = factors(matrix, target.up.in_features, importance)
        target.up.weight.copy_(up)
        target.down.weight.copy_(down)
    else:
        table, directions = factors(matrix, target.up.in_features, importance)
        target.table.weight.copy_(table)
        target.up.weight.copy_(directions.T)
