"""A small encoder from scratch: tokenizer, fast start, masked-LM training, growing in depth."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from plankwise.core.errors import DataError
from plankwise.core.recipe import settings
from plankwise.core.runtime import mix_seed
from plankwise.data.encoding import Batch
from plankwise.encoder.surgery import grow
from plankwise.training.fast_start import give_fast_start
from plankwise.training.fit import Fitted, Training, fit, planned_steps
from plankwise.training.losses import masked_lm_loss
from plankwise.training.metrics import Array
from plankwise.training.trainer import Material

Count = Annotated[int, pydantic.Field(ge=1)]
MOST_CHARACTERS = 1000
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@settings
class Scratch:
    """A BERT from scratch, pretrained on the task's training texts.

    Attributes:
        layers: depth in the end.
        width: of the hidden states.
        heads: attention heads of each layer.
        vocabulary: size of the WordPiece vocabulary, at most.
        lowercase: whether the tokenizer folds case.
        positions: longest input in tokens.
        block: tokens of one pretraining example.
        masking: share of tokens to predict.
        growth: depths to train one after the other, each grown out of the one before by layers that write
            nothing yet; the last is `layers`.
        epochs: passes over the corpus at each of these depths.
        batch_size: blocks per step.
        learning_rate: the peak.
        fast_start: whether embeddings start from the corpus' statistics rather than from random numbers.
    """

    layers: Count = 12
    width: Count = 128
    heads: Count = 2
    vocabulary: Annotated[int, pydantic.Field(ge=50)] = 8000
    lowercase: bool = True
    positions: Annotated[int, pydantic.Field(ge=8)] = 128
    block: Annotated[int, pydantic.Field(ge=8)] = 64
    masking: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.15
    growth: Annotated[tuple[Count, ...], pydantic.Field(min_length=1)] = (3, 6, 12)
    epochs: Annotated[tuple[Annotated[float, pydantic.Field(gt=0)], ...], pydantic.Field(min_length=1)] = (
        8.0,
        3.0,
        2.0,
    )
    batch_size: Count = 32
    learning_rate: Annotated[float, pydantic.Field(gt=0)] = 2e-3
    fast_start: bool = True

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Scratch:
        if self.growth[-1] != self.layers or list(self.growth) != sorted(set(self.growth)):
            raise ValueError(f"growth {self.growth} has to rise to layers, {self.layers}")
        if len(self.epochs) != len(self.growth):
            raise ValueError(f"epochs {self.epochs} has to name one number for each depth of growth {self.growth}")
        if self.block > self.positions:
            raise ValueError(f"block {self.block} is longer than positions, {self.positions}")
        return self


def pretrain(
    scratch: Scratch, texts: Sequence[str], seed: int, folder: Path, progress: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """Train tokenizer and masked LM on `texts`, going on where a killed run stopped.

    Returns:
        The model, its tokenizer, and what was done at each depth.
    """
    tokenizer = train_tokenizer(texts, scratch.vocabulary, scratch.lowercase, scratch.positions)
    blocks = pack(texts, tokenizer, scratch.block)
    torch.manual_seed(mix_seed(seed, "pretraining"))
    model: PreTrainedModel = BertForMaskedLM(scratch_config(scratch, scratch.growth[0], len(tokenizer)))
    if scratch.fast_start:
        give_fast_start(model, blocks, mix_seed(seed, "fast start"))
    stages = []
    for depth, epochs in zip(scratch.growth, scratch.epochs, strict=True):
        model = grow(model, depth)
        fitted = _train(model, tokenizer, blocks, scratch, epochs, seed, folder / f"{depth}-layers", progress)
        stages.append(
            {
                "layers": depth,
                "steps": fitted.steps,
                "tokens": fitted.steps * scratch.batch_size * scratch.block,
                "train_seconds": fitted.train_seconds,
            }
        )
    return model.eval(), tokenizer, {"stages": stages, "blocks": len(blocks), "vocabulary": len(tokenizer)}


def train_tokenizer(texts: Sequence[str], vocabulary: int, lowercase: bool, positions: int) -> PreTrainedTokenizerBase:
    """Train a WordPiece tokenizer as BERT's; the same texts give the same vocabulary.

    The library's trainer numbers characters in the order of a hash map and breaks ties by these numbers, so that two
    trainings differ. Naming the characters beforehand, in a fixed order, takes that away.
    """
    normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=False)
    counts = Counter(char for text in texts for char in normalizer.normalize_str(text) if not char.isspace())
    kept = sorted(sorted(counts, key=lambda char: (-counts[char], char))[: min(MOST_CHARACTERS, vocabulary // 4)])
    alphabet = [*kept, *(f"##{char}" for char in kept)]
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL, *alphabet],
        initial_alphabet=kept,
        limit_alphabet=len(kept),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=positions, **names)


def pack(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, block: int) -> Array:
    """Join texts, each closed by the separator, and cut the stream into full blocks, [blocks, block]."""
    stream = [
        token
        for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        for token in (*ids, tokenizer.sep_token_id)
    ]
    count = len(stream) // (block - 1)
    if not count:
        raise DataError(f"the training texts hold {len(stream)} tokens, fewer than one block of {block}")
    body = np.array(stream[: count * (block - 1)]).reshape(count, block - 1)
    return np.hstack([np.full((count, 1), tokenizer.cls_token_id), body])


class Masking:
    """The masked-LM objective: 80 % of the chosen tokens become the mask, 10 % a random token, 10 % stay.

    Only the chosen positions reach the head: a hook on the base model drops all others, so that logits, by far the
    largest tensor of a small model, are computed for these alone.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, share: float) -> None:
        self._share, self._mask, self._vocabulary = share, tokenizer.mask_token_id, len(tokenizer)
        self._special = torch.tensor(tokenizer.all_special_ids)
        self._chosen: Tensor
        self._handle = model.base_model.register_forward_hook(self._drop_unmasked)

    def prepare(self, batch: Batch) -> Batch:
        """Choose and mask tokens of a batch [batch, tokens]; labels become the tokens chosen, [masked]."""
        ids = batch["input_ids"]
        usable = ~torch.isin(ids, self._special.to(ids.device))
        self._chosen = (torch.rand(ids.shape, device=ids.device) < self._share) & usable
        self._chosen[0, 1] |= not self._chosen.any()
        lot = torch.rand(ids.shape, device=ids.device)
        noise = torch.randint(self._vocabulary, ids.shape, device=ids.device)
        masked = torch.where(self._chosen & (lot < 0.8), self._mask, ids)
        masked = torch.where(self._chosen & (lot >= 0.9), noise, masked)
        return {**batch, "input_ids": masked, "labels": ids[self._chosen]}

    def remove(self) -> None:
        """Give the model its ordinary output back."""
        self._handle.remove()

    def _drop_unmasked(self, module: Any, inputs: Any, output: Any) -> Any:
        output["last_hidden_state"] = output["last_hidden_state"][self._chosen]
        return output


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    blocks: Array,
    scratch: Scratch,
    epochs: float,
    seed: int,
    folder: Path,
    progress: bool,
) -> Fitted:
    masking = Masking(model, tokenizer, scratch.masking)
    training = Training(epochs=epochs, batch_size=scratch.batch_size, learning_rate=scratch.learning_rate, keep="last")
    try:
        return fit(
            model,
            Material(
                [{"input_ids": row} for row in blocks.tolist()], _as_batch, masked_lm_loss, prepare=masking.prepare
            ),
            training,
            seed=mix_seed(seed, "pretraining", folder.name),
            folder=folder,
            progress=f"pretraining, {folder.name}" if progress else None,
        )
    finally:
        masking.remove()


def _as_batch(examples: Sequence[dict[str, Any]]) -> Batch:
    ids = torch.tensor([each["input_ids"] for each in examples])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def scratch_config(scratch: Scratch, depth: int | None = None, vocabulary: int | None = None) -> BertConfig:
    """Give the configuration of the model at one depth, or as it will be in the end."""
    return BertConfig(
        vocab_size=vocabulary or scratch.vocabulary,
        hidden_size=scratch.width,
        num_hidden_layers=depth or scratch.layers,
        num_attention_heads=scratch.heads,
        intermediate_size=4 * scratch.width,
        max_position_embeddings=scratch.positions,
        initializer_range=0.02 * (768 / scratch.width) ** 0.5,  # narrow models want a wider start
        pad_token_id=0,
    )


def rehearse_pretraining(
    scratch: Scratch, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, blocks_to_try: int = 128
) -> list[dict[str, Any]]:
    """Count the steps of each depth and time a few of them, on random weights; nothing is kept."""
    blocks = pack(texts, tokenizer, scratch.block)
    rows = []
    for depth, epochs in zip(scratch.growth, scratch.epochs, strict=True):
        model = BertForMaskedLM(scratch_config(scratch, depth, len(tokenizer)))
        with tempfile.TemporaryDirectory() as folder:
            fitted = _train(model, tokenizer, blocks[:blocks_to_try], scratch, 1.0, 0, Path(folder), progress=False)
        steps = planned_steps(len(blocks), Training(epochs=epochs, batch_size=scratch.batch_size))
        per_step = fitted.train_seconds / fitted.steps
        parameters = sum(value.numel() for value in model.parameters())
        rows.append(
            {
                "stage": f"pretraining, {depth} layers",
                "parameters": parameters,
                "steps": steps,
                "seconds_per_step": per_step,
                "seconds": steps * per_step,
            }
        )
    return rows
