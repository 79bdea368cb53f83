"""The methods there are. A new one is a file, a card, a test and a line here."""

from __future__ import annotations

from typing import Annotated

import pydantic

from plankwise.methods.checkpoint import Checkpoint
from plankwise.methods.distillation import Distillation
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.learned_pruning import LearnedPruning
from plankwise.methods.low_rank import LowRank
from plankwise.methods.pruning import Pruning
from plankwise.methods.quantization import Quantization
from plankwise.methods.theseus import Theseus
from plankwise.methods.unstructured import Unstructured
from plankwise.methods.vocabulary import TrimmedVocabulary

METHODS = (
    Theseus,
    LayerSubset,
    Checkpoint,
    Distillation,
    Pruning,
    LearnedPruning,
    Unstructured,
    TrimmedVocabulary,
    LowRank,
    Quantization,
)

AnyMethod = Annotated[
    Theseus
    | LayerSubset
    | Checkpoint
    | Distillation
    | Pruning
    | LearnedPruning
    | Unstructured
    | TrimmedVocabulary
    | LowRank
    | Quantization,
    pydantic.Field(discriminator="method"),
]
