"""The masked-LM objective (Devlin et al. 2019, arXiv 1810.04805), on whole words, logits at masked positions only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.numbers import Share
from plankwise.core.recipe import settings
from plankwise.data.batching.inputs import MASK, Batch, padded_tensors
from plankwise.data.corpus.blocks import continuations, ids_of
from plankwise.encoder.shapes import new_model
from plankwise.training.objectives.losses import Loss, masked_lm_loss
from plankwise.training.trainer import TrainingData

BLOCKS_PER_BATCH = 32
MOST_BLOCKS = 512  # of the held-out part that a score is measured on


@settings
class Masking:
    """Which tokens a masked LM has to predict.

    Attributes:
        rate: share of the tokens to predict.
        end_rate: the rate towards which `rate` moves in a straight line; the last step has it. Null keeps `rate`.
        whole_words: whether all tokens of a word are chosen together.
    """

    rate: Share = 0.15
    end_rate: Share | None = None
    whole_words: bool = True

    def rate_at(self, progress: float) -> float:
        """Return the masking rate at a share of the training, in [0, 1]."""
        return self.rate if self.end_rate is None else self.rate + (self.end_rate - self.rate) * progress


class MaskedPositions:
    """Masks batches for a model whose head then sees the chosen positions only.

    Of these 80 % become the mask, 10 % a random token, 10 % stay. A hook on the base model drops all other positions
    before the head, so that logits, by far the largest tensor of a small model, are computed for the chosen alone.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, masking: Masking) -> None:
        self._masking, self.rate = masking, masking.rate
        self._mask, self._vocabulary = tokenizer.mask_token_id, ids_of(tokenizer)
        self._special = torch.tensor(tokenizer.all_special_ids)
        self._continues = torch.from_numpy(continuations(tokenizer)) if masking.whole_words else None
        self._chosen: Tensor

    @contextmanager
    def on(self, model: PreTrainedModel) -> Iterator[MaskedPositions]:
        """Pass only the chosen positions to the head of `model`, while the context lasts."""
        handle = model.base_model.register_forward_hook(self._drop_unmasked)
        try:
            yield self
        finally:
            handle.remove()

    def at_step(self, step: int, total: int) -> None:
        """Set the rate for this step, counted from 0."""
        self.rate = self._masking.rate_at(step / max(1, total - 1))

    def prepare(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Choose and mask tokens of a batch [batch, tokens]; labels become the tokens chosen, [masked].

        Where chance would choose none, the word nearest to it is chosen.
        """
        ids = batch["input_ids"]
        usable = ~torch.isin(ids, self._special.to(ids.device))
        draws = torch.rand(ids.shape, device=ids.device, generator=generator)
        draws = self._by_word(draws, ids).masked_fill(~usable, 2.0)
        self._chosen = draws <= draws.min().clamp(min=self.rate)
        lot = torch.rand(ids.shape, device=ids.device, generator=generator)
        noise = torch.randint(self._vocabulary, ids.shape, device=ids.device, generator=generator)
        masked = torch.where(self._chosen & (lot < 0.8), self._mask, ids)
        masked = torch.where(self._chosen & (lot >= 0.9), noise, masked)
        return {**batch, "input_ids": masked, "labels": ids[self._chosen]}

    def _by_word(self, draws: Tensor, ids: Tensor) -> Tensor:
        """Repeat the draw of a word's first token for all its tokens, [batch, tokens]."""
        if self._continues is None:
            return draws
        words = torch.cumsum(~self._continues.to(ids.device)[ids], dim=1)
        return draws.gather(1, (words - 1).clamp(min=0))

    def _drop_unmasked(self, module: Any, inputs: Any, output: Any) -> Any:
        output["last_hidden_state"] = output["last_hidden_state"][self._chosen]
        return output


def as_batch(examples: Sequence[dict[str, Any]]) -> Batch:
    """Stack blocks of equal length, which need no padding, into [batch, tokens]."""
    return padded_tensors(examples, {"input_ids": 0, MASK: 0})


@torch.inference_mode()
def score_masked_lm(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    blocks: Dataset,
    masking: Masking,
    hooked: MaskedPositions | None = None,
) -> dict[str, float]:
    """Measure a masked LM on held-out blocks, masked at the starting rate and always in the same way.

    Args:
        model: with its masked-LM head.
        tokenizer: of the model.
        blocks: rows of `input_ids`.
        masking: the objective.
        hooked: the positions that are on `model` already, while it trains.

    Returns:
        `masked_accuracy`, the share of masked tokens guessed right, and `perplexity`, on an even sample of blocks.
    """
    was_training = model.training
    model.eval()
    positions = MaskedPositions(tokenizer, masking) if hooked is None else hooked
    training_rate, positions.rate = positions.rate, masking.rate
    generator = torch.Generator(model.device).manual_seed(0)
    sample = blocks.select(range(0, len(blocks), math.ceil(len(blocks) / MOST_BLOCKS)))
    loss, right, count = 0.0, 0, 0
    with positions.on(model) if hooked is None else nullcontext():
        for start in range(0, len(sample), BLOCKS_PER_BATCH):
            rows = [sample[at] for at in range(start, min(start + BLOCKS_PER_BATCH, len(sample)))]
            inputs = {name: value.to(model.device) for name, value in as_batch(rows).items()}
            batch = positions.prepare(inputs, generator)
            outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            labels = batch["labels"]
            loss += float(masked_lm_loss(outputs, batch)) * len(labels)
            right += int((outputs.logits.argmax(dim=-1) == labels).sum())
            count += len(labels)
    positions.rate = training_rate
    model.train(was_training)
    return {"masked_accuracy": right / count, "perplexity": math.exp(min(loss / count, 700.0))}


def new_masked_lm(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a masked LM with random weights from the current torch seed."""
    model = new_model(AutoModelForMaskedLM._model_mapping[type(config)], config)
    assert isinstance(model, PreTrainedModel)
    return model


@contextmanager
def masked_lm_data(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    blocks: Dataset,
    masking: Masking,
    *,
    held_out: Dataset | None = None,
    loss: Loss = masked_lm_loss,
    teacher: PreTrainedModel | None = None,
) -> Iterator[TrainingData]:
    """Yield what `fit` trains a masked LM on; while the context lasts, its head sees masked tokens only.

    Args:
        model: with its masked-LM head.
        tokenizer: of the model.
        blocks: rows of `input_ids`, all of one length.
        masking: the objective.
        held_out: blocks that select the weights; without them the last weights are kept.
        loss: to minimize.
        teacher: runs at every step; its head sees the same masked tokens.
    """
    positions = MaskedPositions(tokenizer, masking)

    def evaluate(current: PreTrainedModel) -> float:
        return score_masked_lm(current, tokenizer, held_out, masking, positions)["masked_accuracy"]

    with ExitStack() as stack:
        for each in (model, teacher):
            if each is not None:
                stack.enter_context(positions.on(each))
        yield TrainingData(
            blocks,
            as_batch,
            loss,
            evaluate=None if held_out is None else evaluate,
            prepare=positions.prepare,
            at_step=positions.at_step,
            equal_lengths=True,
        )
