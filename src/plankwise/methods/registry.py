"""The registry of methods. A new one is a file, its card, a line of the contract test and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union

import pydantic

from plankwise.core.recipe import validate
from plankwise.methods.checkpoint import Checkpoint
from plankwise.methods.distillation import Distillation
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.learned_pruning import LearnedPruning
from plankwise.methods.low_rank import LowRank
from plankwise.methods.method import Method
from plankwise.methods.pruning import Pruning
from plankwise.methods.quantization import Quantization
from plankwise.methods.theseus import Theseus
from plankwise.methods.unstructured import Unstructured
from plankwise.methods.vocabulary import TrimmedVocabulary

METHODS: tuple[type[Method], ...] = (
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


def union_of(methods: tuple[type[Method], ...]) -> Any:
    """Return the type that a recipe's step is validated against: the settings of one of `methods`, by key `method`."""
    return Annotated[Union[methods], pydantic.Field(discriminator="method")]  # noqa: UP007 - a tuple of classes


if TYPE_CHECKING:
    AnyMethod = Method
else:
    AnyMethod = union_of(METHODS)


def method_of(step: Mapping[str, Any]) -> Method:
    """Make the method of a recipe's step.

    Raises:
        RecipeError: if there is no such method, or a key or value does not fit it.
    """
    made: Method = validate(dict(step), AnyMethod)  # type: ignore[type-abstract]
    return made
