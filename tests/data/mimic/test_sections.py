"""Sections and leaks on texts written by hand, and against a reader that goes line by line."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from plankwise.data.mimic.leaks import FILTERS, LeakCounts
from plankwise.data.mimic.sections import SECTIONS, admission_note, is_usable, sections_of, without_leaks

GOLDEN = """Admission Date:  [**2150-1-1**]        Discharge Date:  [**2150-1-9**]

Service: MEDICINE

Allergies:
Penicillins / Sulfa

Attending:[**First Name (LF) 1**]
CHIEF complaint:
chest
  pain

Major Surgical or Invasive Procedure:
none

History of Present Illness:
Mr. [**Name**] is a 70 year old man.

Day 2: still here
He said: "nothing new"

Vitals (on arrival): normal

BP | HR: fine

Per Dr. B: stable

in\\out: even
   \t
Past Medical History: HTN, DM


Social History:
Present illness: none of this counts again

Family History:

Physical Exam:
warm and dry

Medications on Admission:
1. Aspirin 81 mg

Brief Hospital Course:
The patient expired.
"""


def test_golden() -> None:
    assert sections_of(GOLDEN) == {
        "chief complaint": "chest pain",
        "present illness": (
            'Mr. [**Name**] is a 70 year old man. Day 2: still here He said: "nothing new" Vitals (on arrival): normal '
            "BP | HR: fine Per Dr. B: stable in\\out: even"
        ),
        "medical history": "HTN, DM",
        "medications on admission": "1. Aspirin 81 mg",
        "allergies": "Penicillins / Sulfa",
        "physical exam": "warm and dry",
        "social history": "Present illness: none of this counts again",
    }
    assert sections_of(GOLDEN.replace("\n", "\r\n")) == sections_of(GOLDEN)


def test_a_note_has_the_sections_in_order_under_upper_case_headings() -> None:
    found = {"social history": "lives alone", "chief complaint": "fall"}
    assert admission_note(found) == "CHIEF COMPLAINT: fall\n\nSOCIAL HISTORY: lives alone"


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("Chief complaint: a\n\nSex: F", "a"),
        ("Chief complaint: a\nSex: F\n\nb\n\nSex: F", "a Sex: F b"),  # a heading counts after a blank line only
        ("Chief complaint: a\n\nb\nSex: F", None),  # and right after it; without one the section has no end
        ("Chief complaint: a\n\nno heading\n\n Sex : F", "a no heading"),
        ("Chief complaint: a\n\n\n\nSex:", "a"),
        ("Chief complaint: a\n \t \nSex:", "a"),
        ("Chief complaint: a\n\n:\n\nSex:", "a :"),  # a colon alone is no heading
        ("Chief complaint: a\n\nLabs 1:\n\nSex:", "a Labs 1:"),
        ("Chief complaint:\n\nSex:\n\nChief complaint: b\n\nSex:", None),  # the first match is the one
        ("Chief complaint: a", None),
        ("Chief complaints: a\n\nSex:", None),
        ("", None),
    ],
)
def test_where_a_section_ends(text: str, body: str | None) -> None:
    assert sections_of(text).get("chief complaint") == body


@pytest.mark.parametrize("name", SECTIONS)
def test_one_of_the_first_three_is_required(name: str) -> None:
    assert is_usable({name: "x"}) == (name in ("chief complaint", "present illness", "medical history"))


LEAKS = [
    f"{who}{had} {died}"
    for who in ("patient", "Pt", "PATIENT")
    for had in ("", " had", " has")
    for died in ("expired", "died", "passed away", "Deceased")
] + ["he expired", "She expired", "pronounced expired", "time of death", "Time of\nDeath", "pt  has\tdied"]


@pytest.mark.parametrize("version", FILTERS)
@pytest.mark.parametrize("leak", LEAKS)
def test_every_wording_is_cut_from_exam_and_medications_and_drops_elsewhere(leak: str, version: str) -> None:
    for name in SECTIONS:
        if version == "2" and name == "family history" and not leak.lower().startswith(("pt", "patient", "time")):
            continue  # whoever dies there without being called the patient is a relative
        cut = without_leaks({"chief complaint": "fall"} | {name: f"Pale. {leak}. Cold."}, FILTERS[version])
        if name in ("physical exam", "medications on admission"):
            assert cut == {"chief complaint": "fall", name: "Pale. Cold."}
        else:
            assert cut is None


@pytest.mark.parametrize(
    "text", ["patient was told", "the patient denies", "expired inspiratory", "father died", "dead"]
)
def test_other_wordings_stay(text: str) -> None:
    assert without_leaks({"present illness": text}, FILTERS["published"]) == {"present illness": text}


def test_what_a_cut_leaves_is_looked_at_again() -> None:
    told = {"physical exam": "the patient patient died expired. ok"}
    assert without_leaks(told, FILTERS["published"]) == {"physical exam": "the ok"}
    assert without_leaks({"physical exam": "Patient expired."}, FILTERS["published"]) == {}


def test_version_2_cuts_whole_sentences_and_counts_rules_once_for_a_note() -> None:
    counts = LeakCounts()
    exam = "Pale. Found in asystole, pt pronounced at 04:10. He died. Died. Her mother died. 1.5 cm wound."
    told = {"chief complaint": "fall", "physical exam": exam, "medications on admission": "1. Aspirin 2. Expired"}
    assert without_leaks(told, FILTERS["2"], counts) == {
        "chief complaint": "fall",
        "physical exam": "Pale. Her mother died. 1.5 cm wound.",
        "medications on admission": "1. Aspirin 2.",
    }
    assert counts == LeakCounts(cut=Counter({"pronounced": 1, "died": 1, "expired": 1}))
    assert without_leaks({"present illness": "She died. Expired. Died.", **told}, FILTERS["2"], counts) is None
    assert counts.dropped == {"died": 1, "expired": 1}


def slow_sections(text: str) -> dict[str, str]:
    found = {}
    for name in SECTIONS:
        start = text.lower().find(f"{name}:")
        if start < 0:
            continue
        lines = text[start + len(name) + 1 :].split("\n")
        for number in range(1, len(lines) - 1):
            before, colon, _ = lines[number + 1].partition(":")
            if not lines[number].strip() and before and colon and not any(c in "()|.\\" or c.isdigit() for c in before):
                body = " ".join(" ".join(lines[:number]).split())
                if body:
                    found[name] = body
                break
    return found


def test_it_agrees_with_a_reader_that_goes_line_by_line() -> None:
    draw = random.Random(0)
    pieces = ["\n", "\n\n", "\n \n", ":", " x", "a1", "(b)", ".", "Sex:", "Plan", *(f"{name}:" for name in SECTIONS)]
    seen = 0
    for _ in range(3000):
        text = "".join(draw.choices(pieces, k=draw.randrange(1, 40)))
        assert sections_of(text) == slow_sections(text), text
        seen += len(slow_sections(text))
    assert seen > 3000
