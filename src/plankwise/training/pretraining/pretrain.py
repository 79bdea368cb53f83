"""A small encoder from scratch: tokenizer, initialization, masked-LM training, growing in depth."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
)

from plankwise.core.cache import built_once
from plankwise.core.seeds import mix_seed
from plankwise.data.corpus.blocks import blocks_of
from plankwise.data.tokenizer.learning import train_tokenizer
from plankwise.encoder.surgery import grow
from plankwise.encoder.tokenizer import read_tokenizer
from plankwise.evaluation.metrics import Array
from plankwise.training.callbacks import Rehearsal
from plankwise.training.fit import Training, fit, planned_steps
from plankwise.training.objectives.masking import Masking, masked_lm_data, new_masked_lm
from plankwise.training.pretraining.config import PretrainingConfig, pretraining_model_config
from plankwise.training.pretraining.ppmi_init import init_from_ppmi
from plankwise.training.trainer import TrainingResult

REHEARSED_TEXTS = 20_000
PPMI_TOKENS = 10_000_000  # of the corpus that initialization takes its statistics from, evenly spread


@dataclass(frozen=True)
class PretrainingStage:
    """The training at one depth.

    Attributes:
        layers: the depth.
        steps: optimizer steps.
        tokens: tokens seen in these steps.
        train_seconds: time spent in them.
    """

    layers: int
    steps: int
    tokens: int
    train_seconds: float


@dataclass(frozen=True)
class PretrainingLog:
    """The record's entry on a pretraining; `as_dict` is its JSON document.

    Attributes:
        stages: one for each depth.
        blocks: number of token blocks in the corpus.
        vocabulary: number of tokens that the tokenizer knows.
    """

    stages: tuple[PretrainingStage, ...]
    blocks: int
    vocabulary: int

    @property
    def train_seconds(self) -> float:
        """Time spent in optimizer steps, over all depths."""
        return sum(stage.train_seconds for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document of the record."""
        return {**asdict(self), "stages": [asdict(stage) for stage in self.stages]}


@dataclass(frozen=True)
class Pretrained:
    """A pretrained encoder with its masked-LM head, in evaluation mode, its tokenizer and what was done."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    log: PretrainingLog


def pretrain(
    config: PretrainingConfig,
    texts: Dataset,
    *,
    texts_hash: str,
    masking: Masking,
    seed: int,
    folder: Path,
    cache: Path,
    progress: bool = False,
    check_tokenizer: Callable[[PreTrainedTokenizerBase], object] = lambda tokenizer: None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Pretrained:
    """Train a tokenizer and a masked LM on `texts`; resume if a run was killed.

    Args:
        config: what to train.
        texts: rows with a `text`.
        texts_hash: of these texts.
        masking: the objective.
        seed: of everything random.
        folder: for the tokenizer and for checkpoints.
        cache: folder that keeps the tokenized text.
        progress: whether to show progress bars.
        check_tokenizer: called with the tokenizer before the model is trained, to find faults early.
        callbacks: of the Transformers Trainer.
    """
    tokenizer = _tokenizer(config, texts, folder / "tokenizer")
    check_tokenizer(tokenizer)
    blocks = blocks_of(texts, texts_hash, tokenizer, config.block, cache)
    torch.manual_seed(mix_seed(seed, "pretraining"))
    model = new_masked_lm(pretraining_model_config(config, config.growth[0], len(tokenizer)))
    if config.ppmi_init:
        # "fast start" is the old name of the setting; another one would be another seed and other weights.
        init_from_ppmi(model, sample_blocks(blocks, PPMI_TOKENS), mix_seed(seed, "fast start"))
    train = partial(_train, masking=masking, seed=seed, progress=progress, callbacks=callbacks)
    stages = []
    for depth, epochs in zip(config.growth, config.epochs, strict=True):
        model, place = grow(model, depth), folder / f"{depth}-layers"
        training = stage_training(config, epochs)
        result = train(model, tokenizer, blocks, training, folder=place)
        tokens = result.steps * config.batch_size * config.block
        stages.append(PretrainingStage(depth, result.steps, tokens, result.train_seconds))
    return Pretrained(model.eval(), tokenizer, PretrainingLog(tuple(stages), len(blocks), len(tokenizer)))


def stage_training(config: PretrainingConfig, epochs: float) -> Training:
    """Return the settings of the training at one depth; `config.checkpoints` are spread over all its epochs."""
    return Training(
        epochs=epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        keep="last",
        # Below one epoch evaluations are counted over the whole training, hence never more than `checkpoints`.
        evaluations_per_epoch=max(1, round(config.checkpoints / max(1.0, epochs))),
    )


def sample_blocks(blocks: Dataset, tokens: int) -> Array:
    """Load an even sample of the blocks, of about `tokens` tokens at most, [blocks, length]."""
    length = len(blocks[0]["input_ids"])
    every = max(1, math.ceil(len(blocks) * length / tokens))
    sample: Array = np.stack(blocks.select(range(0, len(blocks), every))["input_ids"][:]).astype(np.int32)
    return sample


def rehearse_pretraining(
    config: PretrainingConfig, texts: Dataset, masking: Masking, seconds: float, blocks_to_try: int = 128
) -> tuple[list[dict[str, Any]], PreTrainedTokenizerBase]:
    """Count the steps of each depth and time a few on random weights, for some seconds at most; nothing is kept.

    Args:
        config: what would be trained.
        texts: rows with a `text`.
        masking: the objective.
        seconds: time limit at each depth.
        blocks_to_try: number of blocks to train on.

    Returns:
        A row of the plan for each depth, and a tokenizer trained on a sample of the texts.
    """
    some = texts.select(range(0, len(texts), math.ceil(len(texts) / REHEARSED_TEXTS)))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(some, config.vocabulary, config.positions)
        blocks = blocks_of(some, "rehearsal", tokenizer, config.block, Path(folder))
        all_blocks = math.ceil(len(blocks) * len(texts) / len(some))
        few = blocks.select(range(min(len(blocks), blocks_to_try)))
        rows = []
        for depth, epochs in zip(config.growth, config.epochs, strict=True):
            model = new_masked_lm(pretraining_model_config(config, depth, len(tokenizer)))
            timed, place = Rehearsal(seconds), Path(folder) / str(depth)
            training = stage_training(config, 1.0)
            _train(model, tokenizer, few, training, masking=masking, seed=0, folder=place, rehearsal=timed)
            steps = planned_steps(all_blocks, stage_training(config, epochs))
            rows.append(
                {
                    "stage": f"pretraining, {depth} layers",
                    "parameters": sum(value.numel() for value in model.parameters()),
                    "steps": steps,
                    "seconds_per_step": timed.seconds_per_step,
                    "seconds": steps * timed.seconds_per_step,
                }
            )
    return rows, tokenizer


def _tokenizer(config: PretrainingConfig, texts: Dataset, folder: Path) -> PreTrainedTokenizerBase:
    """Train the tokenizer once: a second process, or a resumed run, might arrive at another one."""
    built_once(
        folder, lambda target: train_tokenizer(texts, config.vocabulary, config.positions).save_pretrained(target)
    )
    return read_tokenizer(folder)


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    blocks: Dataset,
    training: Training,
    *,
    masking: Masking,
    seed: int,
    folder: Path,
    progress: bool = False,
    rehearsal: Rehearsal | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingResult:
    with masked_lm_data(model, tokenizer, blocks, masking) as data:
        return fit(
            model,
            data,
            training,
            seed=mix_seed(seed, "pretraining", folder.name),
            folder=folder,
            progress=f"pretraining, {folder.name}" if progress else None,
            rehearsal=rehearsal,
            callbacks=callbacks,
        )
