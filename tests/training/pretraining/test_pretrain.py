"""A new encoder: its tokenizer, its start, its objective, its growth."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

import tiny
from plankwise.data.corpus.blocks import blocks_of
from plankwise.data.tokenizer.learning import Vocabulary, train_tokenizer
from plankwise.training.objectives.losses import masked_lm_loss
from plankwise.training.objectives.masking import MaskedPositions, Masking
from plankwise.training.pretraining.config import PretrainingConfig, pretraining_model_config
from plankwise.training.pretraining.ppmi_init import ppmi_embeddings, sinusoids
from plankwise.training.pretraining.pretrain import pretrain, rehearse_pretraining

TEXTS = Dataset.from_dict({"text": [row["text"] for row in tiny.rows(300)]})
SMALL = PretrainingConfig(
    layers=4,
    width=16,
    heads=2,
    vocabulary=Vocabulary(size=60),
    positions=32,
    block=16,
    growth=(2, 4),
    epochs=(4, 2),
)


def made_tokenizer(size: int = 60) -> PreTrainedTokenizerBase:
    return train_tokenizer(TEXTS, Vocabulary(size=size), 32)


def pretrained(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    return pretrain(SMALL, TEXTS, "texts", Masking(), 0, folder, folder / "blocks")


def test_the_same_texts_give_the_same_vocabulary() -> None:
    """The library's own trainer does not: it breaks ties in the order of a hash map."""
    made = [made_tokenizer(size).get_vocab() for size in (90, 90, 70)]
    assert made[0] == made[1]
    assert made[2] != made[0]
    assert set(made[0].values()) == set(range(len(made[0])))


def test_packing_loses_no_token_but_the_last_few(tmp_path: Path) -> None:
    tokenizer = made_tokenizer()
    blocks = np.stack(blocks_of(TEXTS, "texts", tokenizer, 16, tmp_path)["input_ids"][:])
    stream = [
        token for ids in tokenizer(TEXTS["text"][:], add_special_tokens=False)["input_ids"] for token in (*ids, 3)
    ]
    assert blocks[:, 1:].ravel().tolist() == stream[: blocks[:, 1:].size]
    assert len(stream) - blocks[:, 1:].size < 15
    assert set(blocks[:, 0]) == {tokenizer.cls_token_id}


def test_logits_are_those_of_the_masked_positions() -> None:
    torch.manual_seed(0)
    tokenizer = made_tokenizer()
    model = AutoModelForMaskedLM.from_config(pretraining_model_config(SMALL, 2, len(tokenizer))).eval()
    masking = MaskedPositions(tokenizer, Masking(rate=0.3))
    batch = masking.prepare({"input_ids": torch.randint(5, 50, (4, 16)), "attention_mask": torch.ones(4, 16).long()})
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with masking.on(model):
        few = model(**inputs)
    chosen = masking._chosen
    every = model(**inputs)
    torch.testing.assert_close(few.logits, every.logits[chosen], rtol=0, atol=1e-6)
    slow = torch.nn.functional.cross_entropy(every.logits[chosen], batch["labels"])
    torch.testing.assert_close(masked_lm_loss(few, batch), slow)


def test_masking_keeps_its_shares_and_spares_special_tokens() -> None:
    torch.manual_seed(0)
    tokenizer = made_tokenizer()
    masking = MaskedPositions(tokenizer, Masking(rate=0.2, whole_words=False))
    ids = torch.randint(5, 50, (400, 32))
    ids[:, 0], ids[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    batch = masking.prepare({"input_ids": ids})
    chosen = masking._chosen
    assert not chosen[:, 0].any()
    assert not chosen[:, -1].any()
    assert abs(chosen[:, 1:-1].float().mean() - 0.2) < 0.02
    masked = batch["input_ids"][chosen]
    assert abs((masked == tokenizer.mask_token_id).float().mean() - 0.8) < 0.03
    assert 0.09 < (masked == ids[chosen]).float().mean() < 0.13
    assert torch.equal(batch["input_ids"][~chosen], ids[~chosen])
    assert torch.equal(batch["labels"], ids[chosen])


def test_ppmi_embeddings_put_words_of_like_company_together() -> None:
    """Words 0 and 1 stand among 4 … 7, words 2 and 3 among 8 … 11: like goes with like."""
    generator = np.random.default_rng(0)
    blocks = np.empty((2000, 3), dtype=int)
    blocks[:, 1] = generator.integers(0, 4, 2000)
    for side in (0, 2):
        blocks[:, side] = np.where(blocks[:, 1] < 2, 4, 8) + generator.integers(0, 4, 2000)
    vectors = ppmi_embeddings(blocks, 12, 4, 0.1, seed=0)
    assert vectors.std() == pytest.approx(0.1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = unit @ unit.T
    assert likeness[0, 1] > 0.9 > likeness[0, 2]
    assert likeness[2, 3] > 0.9 > likeness[1, 3]


def test_sinusoids_equal_their_formula() -> None:
    codes = sinusoids(7, 6)
    for position in range(7):
        for index in range(3):
            angle = position / 10000 ** (2 * index / 6)
            assert codes[position, 2 * index] == pytest.approx(np.sin(angle))
            assert codes[position, 2 * index + 1] == pytest.approx(np.cos(angle))


def test_the_fast_start_knows_the_unigrams_before_any_step(tmp_path: Path) -> None:
    blocks = blocks_of(TEXTS, "texts", made_tokenizer(), 16, tmp_path / "blocks")
    counts = Counter(np.stack(blocks["input_ids"][:]).ravel().tolist())
    model, _, _ = pretrained(tmp_path)
    again, _, notes = pretrained(tmp_path / "again")
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    assert [stage["layers"] for stage in notes["stages"]] == [2, 4]
    assert model.config.num_hidden_layers == 4
    bias = model.get_output_embeddings().bias
    common, rare = counts.most_common()[0][0], counts.most_common()[-1][0]
    assert bias[common] > bias[rare]


def test_a_rehearsal_counts_the_steps_that_pretraining_takes(tmp_path: Path) -> None:
    planned, _ = rehearse_pretraining(SMALL, TEXTS, Masking(), 10.0, blocks_to_try=64)
    _, _, notes = pretrained(tmp_path)
    assert [row["steps"] for row in planned] == [stage["steps"] for stage in notes["stages"]]
    assert all(row["seconds"] > 0 for row in planned)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"growth": (2, 3), "epochs": (1, 1)}, "has to rise to layers"),
        ({"growth": (4,), "epochs": (1, 1)}, "one number for each depth"),
        ({"block": 64}, "longer than positions"),
        ({"heads": 3}, "does not divide into 3 heads"),
        ({"architecture": "mpnet"}, "no new model of the architecture 'mpnet'; .*Allowed: bert, roberta"),
        ({"architecture": "brt"}, "did you mean 'bert'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, object], message: str) -> None:
    kept = {"layers": 4, "width": 16, "heads": 2, "positions": 32, "block": 16, "growth": (2, 4), "epochs": (1, 1)}
    with pytest.raises(ValueError, match=message):
        PretrainingConfig(**{**kept, **changes})
