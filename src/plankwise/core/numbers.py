"""Types of numbers for settings: each has bounds, and each upper bound has a reason for its message.

A number may be written as a YAML number or as text that parses as one. True and false are refused (`refuse_booleans`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
from pydantic_core import CoreSchema, core_schema

Handler = Callable[[Any], Any]
_NOT_SCHEMAS = ("metadata", "config", "ref", "default", "expected")  # keys of a schema that hold no schemas
LARGEST_SEED = 2**31 - 1  # accepted by every generator of random numbers


@dataclass(frozen=True)
class Bounds:
    """The allowed range of a number.

    Attributes:
        low: smallest value.
        high: largest value.
        why: reason against a larger value, for the message.
        above: whether `low` itself is excluded.
        below: whether `high` itself is excluded.
    """

    low: float
    high: float
    why: str = ""
    above: bool = False
    below: bool = False

    def check(self, value: Any) -> Any:
        """Return the value; raise ValueError, with what is allowed, if it is out of range."""
        if value < self.low or (self.above and value == self.low):
            raise ValueError(f"input should be greater than {'' if self.above else 'or equal to '}{_shown(self.low)}")
        if value > self.high or (self.below and value == self.high):
            limit = f"input should be less than {'' if self.below else 'or equal to '}{_shown(self.high)}"
            raise ValueError(f"{limit}: {self.why}" if self.why else limit)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> CoreSchema:
        """Add the check to pydantic's own, after it."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Handler) -> dict[str, Any]:
        """Describe the bounds in the JSON schema, for editors."""
        low, high = ("exclusiveMinimum" if self.above else "minimum"), ("exclusiveMaximum" if self.below else "maximum")
        return {**handler(schema), low: self.low, high: self.high}


def _shown(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def refuse_booleans(schema: Any) -> Any:
    """Rewrite a schema of pydantic so that no number accepts true or false, which are 1 and 0 in Python."""
    if isinstance(schema, list):
        return [refuse_booleans(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in ("int", "float"):
        return core_schema.no_info_before_validator_function(_no_boolean, schema)
    return {key: value if key in _NOT_SCHEMAS else refuse_booleans(value) for key, value in schema.items()}


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed")
    return value


Count = Annotated[int, Bounds(1, 1_000_000, "no run needs so many")]
Rows = Annotated[int, Bounds(1, 1_000_000_000, "no data set on one machine has so many")]
Passes = Annotated[float, Bounds(0, 10_000, "such a training would not end", above=True)]
BatchSize = Annotated[int, Bounds(1, 1_000_000, "no memory holds such a batch")]
LearningRate = Annotated[float, Bounds(1e-12, 1.0, "a single step would overwrite every weight")]
Share = Annotated[float, Bounds(0, 1, above=True, below=True)]
UpToAll = Annotated[float, Bounds(0, 1, above=True)]
LessThanAll = Annotated[float, Bounds(0, 1, below=True)]
Weight = Annotated[float, Bounds(0, 1_000_000, "nothing else would be learned")]
Factor = Annotated[float, Bounds(1, 10_000, "nothing would be left of the model", above=True)]
Seed = Annotated[int, Bounds(0, LARGEST_SEED, "generators take no larger seed")]
Seeds = Annotated[tuple[Seed, ...], pydantic.Field(min_length=1, max_length=1000)]
Layer = Annotated[int, Bounds(0, 1_000, "no encoder is so deep")]
Layers = Annotated[int, Bounds(1, 1_000, "no encoder is so deep")]
Heads = Annotated[int, Bounds(1, 1_000, "no encoder has so many heads")]
Width = Annotated[int, Bounds(1, 100_000, "no encoder is so wide")]
Tokens = Annotated[int, Bounds(4, 1_000_000, "no encoder reads so many tokens")]
VocabularySize = Annotated[int, Bounds(1, 10_000_000, "no tokenizer has so many tokens")]
Threads = Annotated[int, Bounds(1, 4096, "no machine runs so many")]
Rounds = Annotated[int, Bounds(3, 10_000, "more rounds tell nothing new")]
Resamples = Annotated[int, Bounds(100, 1_000_000, "more resamples tell nothing new")]
