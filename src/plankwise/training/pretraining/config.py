"""Settings of a new encoder: its architecture, sizes and tokenizer, and how it is pretrained."""

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
# The code of some architectures takes a padding id for granted; it has to be the one that our tokenizers have.
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


@settings(renamed={"fast_start": "ppmi_init"})
class PretrainingConfig:
    """An encoder from scratch, pretrained on the task's training texts.

    Attributes:
        architecture: as Transformers names it.
        layers: depth of the finished model.
        width: of the hidden states.
        heads: attention heads of each layer.
        feed_forward: width of the feed-forward part; four times `width` by default.
        vocabulary: the tokenizer.
        positions: longest input in tokens.
        block: tokens of one pretraining example.
        growth: depths to train one after the other; each adds layers that leave the model's outputs unchanged at first.
            The last is `layers`.
        epochs: passes over the corpus at each of these depths.
        batch_size: blocks per step.
        learning_rate: the peak.
        ppmi_init: whether embeddings are initialized from the corpus' statistics instead of random numbers.
        checkpoints: number of checkpoints written at each depth.
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
    epochs: Annotated[tuple[Passes, ...], pydantic.Field(min_length=1)] = (8.0, 3.0, 2.0)
    batch_size: BatchSize = 32
    learning_rate: LearningRate = 2e-3
    ppmi_init: bool = True
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
    config: PretrainingConfig, depth: int | None = None, vocabulary: int | None = None
) -> PreTrainedConfig:
    """Return the configuration of the model at one depth, or of the finished model.

    Args:
        config: settings.
        depth: number of layers; by default that of the finished model.
        vocabulary: number of tokens; by default the size that the settings ask for, which small corpora do not fill.
    """
    return new_config(
        config.architecture,
        config.positions,
        hidden_size=config.width,
        num_hidden_layers=depth or config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.feed_forward or 4 * config.width,
        vocab_size=vocabulary or config.vocabulary.size,
        initializer_range=0.02 * (768 / config.width) ** 0.5,  # BERT's 0.02 at width 768, scaled by 1/√width
        **SPECIAL_IDS,
    )
