"""Admission notes out of discharge summaries: the sections known on arrival, without told outcomes.

The sections are those of van Aken et al. 2021, "Clinical Outcome Prediction from Admission Notes using Self-Supervised
Knowledge Integration". Everything here is pure: text in, text out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from plankwise.data.mimic.leaks import LeakCounts, LeakFilter
from plankwise.data.mimic.mentions import sex_of

SECTIONS = (
    "chief complaint",
    "present illness",
    "medical history",
    "medications on admission",
    "allergies",
    "physical exam",
    "family history",
    "social history",
)
REQUIRED = SECTIONS[:3]  # one of them has to be there
FAMILY_HISTORY = "family history"
REDACTED = ("medications on admission", "physical exam")  # a leak is cut out of these and disqualifies elsewhere

_STARTS = {name: re.compile(re.escape(f"{name}:"), re.IGNORECASE) for name in SECTIONS}
_BLANK_LINE_AND_HEADING = re.compile(r"\n[^\S\n]*\n[^()|.\\\d\n:]+:")


def sections_of(text: str) -> dict[str, str]:
    r"""Take the admission sections out of a discharge summary, in the order of `SECTIONS`.

    A section begins after the first place that has its name and a colon, in any case. It runs to the first blank line
    that is followed by a heading: text on one line up to a colon that holds none of `( ) | . \` or a digit; the next
    section's text may be on the same line. Without such an end there is no section: what follows may be the course
    of the stay. White space within a body becomes single spaces; empty bodies are left out.

    Example:
        >>> sections_of("CHIEF complaint:\n chest\npain\n\nAllergies: none\n\nSex: F")
        {'chief complaint': 'chest pain', 'allergies': 'none'}
    """
    text = text.replace("\r\n", "\n")
    found = {}
    for name, start in _STARTS.items():
        heading = start.search(text)
        end = _BLANK_LINE_AND_HEADING.search(text, heading.end()) if heading else None
        body = " ".join(text[heading.end() : end.start()].split()) if heading and end else ""
        if body:
            found[name] = body
    return found


def is_usable(sections: Mapping[str, str]) -> bool:
    """Return whether there is one of the sections that an admission note needs."""
    return any(name in sections for name in REQUIRED)


def without_leaks(
    sections: Mapping[str, str], leak_filter: LeakFilter, counts: LeakCounts | None = None
) -> dict[str, str] | None:
    """Cut told outcomes out of physical exam and medications; return None if another section tells one.

    Args:
        sections: names and bodies.
        leak_filter: one of `leaks.FILTERS`.
        counts: takes up which rules led to the drop or the cuts, each once for these sections.

    Example:
        >>> from plankwise.data.mimic.leaks import FILTERS
        >>> without_leaks({"physical exam": "Pale. She expired in the ICU. Cold."}, FILTERS["2"])
        {'physical exam': 'Pale. Cold.'}
    """
    sex = sex_of(" ".join(sections.values()))
    counts = counts or LeakCounts()
    told = {
        leak.rule
        for name, body in sections.items()
        if name not in REDACTED
        for leak in leak_filter.leaks(body, name == FAMILY_HISTORY, sex)
    }
    if told:
        counts.dropped.update(told)
        return None
    cut: set[str] = set()
    kept = {name: _cut(body, leak_filter, sex, cut) if name in REDACTED else body for name, body in sections.items()}
    counts.cut.update(cut)
    return {name: body for name, body in kept.items() if body}


def _cut(body: str, leak_filter: LeakFilter, sex: str, rules: set[str]) -> str:
    while leaks := list(leak_filter.leaks(body, False, sex)):  # what is left around a cut may make another phrase
        rules.update(leak.rule for leak in leaks)
        left, at = [], 0
        for start, end in sorted({(leak.start, leak.end) for leak in leaks}):
            left.append(body[at:start])
            at = max(at, end)
        body = " ".join(" ".join([*left, body[at:]]).split())
    return body


def admission_note(sections: Mapping[str, str]) -> str:
    """Write sections under upper-case headings, in the order of `SECTIONS`, with a blank line between them."""
    return "\n\n".join(f"{name.upper()}: {sections[name]}" for name in SECTIONS if name in sections)
