"""The methods there are. A new one is a file, a card, a test and a line here."""

from __future__ import annotations

from typing import Annotated

import pydantic

from plankwise.methods.checkpoint import Checkpoint
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.low_rank import LowRank
from plankwise.methods.theseus import Theseus
from plankwise.methods.unstructured import Unstructured
from plankwise.methods.vocabulary import TrimmedVocabulary

METHODS = (Theseus, LayerSubset, Checkpoint, TrimmedVocabulary, Unstructured, LowRank)

AnyMethod = Annotated[
    Theseus | LayerSubset | Checkpoint | TrimmedVocabulary | Unstructured | LowRank,
    pydantic.Field(discriminator="method"),
]
