"""The methods there are. A new one is a file, a card, a test and a line here."""

from __future__ import annotations

from typing import Annotated

import pydantic

from plankwise.methods.checkpoint import Checkpoint
from plankwise.methods.distillation import Distillation
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.theseus import Theseus

METHODS = (Theseus, LayerSubset, Checkpoint, Distillation)

AnyMethod = Annotated[Theseus | LayerSubset | Checkpoint | Distillation, pydantic.Field(discriminator="method")]
