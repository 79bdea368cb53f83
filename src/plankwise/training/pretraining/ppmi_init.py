"""Initialization from corpus statistics, with which a small masked language model leaves the unigram plateau early.

Word embeddings come from a factorization of the corpus' positive pointwise mutual information (PPMI; Levy & Goldberg
2014), the output bias from log unigram frequencies, and learned positions start as sinusoids. Measured on Bundestag
text, this left the plateau about ten times sooner than random normal numbers; with 10⁹ tokens it would matter less.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix
from sklearn.utils.extmath import randomized_svd
from transformers import PreTrainedModel

from plankwise.evaluation.metrics import Array, Floats

WINDOW = 4  # tokens to either side
TOKENS_AT_ONCE = 2_000_000
SMOOTHING = 0.75  # exponent of context frequencies, as in word2vec


def init_from_ppmi(model: PreTrainedModel, blocks: Array, seed: int) -> None:
    """Initialize embeddings, positions and output bias of a new masked LM in place, from blocks [blocks, length]."""
    vocabulary, width = model.get_input_embeddings().weight.shape
    scale = float(model.config.initializer_range)
    frequencies = np.bincount(blocks.ravel(), minlength=vocabulary).astype(float)
    words = ppmi_embeddings(blocks, vocabulary, width, scale=scale, seed=seed)
    positions = sinusoids(int(model.config.max_position_embeddings), width) * scale
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        seen = torch.from_numpy(frequencies > 0)  # tokens that never occur keep their random embeddings
        embeddings[seen] = torch.from_numpy(words).to(embeddings.dtype)[seen]
        bias = getattr(model.get_output_embeddings(), "bias", None)
        if bias is not None:
            # 0.1 for each token, so that one that never occurs has a finite logarithm.
            bias.copy_(torch.from_numpy(np.log((frequencies + 0.1) / (frequencies + 0.1).sum())))
        for name, parameter in model.named_parameters():
            if name.endswith("position_embeddings.weight"):
                parameter.copy_(torch.from_numpy(positions)[: len(parameter)])


def ppmi_embeddings(
    blocks: Array, vocabulary: int, width: int, *, scale: float, seed: int, tokens_at_once: int = TOKENS_AT_ONCE
) -> Floats:
    """Factorize the PPMI matrix of tokens within a few positions of each other.

    Args:
        blocks: token ids, [blocks, length].
        vocabulary: number of tokens.
        width: of the embeddings.
        scale: their standard deviation.
        seed: of the factorization and of what it leaves free.
        tokens_at_once: tokens whose pairs are counted at a time, which bounds memory.

    Returns:
        [vocabulary, width], shifted and scaled to mean 0 and standard deviation `scale`.
    """
    counts = csr_matrix((vocabulary, vocabulary))
    rows = max(1, tokens_at_once // blocks.shape[1])
    for start in range(0, len(blocks), rows):
        counts = counts + _pairs(blocks[start : start + rows], vocabulary)
    counts = (counts + counts.T).tocoo()
    row_sums = np.asarray(counts.sum(axis=1)).ravel()
    contexts = row_sums**SMOOTHING
    contexts /= contexts.sum()
    # PMI(t, c) = log p(t, c) / (p(t) p(c)); the totals of pairs cancel.
    information = np.log(counts.data / (row_sums[counts.row] * contexts[counts.col]))
    positive = information > 0
    matrix = csr_matrix((information[positive], (counts.row[positive], counts.col[positive])), shape=counts.shape)
    rank = min(width, vocabulary)
    left_vectors, values, _ = randomized_svd(matrix, rank, n_iter=4, random_state=seed % 2**32)
    vectors: Floats = left_vectors * np.sqrt(values)  # U √Σ, symmetric as Levy & Goldberg recommend
    vectors -= vectors.mean(axis=0)
    vectors *= scale / max(float(vectors.std()), 1e-12)
    # The rank is at most the number of words: the columns beyond it are random.
    rest = np.random.default_rng(seed).normal(0.0, scale, (vocabulary, width - rank))
    return np.hstack([vectors, rest])


def _pairs(blocks: Array, vocabulary: int) -> csr_matrix:
    """Count how often one token precedes another, [vocabulary, vocabulary]; a pair at distance d counts 1 / d."""
    counts = csr_matrix((vocabulary, vocabulary))
    for distance in range(1, WINDOW + 1):
        left, right = blocks[:, :-distance].ravel(), blocks[:, distance:].ravel()
        weight = np.full(left.shape, 1.0 / distance)
        counts = counts + coo_matrix((weight, (left, right)), shape=counts.shape).tocsr()
    return counts


def sinusoids(positions: int, width: int) -> Floats:
    """Return the position codes of Vaswani et al. 2017 (section 3.5), [positions, width], in [−1, 1]."""
    angles = np.arange(positions)[:, None] / 10000 ** (2 * (np.arange(width) // 2) / width)
    return np.where(np.arange(width) % 2 == 0, np.sin(angles), np.cos(angles))
