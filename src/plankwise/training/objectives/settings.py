"""What a recipe says about its objective, beside the data."""

from __future__ import annotations

from typing import Literal

from plankwise.core.recipe import settings


@settings
class ObjectiveSettings:
    """The loss that every training of a run minimizes, beside what a method adds.

    Attributes:
        class_weights: `balanced` weighs each class against its frequency in train.
    """

    class_weights: Literal["none", "balanced"] = "none"
