"""A model of fewer tokens computes what the large one does, for every text of the tokens that stayed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import tiny
from plankwise.encoder.cost import count_parameters
from plankwise.encoder.embeddings import fixed_rows, keep_tokens, with_tokens
from plankwise.encoder.shapes import prune


def kept_rows(model: PreTrainedModel, every: int = 3) -> list[int]:
    return sorted(fixed_rows(model.config) | set(range(7, 48, every)))


def batch(rows: list[int], pad: int, new: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    at = torch.randint(len(rows), (3, 11), generator=generator)
    mask = torch.ones_like(at)
    mask[0, 6:] = mask[2, 9:] = 0
    at[mask == 0] = rows.index(pad)
    return {"input_ids": at if new else torch.tensor(rows)[at], "attention_mask": mask}


@torch.inference_mode()
def logits(model: PreTrainedModel, **inputs: Any) -> torch.Tensor:
    found: torch.Tensor = model(**inputs).logits
    return found


@pytest.mark.parametrize("pad", [0, 1, 6])
@pytest.mark.parametrize("head", ["classifier", "tied", "untied"])
@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
def test_logits_are_those_of_the_large_model(kind: str, head: str, pad: int) -> None:
    if head == "classifier":
        model = tiny.model(kind, 2, pad_token_id=pad)
    else:
        model = tiny.masked_lm(kind, pad_token_id=pad, tie_word_embeddings=head == "tied")
    before = copy.deepcopy(model.state_dict())
    rows = kept_rows(model)
    smaller = keep_tokens(model, rows)
    expected = logits(model, **batch(rows, pad, new=False))
    found = logits(smaller, **batch(rows, pad, new=True))
    if head != "classifier":
        expected = expected[..., rows]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert smaller.get_input_embeddings().weight.shape[0] == smaller.config.vocab_size == len(rows)
    assert count_parameters(smaller) < count_parameters(model)
    assert smaller.get_input_embeddings().padding_idx in (rows.index(pad), model.get_input_embeddings().padding_idx)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if head == "tied" and kind != "rembert":  # its tables are two, of two widths
        assert smaller.get_output_embeddings().weight is smaller.get_input_embeddings().weight


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "camembert", "mpnet"])
def test_positions_that_are_counted_from_the_padding_keep_its_id(kind: str) -> None:
    model = tiny.model(kind, 1, pad_token_id=6)
    assert fixed_rows(model.config) >= set(range(7))
    assert with_tokens(model.config, [*range(7), 30]).pad_token_id == 6
    assert tiny.model("bert", 1, pad_token_id=6).config.pad_token_id == 6
    assert with_tokens(tiny.model("bert", 1, pad_token_id=6).config, [2, 6, 30]).pad_token_id == 1


def test_ids_in_the_configuration_move_along() -> None:
    config = tiny.model("eurobert", 1).config
    config.eos_token_id = [3, 40]
    assert fixed_rows(config) == {0, 2, 3, 4, 40}
    moved = with_tokens(config, [0, 2, 3, 4, 20, 40])
    assert (moved.pad_token_id, moved.bos_token_id, moved.eos_token_id, moved.mask_token_id) == (0, 1, [2, 5], 3)
    assert config.eos_token_id == [3, 40]
    assert config.vocab_size == 48


def test_layers_of_their_own_sizes_stay_as_they_are() -> None:
    model = tiny.model(layers=2)
    pruned = prune(model, [[0], [0, 1]], [range(5), range(20)])
    rows = kept_rows(pruned)
    found = logits(keep_tokens(pruned, rows), **batch(rows, 0, new=True))
    torch.testing.assert_close(found, logits(pruned, **batch(rows, 0, new=False)), atol=1e-6, rtol=0)


def test_the_random_state_is_left_alone() -> None:
    model = tiny.model(layers=1)
    torch.manual_seed(5)
    keep_tokens(model, kept_rows(model))
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))
