"""The truncation of texts, stored with the model, so that it gets the same inputs as in training.

It has a key of its own in `config.json` instead of a file. A configuration follows its model through every method,
`plankwise.save`, `save_pretrained` and the Hub; a file is lost with the first tool that does not know it. It is not
part of the key `plankwise` either, which marks folders that plain Transformers cannot load. Transformers keeps unknown
keys without a warning and loads a plain folder as before.
"""

from __future__ import annotations

from transformers import PreTrainedConfig

from plankwise.core.errors import ModelError, RecipeError
from plankwise.core.recipe import to_plain, validate
from plankwise.data.truncation import KEYS, Truncation
from plankwise.encoder.configuration import usable_positions

TRUNCATION_KEY = "plankwise_reading"  # of a stored format, so it keeps its first name


def store_truncation(config: PreTrainedConfig, truncation: Truncation | None) -> None:
    """Store the truncation of texts in a configuration, in place; `None` removes it."""
    if truncation is not None:
        setattr(config, TRUNCATION_KEY, to_plain(truncation.plain_truncation))
    elif hasattr(config, TRUNCATION_KEY):
        delattr(config, TRUNCATION_KEY)


def stored_truncation(config: PreTrainedConfig, source: str = "the model") -> Truncation | None:
    """Return the truncation that a configuration holds; `None` if it holds none.

    Args:
        config: of the model.
        source: name of the model in messages.

    Raises:
        ModelError: if the entry is malformed, or longer than the model has positions.
    """
    if not hasattr(config, TRUNCATION_KEY):
        return None
    stored, where = getattr(config, TRUNCATION_KEY), f"'{TRUNCATION_KEY}' in the configuration of {source}"
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
