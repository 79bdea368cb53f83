"""How much of the texts of a split a model read."""

from __future__ import annotations

import pydantic


class TextsRead(pydantic.BaseModel):
    """How much of some texts a model read.

    Attributes:
        texts: number of texts.
        tokens: of all texts before truncation, special tokens included.
        truncated: number of texts that were truncated.
        thinned: number of texts with more windows than `windows.max_windows`, of which some windows were left out.
        unread_tokens: tokens that are in no input of the model.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    thinned: int = 0
    unread_tokens: int = 0

    def __add__(self, other: TextsRead) -> TextsRead:
        """Return the sum of both counts."""
        return TextsRead(**{name: value + getattr(other, name) for name, value in self})

    def __str__(self) -> str:
        how = "windows.max_windows thins" if self.thinned else "truncation cuts"
        reduced = self.thinned or self.truncated
        return (
            f"{how} {reduced} of {self.texts} texts ({reduced / max(1, self.texts):.1%}); "
            f"{self.unread_tokens / max(1, self.tokens):.1%} of all tokens are not read"
        )
