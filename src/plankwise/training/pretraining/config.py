"""A new encoder: its architecture, sizes and tokenizer, and how it is pretrained."""

from __future__ import annotations

from typing import Annotated

import pydantic
from transformers import PreTrainedConfig

from plankwise.core.errors import suggest
from plankwise.core.numbers import BatchSize, Bounds, Count, Heads, Layers, LearningRate, Passes, Width
from plankwise.core.recipe import settings
from plankwise.data.tokenizer.learning import Vocabulary
from plankwise.encoder.anatomy import ANATOMIES
from plankwise.encoder.configuration import new_config

Block = Annotated[int, Bounds(8, 1_000_000, "no encoder reads so many tokens")]
PADDING_ID = 0
ARCHITECTURES = [name for name, each in ANATOMIES.items() if each.counts_on_padding_id in (None, PADDING_ID)]


def _known(architecture: str) -> str:
    if architecture not in ARCHITECTURES:
        raise ValueError(f"no new model of the architecture '{architecture}'; {suggest(architecture, ARCHITECTURES)}")
    return architecture


Architecture = Annotated[
    str, pydantic.AfterValidator(_known), pydantic.Field(json_schema_extra={"enum": list(ARCHITECTURES)})
]
SPECIAL_IDS = {  # of every tokenizer that is trained here
    "pad_token_id": PADDING_ID,
    "cls_token_id": 2,
    "bos_token_id": 2,
    "sep_token_id": 3,
    "eos_token_id": 3,
    "mask_token_id": 4,
}


@settings
class PretrainingConfig:
    """An encoder from scratch, pretrained on the task's training texts.

    Attributes:
        architecture: whose configuration and classes it has.
        layers: depth in the end.
        width: of the hidden states.
        heads: attention heads of each layer.
        feed_forward: width of the feed-forward part; four times `width` by default.
        vocabulary: the tokenizer.
        positions: longest input in tokens.
        block: tokens of one pretraining example.
        growth: depths to train one after the other, each grown out of the one before by layers that write
            nothing yet; the last is `layers`.
        epochs: passes over the corpus at each of these depths.
        batch_size: blocks per step.
        learning_rate: the peak.
        fast_start: whether embeddings start from the corpus' statistics rather than from random numbers.
        checkpoints: how many are written at each depth.
    """

    architecture: Architecture = "bert"
    layers: Layers = 12
    width: Width = 128
    heads: Heads = 2
    feed_forward: Width | None = None
    vocabulary: Vocabulary = Vocabulary()
    positions: Block = 128
    block: Block = 64
    growth: Annotated[tuple[Layers, ...], pydantic.Field(min_length=1)] = (3, 6, 12)
    epochs: Annotated[tuple[Passes, ...], pydantic.Field(min_length=1)] = (
        8.0,
        3.0,
        2.0,
    )
    batch_size: BatchSize = 32
    learning_rate: LearningRate = 2e-3
    fast_start: bool = True
    checkpoints: Count = 4

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> PretrainingConfig:
        if self.growth[-1] != self.layers or list(self.growth) != sorted(set(self.growth)):
            raise ValueError(f"growth {self.growth} has to rise to layers, {self.layers}")
        if len(self.epochs) != len(self.growth):
            raise ValueError(f"epochs {self.epochs} has to name one number for each depth of growth {self.growth}")
        if self.block > self.positions:
            raise ValueError(f"block {self.block} is longer than positions, {self.positions}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        return self


def pretraining_model_config(
    scratch: PretrainingConfig, depth: int | None = None, vocabulary: int | None = None
) -> PreTrainedConfig:
    """Give the configuration of the model at one depth, or as it will be in the end."""
    return new_config(
        scratch.architecture,
        scratch.positions,
        hidden_size=scratch.width,
        num_hidden_layers=depth or scratch.layers,
        num_attention_heads=scratch.heads,
        intermediate_size=scratch.feed_forward or 4 * scratch.width,
        vocab_size=vocabulary or scratch.vocabulary.size,
        initializer_range=0.02 * (768 / scratch.width) ** 0.5,  # narrow models want a wider start
        **SPECIAL_IDS,
    )
