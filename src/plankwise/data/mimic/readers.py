"""From the texts of an admission's notes to the input of a model, in the steps that look at text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from plankwise.data.mimic.leaks import LeakCounts, LeakFilter
from plankwise.data.mimic.mentions import sex_of
from plankwise.data.mimic.sections import REQUIRED, admission_note, is_usable, sections_of, without_leaks


class Reader(ABC):
    """Makes an admission's input out of the texts of its notes, in the steps that look at text."""

    steps: tuple[str, ...] = ()
    unit = "admissions"  # what the filter drops

    def __init__(self, leak_filter: LeakFilter) -> None:
        self.leak_filter = leak_filter
        self.leaks = LeakCounts()

    @abstractmethod
    def read(self, texts: list[str]) -> tuple[int, int, str]:
        """Return how many of the steps the texts pass, how many texts are left, and the input made of them."""

    def counted(self) -> dict[str, Any]:
        """Return what `counts.json` says of the filter: what was dropped or cut by each rule."""
        rules = [
            {"rule": rule, "dropped": self.leaks.dropped[rule], "cut": self.leaks.cut[rule]}
            for rule in self.leak_filter.rules
        ]
        return {"leak_filter_version": self.leak_filter.version, "leak_filter": {"counts": self.unit, "rules": rules}}


class AdmissionNotes(Reader):
    """Reduces a discharge summary to what is known on arrival."""

    def __init__(self, leak_filter: LeakFilter) -> None:
        super().__init__(leak_filter)
        required = f"with {', '.join(REQUIRED[:-1])} or {REQUIRED[-1]}"
        self.steps = (required, f"no outcome told (leak filter {leak_filter.version})")

    def read(self, texts: list[str]) -> tuple[int, int, str]:
        """See `Reader.read`."""
        sections = sections_of("\n\n".join(texts))
        if not is_usable(sections):
            return 0, len(texts), ""
        clean = without_leaks(sections, self.leak_filter, self.leaks)
        return (1, len(texts), "") if clean is None else (2, len(texts), admission_note(clean))


class EveryNote(Reader):
    """Joins notes as they are."""

    def read(self, texts: list[str]) -> tuple[int, int, str]:
        """See `Reader.read`."""
        return 0, len(texts), "\n\n".join(texts)

    def counted(self) -> dict[str, Any]:
        """Record that there was no filter."""
        return {"leak_filter_version": None, "leak_filter": None}


class UntoldNotes(Reader):
    """Joins the notes that do not tell the outcome."""

    unit = "notes"

    def __init__(self, leak_filter: LeakFilter) -> None:
        super().__init__(leak_filter)
        self.steps = (f"no outcome told (leak filter {leak_filter.version})",)

    def read(self, texts: list[str]) -> tuple[int, int, str]:
        """See `Reader.read`."""
        sex = sex_of("\n".join(texts))
        left = []
        for text in texts:
            rules = {leak.rule for leak in self.leak_filter.leaks(text, False, sex)}
            self.leaks.dropped.update(rules)
            left += [] if rules else [text]
        return int(bool(left)), len(left), "\n\n".join(left)
