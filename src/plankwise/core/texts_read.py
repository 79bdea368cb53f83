"""How much of a split's texts a model was given."""

from __future__ import annotations

import pydantic


class TextsRead(pydantic.BaseModel):
    """How much of some texts a model was given.

    Attributes:
        texts: how many there are.
        tokens: of all of them, special ones included, before anything is cut.
        truncated: texts that were cut.
        thinned: texts of more windows than `windows.max_windows`, of which some were left out.
        unread_tokens: tokens that no input of the model holds.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    thinned: int = 0
    unread_tokens: int = 0

    def __add__(self, other: TextsRead) -> TextsRead:
        """Count both."""
        return TextsRead(**{name: value + getattr(other, name) for name, value in self})

    def __str__(self) -> str:
        reduced, how = self.truncated, "truncation cuts"
        if self.thinned:
            reduced, how = self.thinned, "windows.max_windows thins"
        return (
            f"{how} {reduced} of {self.texts} texts ({reduced / max(1, self.texts):.1%}); "
            f"{self.unread_tokens / max(1, self.tokens):.1%} of all tokens are not read"
        )
