"""Admission notes out of discharge summaries: the sections known on arrival, and the filter against told outcomes.

The sections and the wording of the filter are those of van Aken et al. 2021, "Clinical Outcome Prediction from
Admission Notes using Self-Supervised Knowledge Integration". Everything here is pure: text in, text out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

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
REDACTED = ("medications on admission", "physical exam")  # a leak is cut out of these and disqualifies elsewhere
LEAK_FILTER_VERSION = "1"

_STARTS = {name: re.compile(re.escape(f"{name}:"), re.IGNORECASE) for name in SECTIONS}
_BLANK_LINE_AND_HEADING = re.compile(r"\n[^\S\n]*\n[^()|.\\\d\n:]+:")
_LEAK = re.compile(
    r"(?:patient|pt)\s+(?:(?:had|has)\s+)?(?:expired|died|passed\s+away|deceased)"
    r"|he\s+expired|pronounced\s+expired|time\s+of\s+death",
    re.IGNORECASE,
)
_WHOLE_WORDS_AND_STOP = re.compile(rf"\w*(?:{_LEAK.pattern})\w*\s*[.,;:]?", re.IGNORECASE)  # "She", not "S" + "he"


def sections_of(text: str) -> dict[str, str]:
    r"""Take the admission sections out of a discharge summary, in the order of `SECTIONS`.

    A section begins after the first place that has its name and a colon, in any case. It runs to the first blank line
    that is followed by a heading: text on one line up to a colon that holds none of `( ) | . \` or a digit; the next
    section's text may stand on the same line. Without such an end there is no section: what follows may be the course
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
    """Say whether one of the sections is there that an admission note cannot do without."""
    return any(name in sections for name in REQUIRED)


def has_leak(text: str) -> bool:
    """Say whether `text` tells that the patient died, in a wording of the leak filter."""
    return _LEAK.search(text) is not None


def without_leaks(sections: Mapping[str, str]) -> dict[str, str] | None:
    """Cut told outcomes out of physical exam and medications; give None if another section tells one.

    The rest of its first and last word and the stop after it go with a phrase, so that nothing odd marks its place.

    Example:
        >>> without_leaks({"physical exam": "Pale. Patient has expired. Cold."})
        {'physical exam': 'Pale. Cold.'}
    """
    if any(has_leak(body) for name, body in sections.items() if name not in REDACTED):
        return None
    cut = {name: _cut(body) if name in REDACTED else body for name, body in sections.items()}
    return {name: body for name, body in cut.items() if body}


def _cut(body: str) -> str:
    while has_leak(body):  # what is left around a cut may make another phrase
        body = " ".join(_WHOLE_WORDS_AND_STOP.sub(" ", body).split())
    return body


def admission_note(sections: Mapping[str, str]) -> str:
    """Write sections under upper-case headings, in the order of `SECTIONS`, with a blank line between them."""
    return "\n\n".join(f"{name.upper()}: {sections[name]}" for name in SECTIONS if name in sections)
