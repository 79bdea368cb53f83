"""How a model's texts are read, kept with the model: what it was trained on is what it has to be given.

It is a key of its own in `config.json`, and not a file beside it: a configuration goes wherever its model goes, through
every method, `plankwise.save`, `save_pretrained` and the Hub, where a file is lost with the first tool that does not
know it. Nor is it part of the key `plankwise`, which marks what plain Transformers cannot load: Transformers keeps keys
that it does not know, without a warning, and loads a plain folder as before.
"""

from __future__ import annotations

from transformers import PreTrainedConfig

from plankwise.core.errors import ModelError, RecipeError
from plankwise.core.recipe import to_plain, validate
from plankwise.data.truncation import KEYS, Truncation
from plankwise.encoder.configuration import usable_positions

READING = "plankwise_reading"


def store_truncation(config: PreTrainedConfig, truncation: Truncation | None) -> None:
    """Let a configuration say, in place, how the texts of its model are read; or nothing."""
    if truncation is not None:
        setattr(config, READING, to_plain(truncation.plain_truncation))
    elif hasattr(config, READING):
        delattr(config, READING)


def stored_truncation(config: PreTrainedConfig, source: str = "the model") -> Truncation | None:
    """Return how the texts of a model are read, as far as its configuration says.

    Args:
        config: of the model.
        source: what messages call the model.

    Raises:
        ModelError: if what it says is malformed, or more than the model can read.
    """
    if not hasattr(config, READING):
        return None
    stored, where = getattr(config, READING), f"'{READING}' in the configuration of {source}"
    if not isinstance(stored, dict):
        raise ModelError(f"{where}: {str(stored)[:60]!r} is not a mapping; allowed: the keys {', '.join(KEYS)}")
    try:
        truncation = validate(stored, Truncation, lambda place: where)
    except RecipeError as error:
        raise ModelError(str(error)) from None
    longest = usable_positions(config)
    if truncation.max_length > longest:
        raise ModelError(f"{where}: max_length {truncation.max_length} is more than the model's {longest} positions")
    return truncation
