"""Made-up clinical notes: the text half of the synthetic MIMIC-III. No sentence comes from a real note.

How ill a patient is, between 0 and 1, shows in the choice of words; traps are wordings that are hard on an extraction.
"""

from __future__ import annotations

from random import Random

GRAVE = (
    "septic shock on pressors",
    "intubated and unresponsive",
    "metastatic disease with poor prognosis",
    "multiorgan failure",
    "lactate rising",
    "large intracranial hemorrhage",
    "anuric renal failure",
    "cardiac arrest before arrival",
    "profound hypotension",
    "comfort measures discussed",
)
MILD = (
    "ambulating without help",
    "elective knee replacement",
    "tolerating a regular diet",
    "mild cough since yesterday",
    "pain well controlled",
    "afebrile and alert",
    "routine overnight observation",
    "stable on room air",
    "uncomplicated cellulitis",
    "walks the dog every day",
)
PLAIN = (
    "seen by the team",
    "history from the daughter",
    "labs pending",
    "home medications reviewed",
    "known hypertension",
    "came by ambulance",
    "oriented x3",
    "takes aspirin",
    "lives with family",
    "no recent travel",
)
COMPLAINTS = ("chest pain", "shortness of breath", "fever", "fall", "abdominal pain", "weakness")
LEAKS = (
    "Patient expired",
    "the pt died",
    "Pt had passed away",
    "patient has deceased",
    "She expired",
    "was pronounced expired",
    "TIME OF DEATH 04:10",
    "the patient\nhad died",
)
HEADINGS = (
    "Chief Complaint",
    "History of Present Illness",
    "Past Medical History",
    "Medications on Admission",
    "Allergies",
    "Physical Exam",
    "Family History",
    "Social History",
)
COURSE = "Brief Hospital Course"


def phrases(draw: Random, illness: float, count: int) -> str:
    """Write `count` short sentences; the iller, the more of them are grave."""
    made = []
    for _ in range(count):
        pool = PLAIN if draw.random() < 0.4 else (GRAVE if draw.random() < illness else MILD)
        made.append(draw.choice(pool))
    return ". ".join(made) + "."


def summary(draw: Random, illness: float, trap: str, marker: str, length: int) -> str:
    """Write a discharge summary of about `length` characters, or as many as its sections take."""
    bodies = _bodies(draw, illness, trap, marker)
    if trap == "no main section":
        bodies = {name: body for name, body in bodies.items() if name not in HEADINGS[:3]}
    names = {name: _case(name, draw) if trap == "mixed-case headings" else name for name in bodies}
    parts = ["Admission Date:  [**2150-1-1**]    Discharge Date: [**2150-1-9**]", "Service: MEDICINE"]
    parts += [f"{names[name]}:{_gap(name)}{body}" for name, body in bodies.items()]
    parts.append(f"{COURSE}:\n{phrases(draw, illness, 3)} {marker}")
    text = "\n\n".join(parts)
    while len(text) < length:
        text += f"\n{phrases(draw, illness, 40)}"
    return text + "\n\nDischarge Condition:\nas above\n"


def _bodies(draw: Random, illness: float, trap: str, marker: str) -> dict[str, str]:
    bodies = {
        HEADINGS[0]: draw.choice(COMPLAINTS),
        HEADINGS[1]: f'{phrases(draw, illness, 6)}\nSaid "not well", {draw.choice(COMPLAINTS)}. {marker}',
        HEADINGS[2]: phrases(draw, illness, 3),
        HEADINGS[3]: f"Aspirin 81 mg daily\n{phrases(draw, 0.5, 1)}",
        HEADINGS[4]: "No Known Allergies",
        HEADINGS[5]: f"Vitals noted.\n{phrases(draw, illness, 4)}",
        HEADINGS[6]: "Father with hypertension",
        HEADINGS[7]: phrases(draw, 0.5, 2),
    }
    if trap == "false headings":  # a digit, brackets, a bar, a full stop, a backslash: none of these ends a section
        bodies[HEADINGS[1]] += (
            "\n\nDay 2: better\n\nLabs (partial): fine\n\nEcho | EF: good\n\nDr. A: agreed\n\na\\b: seen"
        )
    if trap == "told in the exam":
        bodies[HEADINGS[5]] += f" {draw.choice(LEAKS)}. Skin warm."
    if trap == "told in medications":
        bodies[HEADINGS[3]] += f" {draw.choice(LEAKS)}."
    if trap == "told elsewhere":
        bodies[HEADINGS[draw.choice((1, 2, 6, 7))]] += f" {draw.choice(LEAKS)}."
    return bodies


def addendum(draw: Random, marker: str) -> str:
    """Write an addendum, which has headings of its own."""
    return f"Admission Date: [**2150-1-1**]\n\nAddendum:\n{phrases(draw, 0.5, 2)} {marker}\n\nAllergies: changed\n"


def progress_note(draw: Random, illness: float, marker: str, length: int) -> str:
    """Write a note of the ward of about `length` characters or more."""
    text = f'NPN 0700-1900\n{phrases(draw, illness, 5)}\n\nPlan: "{phrases(draw, illness, 2)}"\n{marker}'
    while len(text) < length:
        text += f"\n{phrases(draw, illness, 40)}"
    return text


def _gap(name: str) -> str:
    return " " if name in ("Allergies", "Family History") else "\n"


def _case(name: str, draw: Random) -> str:
    return "".join(letter.upper() if draw.random() < 0.5 else letter.lower() for letter in name)
