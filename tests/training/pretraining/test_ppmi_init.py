"""Initialization from corpus statistics against its formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from plankwise.evaluation.metrics import Array
from plankwise.training.pretraining.ppmi_init import init_from_ppmi, ppmi_embeddings, sinusoids


def random_blocks(tokens: int, rows: int = 60, seed: int = 0) -> Array:
    blocks: Array = np.random.default_rng(seed).integers(0, tokens, (rows, 16))
    return blocks


def test_words_of_like_company_get_like_embeddings() -> None:
    """Words 0 and 1 occur among 4 … 7, words 2 and 3 among 8 … 11."""
    generator = np.random.default_rng(0)
    blocks = np.empty((2000, 3), dtype=int)
    blocks[:, 1] = generator.integers(0, 4, 2000)
    for side in (0, 2):
        blocks[:, side] = np.where(blocks[:, 1] < 2, 4, 8) + generator.integers(0, 4, 2000)
    vectors = ppmi_embeddings(blocks, 12, 4, scale=0.1, seed=0)
    assert vectors.std() == pytest.approx(0.1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = unit @ unit.T
    assert likeness[0, 1] > 0.9 > likeness[0, 2]
    assert likeness[2, 3] > 0.9 > likeness[1, 3]


def test_pairs_may_be_counted_piece_by_piece() -> None:
    whole = ppmi_embeddings(random_blocks(48), 48, 8, scale=0.1, seed=0)
    pieces = ppmi_embeddings(random_blocks(48), 48, 8, scale=0.1, seed=0, tokens_at_once=100)
    np.testing.assert_allclose(pieces, whole, atol=1e-8)


@pytest.mark.parametrize("tokens", [1, 6])
def test_widths_beyond_the_vocabulary_are_filled(tokens: int) -> None:
    vectors = ppmi_embeddings(random_blocks(tokens), 10, 32, scale=0.1, seed=0)
    assert vectors.shape == (10, 32)
    assert np.isfinite(vectors).all()
    assert vectors.std() < 0.2


def test_sinusoids_equal_their_formula() -> None:
    codes = sinusoids(7, 6)
    for position in range(7):
        for index in range(3):
            angle = position / 10000 ** (2 * index / 6)
            assert codes[position, 2 * index] == pytest.approx(np.sin(angle))
            assert codes[position, 2 * index + 1] == pytest.approx(np.cos(angle))


def test_a_model_is_initialized_in_place() -> None:
    model, blocks = tiny.masked_lm(), random_blocks(40)
    before = model.get_input_embeddings().weight.detach().clone()
    init_from_ppmi(model, blocks, seed=3)
    scale, after = model.config.initializer_range, model.get_input_embeddings().weight
    words = torch.from_numpy(ppmi_embeddings(blocks, 48, 16, scale=scale, seed=3)).float()
    torch.testing.assert_close(after[:40], words[:40])
    torch.testing.assert_close(after[40:], before[40:], msg="tokens that never occur keep their embeddings")
    counts = torch.bincount(torch.from_numpy(blocks).flatten(), minlength=48) + 0.1
    torch.testing.assert_close(model.get_output_embeddings().bias, (counts / counts.sum()).log().float())
    positions = torch.from_numpy(sinusoids(72, 16) * scale).float()
    torch.testing.assert_close(model.base_model.embeddings.position_embeddings.weight, positions)
