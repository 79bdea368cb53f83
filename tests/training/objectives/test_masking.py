"""The masked-LM objective: what is chosen, how much of it, what the head sees, and how a model is scored."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn import functional

import tiny
from plankwise.data.corpus.blocks import blocks_of, continuations
from plankwise.data.tokenizer.learning import Vocabulary, train_tokenizer
from plankwise.training.fit import Training, fit
from plankwise.training.objectives import masking
from plankwise.training.objectives.masking import MaskedPositions, Masking, as_batch, masked_lm_data, score_masked_lm

LINES = [row["text"] for row in tiny.rows(300)]
TEXTS = Dataset.from_dict({"text": LINES})
KINDS: dict[str, int] = {"wordpiece": 60, "bpe": 275, "unigram": 60}


def made(kind: Any = "wordpiece") -> Any:
    return train_tokenizer(TEXTS, Vocabulary(kind=kind, size=KINDS[kind]), 32)


def some_blocks(folder: Path, tokenizer: Any = None, block: int = 16) -> Dataset:
    return blocks_of(TEXTS, "texts", tokenizer or tiny.tokenizer(), block, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_chosen_wholly_or_not_at_all(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = made(kind)
    goes_on = torch.from_numpy(continuations(tokenizer))
    batch = as_batch(list(some_blocks(tmp_path, tokenizer, 32)))
    positions = MaskedPositions(tokenizer, Masking(rate=0.3))
    positions.prepare(batch)
    ids, chosen = batch["input_ids"], positions._chosen
    inside = goes_on[ids[:, 1:]] & ~torch.isin(ids[:, :-1], torch.tensor(tokenizer.all_special_ids))
    assert inside.any(), "every word is one token, so the test shows nothing"
    assert torch.equal(chosen[:, 1:][inside], chosen[:, :-1][inside])
    usable = ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    assert not chosen[~usable].any()
    assert abs(chosen.sum() / usable.sum() - 0.3) < 0.03


def test_single_tokens_are_chosen_on_their_own_if_asked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = made("bpe")
    batch = as_batch(list(some_blocks(tmp_path, tokenizer, 32)))
    positions = MaskedPositions(tokenizer, Masking(rate=0.3, whole_words=False))
    positions.prepare(batch)
    goes_on = torch.from_numpy(continuations(tokenizer))[batch["input_ids"][:, 1:]]
    assert not torch.equal(positions._chosen[:, 1:][goes_on], positions._chosen[:, :-1][goes_on])


@pytest.mark.parametrize("rate", [1e-9, 0.15])
def test_at_least_one_whole_word_is_chosen_and_never_a_special_token(rate: float) -> None:
    tokenizer = made("bpe")
    word = tokenizer("grimm", add_special_tokens=False)["input_ids"]
    assert len(word) > 1
    positions = MaskedPositions(tokenizer, Masking(rate=rate))
    for seed in range(20):
        torch.manual_seed(seed)
        positions.prepare({"input_ids": torch.tensor([[2, 3, 3, *word, 3]])})
        assert positions._chosen[0].tolist() in ([False] * 3 + [True] * len(word) + [False],)
    batch = positions.prepare({"input_ids": torch.full((2, 4), 1)})
    assert len(batch["labels"]), "even nothing but unknown words gives a loss that is a number"


def test_noise_is_drawn_from_the_whole_vocabulary() -> None:
    torch.manual_seed(0)
    tokenizer = tiny.tokenizer()
    ids = torch.full((300, 64), 7)
    batch = MaskedPositions(tokenizer, Masking(rate=0.9)).prepare({"input_ids": ids})
    assert set(batch["input_ids"].flatten().tolist()) == set(range(len(tokenizer)))


@pytest.mark.parametrize(("rate", "end_rate"), [(0.15, None), (0.3, 0.15), (0.1, 0.5)])
def test_the_rate_follows_its_schedule(rate: float, end_rate: float | None) -> None:
    settings = Masking(rate=rate, end_rate=end_rate)
    positions = MaskedPositions(tiny.tokenizer(), settings)
    for step in range(11):
        positions.at_step(step, 11)
        assert positions.rate == pytest.approx(rate + ((end_rate or rate) - rate) * step / 10)
    positions.at_step(0, 1)
    assert positions.rate == rate


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
@pytest.mark.parametrize("train", [False, True])
def test_logits_of_masked_positions_equal_the_full_computation(kind: str, train: bool) -> None:
    model = tiny.masked_lm(kind).train(train)
    positions = MaskedPositions(tiny.tokenizer(), Masking(rate=0.3))
    ids = torch.randint(5, 32, (4, 12), generator=torch.Generator().manual_seed(0))
    batch = positions.prepare({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with positions.on(model):
        torch.manual_seed(1)
        few = model(**inputs).logits
    torch.manual_seed(1)
    every = model(**inputs).logits
    assert few.shape == (len(batch["labels"]), 48)
    torch.testing.assert_close(few, every[positions._chosen], rtol=1e-5, atol=1e-5)
    assert every.shape == (4, 12, 48), "the hook is gone"


def test_a_score_equals_hand_arithmetic_and_is_always_the_same(tmp_path: Path) -> None:
    model, tokenizer = tiny.masked_lm("bert"), tiny.tokenizer()
    data, settings = some_blocks(tmp_path), Masking(rate=0.2, end_rate=0.9)
    positions = MaskedPositions(tokenizer, settings)
    generator = torch.Generator().manual_seed(0)
    losses, right = [], []
    for start in range(0, len(data), masking.BLOCKS_PER_BATCH):
        rows = data.select(range(start, min(start + masking.BLOCKS_PER_BATCH, len(data))))
        batch = positions.prepare(as_batch(list(rows)), generator)
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"]).logits[positions._chosen]
        losses += functional.cross_entropy(logits, batch["labels"], reduction="none").tolist()
        right += (logits.argmax(dim=-1) == batch["labels"]).tolist()
    scores = score_masked_lm(model, tokenizer, data, settings)
    assert scores["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert scores["masked_accuracy"] == pytest.approx(np.mean(right))
    torch.manual_seed(99)
    assert score_masked_lm(model, tokenizer, data, settings) == scores


def test_of_many_blocks_an_even_sample_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "MOST_BLOCKS", 10)
    model, data = tiny.masked_lm("bert"), some_blocks(tmp_path)
    every = math.ceil(len(data) / 10)
    expected = score_masked_lm(model, tiny.tokenizer(), data, Masking())
    sample = data.select(range(0, len(data), every))
    assert score_masked_lm(model, tiny.tokenizer(), sample, Masking()) == expected


def test_scoring_leaves_training_as_it_was(tmp_path: Path) -> None:
    model, tokenizer, data = tiny.masked_lm("bert").train(), tiny.tokenizer(), some_blocks(tmp_path)
    with MaskedPositions(tokenizer, Masking(end_rate=0.5)).on(model) as positions:
        positions.at_step(3, 11)
        rate, state = positions.rate, torch.get_rng_state()
        first = score_masked_lm(model, tokenizer, data, Masking(end_rate=0.5), positions)
        assert positions.rate == rate
        assert torch.equal(torch.get_rng_state(), state)
        assert model.training
    assert first == score_masked_lm(model, tokenizer, data, Masking())
    assert not model.base_model._forward_hooks


def test_scoring_in_between_does_not_change_what_is_learned(tmp_path: Path) -> None:
    tokenizer, data = tiny.tokenizer(), some_blocks(tmp_path / "blocks")
    weights = []
    for evaluations in (1, 5):
        model = tiny.masked_lm("bert")
        training = Training(epochs=1, batch_size=8, keep="last", evaluations_per_epoch=evaluations, precision="fp32")
        held_out = data.select(range(8))
        with masked_lm_data(model, tokenizer, data, Masking(end_rate=0.4), held_out=held_out) as material:
            fit(model, material, training, seed=1, folder=tmp_path / str(evaluations))
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
