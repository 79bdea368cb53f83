"""A new encoder: its tokenizer, its initialization, its objective, its growth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

import tiny
from plankwise.core.recipe import to_plain, validate
from plankwise.data.corpus.blocks import blocks_of
from plankwise.data.tokenizer.learning import Vocabulary, train_tokenizer
from plankwise.training.objectives.losses import masked_lm_loss
from plankwise.training.objectives.masking import MaskedPositions, Masking, score_masked_lm
from plankwise.training.pretraining.config import ARCHITECTURES, PretrainingConfig, pretraining_model_config
from plankwise.training.pretraining.pretrain import (
    Pretrained,
    pretrain,
    rehearse_pretraining,
    sample_blocks,
    stage_training,
)

TEXTS = Dataset.from_dict({"text": [row["text"] for row in tiny.rows(300)]})
SMALL = PretrainingConfig(
    layers=4,
    width=16,
    heads=2,
    vocabulary=Vocabulary(size=60),
    positions=32,
    block=16,
    growth=(2, 4),
    epochs=(0.5, 0.2),
)
VOCABULARIES: dict[str, int] = {"wordpiece": 60, "bpe": 275, "unigram": 60}


def made_tokenizer(size: int = 60) -> PreTrainedTokenizerBase:
    return train_tokenizer(TEXTS, Vocabulary(size=size), 32)


def pretrained(
    folder: Path,
    config: PretrainingConfig = SMALL,
    check_tokenizer: Callable[[PreTrainedTokenizerBase], object] = lambda tokenizer: None,
) -> Pretrained:
    return pretrain(
        config,
        TEXTS,
        texts_hash="texts",
        masking=Masking(),
        seed=0,
        folder=folder / "work",
        cache=folder / "blocks",
        check_tokenizer=check_tokenizer,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    return pretrained(tmp_path_factory.mktemp("finished"))


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


def test_the_same_seed_gives_the_same_weights(finished: Pretrained, tmp_path: Path) -> None:
    again = pretrained(tmp_path)
    pairs = zip(finished.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert finished.model.config.num_hidden_layers == 4


def test_the_log_is_the_document_that_records_hold(finished: Pretrained) -> None:
    log, per_epoch = finished.log.as_dict(), math.ceil(finished.log.blocks / 32)
    steps = [math.ceil(per_epoch * 0.5), math.ceil(per_epoch * 0.2)]
    assert [list(stage) for stage in log["stages"]] == [["layers", "steps", "tokens", "train_seconds"]] * 2
    assert [(stage["layers"], stage["steps"]) for stage in log["stages"]] == [(2, steps[0]), (4, steps[1])]
    assert [stage["tokens"] for stage in log["stages"]] == [count * 32 * 16 for count in steps]
    assert sum(stage["train_seconds"] for stage in log["stages"]) == finished.log.train_seconds
    assert {key: value for key, value in log.items() if key != "stages"} == {
        "blocks": finished.log.blocks,
        "vocabulary": len(finished.tokenizer),
    }


def test_ppmi_init_knows_the_unigrams_before_any_step(tmp_path: Path) -> None:
    still = dataclasses.replace(SMALL, layers=1, growth=(1,), epochs=(0.01,), learning_rate=1e-9)
    biases = []
    for name, settings in (("ppmi", still), ("random", dataclasses.replace(still, ppmi_init=False))):
        biases.append(pretrained(tmp_path / name, settings).model.get_output_embeddings().bias)
    blocks = blocks_of(TEXTS, "texts", made_tokenizer(), 16, tmp_path / "ppmi" / "blocks")
    counts = np.bincount(np.stack(blocks["input_ids"][:]).ravel(), minlength=len(biases[0])) + 0.1
    np.testing.assert_allclose(biases[0].detach().numpy(), np.log(counts / counts.sum()), atol=1e-5)
    assert biases[1].abs().max() < 1e-5


def test_the_key_of_older_recipes_is_read() -> None:
    old = validate({"fast_start": False}, PretrainingConfig)
    assert old == PretrainingConfig(ppmi_init=False)
    assert to_plain(old)["ppmi_init"] is False
    assert "fast_start" not in to_plain(old)


def test_a_rehearsal_counts_the_steps_that_pretraining_takes(finished: Pretrained) -> None:
    planned, tokenizer = rehearse_pretraining(SMALL, TEXTS, Masking(), 10.0, blocks_to_try=64)
    assert [row["steps"] for row in planned] == [stage.steps for stage in finished.log.stages]
    assert [row["seconds"] for row in planned] == [row["steps"] * row["seconds_per_step"] for row in planned]
    assert planned[-1]["parameters"] == sum(value.numel() for value in finished.model.parameters())
    assert len(tokenizer) == len(finished.tokenizer)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_learns_from_scratch(architecture: str, tmp_path: Path) -> None:
    kind = list(VOCABULARIES)[ARCHITECTURES.index(architecture) % 3]
    config = PretrainingConfig(
        architecture=architecture,
        layers=2,
        width=16,
        heads=2,
        vocabulary=validate({"kind": kind, "size": VOCABULARIES[kind]}, Vocabulary),
        positions=32,
        block=32,
        growth=(1, 2),
        epochs=(0.5, 0.5),
        batch_size=8,
    )
    made = pretrained(tmp_path, config)
    data = blocks_of(TEXTS, "texts", made.tokenizer, 32, tmp_path / "blocks")
    assert [stage.steps for stage in made.log.stages] == [math.ceil(math.ceil(len(data) / 8) * 0.5)] * 2
    scores = score_masked_lm(made.model, made.tokenizer, data, Masking())
    assert scores["perplexity"] < len(made.tokenizer), "no better than a uniform guess"
    made.model.save_pretrained(tmp_path / "saved")
    made.tokenizer.save_pretrained(tmp_path / "saved")
    again, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not report["missing_keys"]
    assert score_masked_lm(again, made.tokenizer, data, Masking()) == pytest.approx(scores, rel=1e-5)


def test_a_resumed_run_keeps_its_tokenizer(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die(tokenizer: Any) -> None:
        raise Killed

    short = dataclasses.replace(SMALL, layers=1, growth=(1,), epochs=(0.1,))
    with pytest.raises(Killed):
        pretrained(tmp_path, short, check_tokenizer=die)
    path = tmp_path / "work" / "tokenizer" / "tokenizer.json"
    written = path.stat()
    resumed = pretrained(tmp_path, short)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns), "trained again"
    assert resumed.tokenizer.get_vocab() == made_tokenizer().get_vocab()


@pytest.mark.parametrize(("epochs", "evaluations"), [(0.01, 4), (1.0, 4), (2.0, 2), (100.0, 1)])
def test_checkpoints_are_spread_over_a_stage(epochs: float, evaluations: int) -> None:
    config = PretrainingConfig(layers=1, growth=(1,), epochs=(epochs,), checkpoints=4)
    assert stage_training(config, epochs).evaluations_per_epoch == evaluations


def test_initialization_reads_an_even_sample(tmp_path: Path) -> None:
    data = blocks_of(TEXTS, "texts", tiny.tokenizer(), 16, tmp_path)
    whole = np.stack(list(data["input_ids"][:]))
    np.testing.assert_array_equal(sample_blocks(data, len(data) * 16), whole)
    np.testing.assert_array_equal(sample_blocks(data, math.ceil(len(data) * 16 / 3)), whole[::3])


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
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    kept: dict[str, Any] = {
        "layers": 4,
        "width": 16,
        "heads": 2,
        "positions": 32,
        "block": 16,
        "growth": (2, 4),
        "epochs": (1, 1),
    }
    with pytest.raises(ValueError, match=message):
        PretrainingConfig(**{**kept, **changes})
