"""The filters against told outcomes: what they find in a text, and under which rule.

`published` is the wording of van Aken et al. 2021, "Clinical Outcome Prediction from Admission Notes using
Self-Supervised Knowledge Integration". `2` is about the patient and not a relative, in many wordings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from plankwise.data.mimic.mentions import sentences
from plankwise.data.mimic.wordings import RULES


@dataclass(frozen=True)
class Leak:
    """A told outcome: its rule, and the part of the text to cut where a cut is enough."""

    rule: str
    start: int
    end: int


@dataclass(frozen=True)
class LeakFilter:
    """One version: the names of its rules, and a function of a text, whether it is family history, and the sex."""

    version: str
    rules: tuple[str, ...]
    leaks: Callable[[str, bool, str], Iterator[Leak]]


@dataclass
class LeakCounts:
    """How often each rule led to a drop or a cut; where several rules hold, each counts."""

    dropped: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)


_PUBLISHED = re.compile(
    r"(?:patient|pt)\s+(?:(?:had|has)\s+)?(?:expired|died|passed\s+away|deceased)"
    r"|he\s+expired|pronounced\s+expired|time\s+of\s+death",
    re.IGNORECASE,
)
_REST_OF_WORD = re.compile(r"\w*\s*[.,;:]?")


def told_by_rules(text: str, family: bool, sex: str) -> Iterator[Leak]:
    """Find the sentences that tell that the patient died; where several rules hold, there is a leak for each."""
    lowered = text.lower()
    rules = [rule for rule in RULES if rule.may_be_in(lowered)]
    for sentence in sentences(text, family, sex) if rules else ():
        lowered, end = sentence.text.lower(), sentence.start + len(sentence.text)
        for rule in rules:
            if rule.may_be_in(lowered) and rule.tells(sentence):
                yield Leak(rule.name, sentence.start, end)


def told_as_published(text: str, family: bool, sex: str) -> Iterator[Leak]:
    """Find the published wordings, each with the rest of its words and the stop after it: "She", not "S" + "he"."""
    for match in _PUBLISHED.finditer(text):
        start = match.start()
        while start and (text[start - 1].isalnum() or text[start - 1] == "_"):
            start -= 1
        rest = _REST_OF_WORD.match(text, match.end())
        yield Leak("published wording", start, rest.end() if rest else match.end())


FILTERS = {
    each.version: each
    for each in (
        LeakFilter("2", tuple(rule.name for rule in RULES), told_by_rules),
        LeakFilter("published", ("published wording",), told_as_published),
    )
}
