"""A small encoder from scratch: tokenizer, fast start, masked-LM training, growing in depth."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
)

from plankwise.core.cache import built_once
from plankwise.core.seeds import mix_seed
from plankwise.data.corpus.blocks import blocks_of
from plankwise.data.tokenizer.learning import train_tokenizer
from plankwise.encoder.shapes import new_model
from plankwise.encoder.surgery import grow
from plankwise.encoder.tokenizer import read_tokenizer
from plankwise.evaluation.metrics import Array
from plankwise.training.callbacks import Rehearsal
from plankwise.training.fit import Training, TrainingResult, fit, planned_steps
from plankwise.training.objectives.losses import Loss, masked_lm_loss
from plankwise.training.objectives.masking import MaskedPositions, Masking, as_batch, score_masked_lm
from plankwise.training.pretraining.config import PretrainingConfig, pretraining_model_config
from plankwise.training.pretraining.ppmi_init import init_from_ppmi
from plankwise.training.trainer import TrainingData

REHEARSED_TEXTS = 20_000
FAST_START_TOKENS = 10_000_000  # of the corpus that its statistics are taken from, evenly spread


def pretrain(
    scratch: PretrainingConfig,
    texts: Dataset,
    content: str,
    masking: Masking,
    seed: int,
    folder: Path,
    cache: Path,
    progress: bool = False,
    look_at: Callable[[PreTrainedTokenizerBase], object] = lambda tokenizer: None,
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """Train tokenizer and masked LM on `texts`, going on where a killed run stopped.

    Args:
        scratch: what to train.
        texts: rows with a `text`.
        content: the hash of these texts.
        masking: the objective.
        seed: of everything random.
        folder: for the tokenizer and for checkpoints.
        cache: folder that keeps the tokenized text.
        progress: whether to show progress bars.
        look_at: called with the tokenizer before the model is trained, to find faults early.
        callbacks: of the Transformers Trainer.

    Returns:
        The model, its tokenizer, and what was done at each depth.
    """
    tokenizer = _tokenizer(scratch, texts, folder / "tokenizer")
    look_at(tokenizer)
    blocks = blocks_of(texts, content, tokenizer, scratch.block, cache)
    torch.manual_seed(mix_seed(seed, "pretraining"))
    model = new_masked_lm(pretraining_model_config(scratch, scratch.growth[0], len(tokenizer)))
    if scratch.fast_start:
        init_from_ppmi(model, _sample(blocks, scratch.block), mix_seed(seed, "fast start"))
    stages = []
    for depth, epochs in zip(scratch.growth, scratch.epochs, strict=True):
        model = grow(model, depth)
        fitted = _train(
            model,
            tokenizer,
            blocks,
            scratch,
            masking,
            epochs,
            seed,
            folder / f"{depth}-layers",
            progress,
            None,
            callbacks,
        )
        stages.append(
            {
                "layers": depth,
                "steps": fitted.steps,
                "tokens": fitted.steps * scratch.batch_size * scratch.block,
                "train_seconds": fitted.train_seconds,
            }
        )
    return model.eval(), tokenizer, {"stages": stages, "blocks": len(blocks), "vocabulary": len(tokenizer)}


@contextmanager
def masked_lm_material(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    blocks: Dataset,
    held_out: Dataset | None,
    masking: Masking,
    loss: Loss = masked_lm_loss,
    teacher: PreTrainedModel | None = None,
) -> Iterator[TrainingData]:
    """Make of token blocks what `fit` trains on; while the context lasts, the head sees masked tokens only.

    So does that of a teacher, which has to be asked about the same tokens.
    """
    positions = MaskedPositions(tokenizer, masking)
    with ExitStack() as stack:
        for each in (model, teacher):
            if each is not None:
                stack.enter_context(positions.on(each))
        yield TrainingData(
            blocks,
            as_batch,
            loss,
            evaluate=None
            if held_out is None
            else lambda current: score_masked_lm(current, tokenizer, held_out, masking, positions)["masked_accuracy"],
            prepare=positions.prepare,
            at_step=positions.at_step,
            equal_lengths=True,
        )


def new_masked_lm(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a masked LM with random weights from the current torch seed."""
    model = new_model(AutoModelForMaskedLM._model_mapping[type(config)], config)
    assert isinstance(model, PreTrainedModel)
    return model


def _tokenizer(scratch: PretrainingConfig, texts: Dataset, folder: Path) -> PreTrainedTokenizerBase:
    """Train the tokenizer once: a second process, or a run that goes on, might not arrive at the same one."""
    built_once(
        folder, lambda target: train_tokenizer(texts, scratch.vocabulary, scratch.positions).save_pretrained(target)
    )
    return read_tokenizer(folder)


def _sample(blocks: Dataset, block: int) -> Array:
    """Take an even sample of the blocks into memory, [blocks, block]."""
    every = max(1, math.ceil(len(blocks) * block / FAST_START_TOKENS))
    sample: Array = np.stack(blocks.select(range(0, len(blocks), every))["input_ids"][:]).astype(np.int32)
    return sample


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    blocks: Dataset,
    scratch: PretrainingConfig,
    masking: Masking,
    epochs: float,
    seed: int,
    folder: Path,
    progress: bool,
    rehearsal: Rehearsal | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingResult:
    training = _training(scratch, epochs)
    with masked_lm_material(model, tokenizer, blocks, None, masking) as material:
        return fit(
            model,
            material,
            training,
            seed=mix_seed(seed, "pretraining", folder.name),
            folder=folder,
            progress=f"pretraining, {folder.name}" if progress else None,
            rehearsal=rehearsal,
            callbacks=callbacks,
        )


def _training(scratch: PretrainingConfig, epochs: float) -> Training:
    return Training(
        epochs=epochs,
        batch_size=scratch.batch_size,
        learning_rate=scratch.learning_rate,
        keep="last",
        evaluations_per_epoch=max(1, round(scratch.checkpoints / max(1.0, epochs))),
    )


def rehearse_pretraining(
    scratch: PretrainingConfig, texts: Dataset, masking: Masking, seconds: float, blocks_to_try: int = 128
) -> tuple[list[dict[str, Any]], PreTrainedTokenizerBase]:
    """Count the steps of each depth and time a few, for some seconds at most, on random weights; nothing is kept.

    Returns:
        A row for each depth, and a tokenizer trained on a sample of the texts.
    """
    some = texts.select(range(0, len(texts), math.ceil(len(texts) / REHEARSED_TEXTS)))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(some, scratch.vocabulary, scratch.positions)
        blocks = blocks_of(some, "rehearsal", tokenizer, scratch.block, Path(folder))
        all_blocks = math.ceil(len(blocks) * len(texts) / len(some))
        few = blocks.select(range(min(len(blocks), blocks_to_try)))
        rows = []
        for depth, epochs in zip(scratch.growth, scratch.epochs, strict=True):
            model = new_masked_lm(pretraining_model_config(scratch, depth, len(tokenizer)))
            timed, place = Rehearsal(seconds), Path(folder) / str(depth)
            _train(model, tokenizer, few, scratch, masking, 1.0, 0, place, False, timed)
            steps = planned_steps(all_blocks, Training(epochs=epochs, batch_size=scratch.batch_size))
            per_step = timed.seconds_per_step
            rows.append(
                {
                    "stage": f"pretraining, {depth} layers",
                    "parameters": sum(value.numel() for value in model.parameters()),
                    "steps": steps,
                    "seconds_per_step": per_step,
                    "seconds": steps * per_step,
                }
            )
    return rows, tokenizer
