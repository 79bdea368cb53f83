"""The methods there are. A new one is a file, a card, a test and a line here."""

from __future__ import annotations

from typing import Annotated

import pydantic

from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.theseus import Theseus

METHODS = (Theseus, LayerSubset)

AnyMethod = Annotated[Theseus | LayerSubset, pydantic.Field(discriminator="method")]
