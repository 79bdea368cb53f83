"""What the model sees of a text that is too long for it: its head, its tail, both, or all of it in windows.

Everything here chooses positions of an encoded text; special tokens stay where the tokenizer has put them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic_core import ArgsKwargs

from plankwise.core.errors import RecipeError
from plankwise.core.numbers import Bounds, Tokens
from plankwise.core.recipe import settings

logger = logging.getLogger(__name__)
Pooling = Literal["mean", "max"]
TruncationSide = Literal["head", "tail", "head_tail"]
KEYS = ("max_length", "truncation", "windows")


@settings
class Windows:
    """Splitting a long text into several inputs of the model; their logits are pooled into those of the text.

    The last window ends where the text ends, so that it is as long as the others; it may share more tokens with the
    one before than `stride`.

    Attributes:
        stride: tokens that a window shares with the one before.
        pooling: of the windows' logits, label by label.
        max_windows: of one text; of a text that has more, so many are chosen evenly from the first to the last.
    """

    stride: Annotated[int, Bounds(0, 1_000_000, "no encoder reads so many tokens")] = 0
    pooling: Pooling = "mean"
    max_windows: Annotated[int, Bounds(1, 10_000, "no text needs so many windows")] = 8

    @pydantic.model_validator(mode="before")
    @classmethod
    def _accept_old_key(cls, data: Any) -> Any:
        """Read the key `most` of older recipes, models and artefacts as `max_windows`."""
        given = data.kwargs if isinstance(data, ArgsKwargs) else data
        if not isinstance(given, dict) or "most" not in given:
            return data
        if "max_windows" in given:
            raise ValueError("most is the old name of max_windows; give max_windows alone")
        logger.warning("windows.most is now called windows.max_windows")
        return {("max_windows" if key == "most" else key): value for key, value in given.items()}


@settings
class Truncation:
    """How much of a text the model sees.

    `given_keys` holds the keys that were given: for the others, the truncation that a model was trained with applies.

    Attributes:
        max_length: tokens of one input, special ones included.
        truncation: what is kept of a longer text: its head, its tail, or one quarter head and three quarters tail (the
            128 and 382 tokens of Sun et al. 2019, arXiv 1905.05583). Of a pair the longer text is cut first.
        windows: split a longer text into windows of `max_length` tokens instead.
    """

    max_length: Tokens = 128
    truncation: TruncationSide = "head"
    windows: Windows | None = None

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _remember_given_keys(cls, data: Any, handler: pydantic.ModelWrapValidatorHandler[Truncation]) -> Truncation:
        made, given = handler(data), data.kwargs if isinstance(data, ArgsKwargs) else data
        if isinstance(given, dict):
            object.__setattr__(made, "_given_keys", frozenset(given))  # the dataclass is frozen
        return made

    @pydantic.model_validator(mode="after")
    def _windows_exclude_truncation(self) -> Truncation:
        if self.windows is not None and self.truncation != "head":
            raise ValueError(f"truncation '{self.truncation}' and windows exclude each other; give one of them")
        return self

    @property
    def given_keys(self) -> frozenset[str]:
        """The keys that were given, rather than left at their defaults."""
        return getattr(self, "_given_keys", frozenset())

    @property
    def plain_truncation(self) -> Truncation:
        """These settings without those of a subclass."""
        return Truncation(max_length=self.max_length, truncation=self.truncation, windows=self.windows)

    @property
    def whole(self) -> bool:
        """Whether nothing but `max_length` was chosen."""
        return self.truncation == "head" and self.windows is None


def truncation_for(given: Truncation, own: Truncation | None) -> Truncation:
    """Return how to truncate a model's texts: by the keys given, and for the others as the model was trained.

    Truncation and windows are one choice: giving either decides about both.

    Args:
        given: settings.
        own: of the model, if known.
    """
    if own is None:
        return given.plain_truncation
    long_texts = given if given.given_keys & {"truncation", "windows"} else own
    max_length = given.max_length if "max_length" in given.given_keys else own.max_length
    return Truncation(max_length=max_length, truncation=long_texts.truncation, windows=long_texts.windows)


def warn_if_other(truncation: Truncation, own: Truncation | None, model: str) -> None:
    """Log in one line where texts are truncated in another way than when the model was trained, or exported."""
    names = [] if own is None else [each for each in KEYS if getattr(truncation, each) != getattr(own, each)]
    if names:
        now, then = (", ".join(_shown(name, getattr(each, name)) for name in names) for each in (truncation, own))
        logger.warning("%s reads texts with %s here, where it was made for %s", model, now, then)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, Windows):
        return f"{name} (stride {value.stride}, pooling {value.pooling}, max_windows {value.max_windows})"
    return f"no {name}" if value is None else f"{name} {value}"


def check_truncation(truncation: Truncation, special: int, pairs: bool) -> None:
    """Refuse settings that cannot work with a tokenizer or a task.

    Args:
        truncation: settings.
        special: tokens that the tokenizer adds to each input.
        pairs: whether the task has pairs of texts.

    Raises:
        RecipeError: naming the key and what is allowed.
    """
    room, texts = truncation.max_length - special, 2 if pairs else 1
    if room < texts:
        raise RecipeError(
            f"max_length {truncation.max_length} leaves no room for text beside {special} special tokens; "
            f"allowed: {special + texts} or more"
        )
    if truncation.windows is not None and pairs:
        raise RecipeError("windows cannot read pairs of texts; allowed: null, and truncation head, tail, head_tail")
    if truncation.windows is not None and truncation.windows.stride >= room:
        raise RecipeError(
            f"windows.stride {truncation.windows.stride} is not less than the {room} tokens of text in a window; "
            f"allowed: 0 to {room - 1}"
        )


def check_positions(truncation: Truncation, positions: int | None) -> None:
    """Refuse inputs that are longer than the model allows.

    Args:
        truncation: settings.
        positions: tokens that the model can take; None if that is not known.

    Raises:
        RecipeError: naming both lengths.
    """
    if positions is not None and truncation.max_length > positions:
        raise RecipeError(f"max_length is {truncation.max_length}; allowed: at most the model's {positions} positions")


def positions_read(special: Sequence[int], truncation: Truncation) -> list[list[int]]:
    """Return the positions of an encoded text, or pair, that the model sees.

    Args:
        special: 1 at each token that the tokenizer added, 0 at those of the text, [tokens].
        truncation: settings that passed `check_truncation`.

    Returns:
        One ascending list for each input: one for each window, or one alone.
    """
    if len(special) <= truncation.max_length:
        return [list(range(len(special)))]
    frame = [position for position, flag in enumerate(special) if flag]
    texts, room = _texts(special), truncation.max_length - len(frame)
    if truncation.windows is not None:
        text = [position for each in texts for position in each]
        starts = window_starts(len(text), room, truncation.windows)
        return [sorted(frame + text[start : start + room]) for start in starts]
    kept = [cut(text, share, truncation.truncation) for text, share in zip(texts, _shares(texts, room), strict=True)]
    return [sorted(sum(kept, frame))]


def cut(text: list[int], length: int, truncation: TruncationSide) -> list[int]:
    """Return at most `length` items of `text`, in their order."""
    if len(text) <= length:
        return text
    head = {"head": length, "tail": 0, "head_tail": (length + 2) // 4}[truncation]
    return text[:head] + text[len(text) - (length - head) :]


def is_thinned(special: Sequence[int], truncation: Truncation) -> bool:
    """Return whether an encoded text has more windows than `windows.max_windows`, so that some are left out."""
    if truncation.windows is None:
        return False
    frame = sum(special)
    starts = _all_starts(len(special) - frame, truncation.max_length - frame, truncation.windows)
    return len(starts) > truncation.windows.max_windows


def window_starts(length: int, room: int, windows: Windows) -> list[int]:
    """Return where windows of `room` tokens begin in a text of `length` tokens, in order, at most `max_windows`."""
    starts = _all_starts(length, room, windows)
    if len(starts) <= windows.max_windows:
        return starts
    if windows.max_windows == 1:
        return starts[:1]
    apart = (len(starts) - 1) / (windows.max_windows - 1)
    return [starts[round(number * apart)] for number in range(windows.max_windows)]


def _all_starts(length: int, room: int, windows: Windows) -> list[int]:
    last = max(0, length - room)
    return [*range(0, last, room - windows.stride), last]


def _texts(special: Sequence[int]) -> list[list[int]]:
    """Split the positions between special tokens into those of each text."""
    texts: list[list[int]] = []
    for position, flag in enumerate(special):
        if not flag and (position == 0 or special[position - 1]):
            texts.append([])
        if not flag:
            texts[-1].append(position)
    return texts


def _shares(texts: Sequence[Sequence[int]], room: int) -> list[int]:
    """Divide the room between texts: one takes it all; of two, the shorter is kept whole if it fills at most half."""
    if len(texts) == 1:
        return [room]
    one, other = (len(text) for text in texts)
    if one <= other:
        one = min(one, room // 2)
        return [one, room - one]
    other = min(other, room // 2)
    return [room - other, other]
