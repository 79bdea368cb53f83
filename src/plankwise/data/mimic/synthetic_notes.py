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
LEAKS = (  # the published wordings, then at least one for each rule of version 2
    "Patient expired",
    "the pt died",
    "Pt had passed away",
    "patient has deceased",
    "She expired",
    "was pronounced expired",
    "TIME OF DEATH 04:10",
    "the patient\nhad died",
    "Pt. expired in the ICU",
    "Died with his wife at the bedside",
    "Passed away peacefully",
    "Deceased",
    "Found dead in bed",
    "Asystole, no pulse, pronounced at 04:10",
    "Declared brain dead",
    "Did not survive",
    "Pt ceased to breathe",
    "Pt succumbed to sepsis",
    "Family was notified of the death",
    "CMO overnight and died",
    "Disposition: Expired",
    "Taken to the morgue",
    "Medical examiner declined the case",
    "Organ bank was called",
    "Rest in peace",
)
TOLD_AT_ONCE = 5
RELATIVES = (
    "Her husband died in 2147",
    "Father passed away of MI",
    "Mother deceased",
    "Her son expired after an overdose",
    "Widowed, wife died 5 years ago",
    "Ran out of pills when her prescription expired",
    "Expiratory wheezes",
    "Kidney from a deceased donor",
    "Pain died down",
    "Afraid that he would die",
    "Retired medical examiner",
    "Lives alone since the death of her sister",
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


def told(turn: int) -> str:
    """Tell a death in the next few wordings; each comes up in turn."""
    return ". ".join(LEAKS[(TOLD_AT_ONCE * turn + number) % len(LEAKS)] for number in range(TOLD_AT_ONCE)) + "."


def summary(draw: Random, illness: float, trap: str, turn: int, marker: str) -> str:
    """Write a discharge summary without its last heading."""
    bodies = _bodies(draw, illness, trap, turn, marker)
    if trap == "no main section":
        bodies = {name: body for name, body in bodies.items() if name not in HEADINGS[:3]}
    names = {name: _case(name, draw) if trap == "mixed-case headings" else name for name in bodies}
    parts = ["Admission Date:  [**2150-1-1**]    Discharge Date: [**2150-1-9**]", "Service: MEDICINE"]
    parts += [f"{names[name]}:{_gap(name)}{body}" for name, body in bodies.items()]
    parts.append(f"{COURSE}:\n{phrases(draw, illness, 3)} {marker}")
    return "\n\n".join(parts) + "\n\nDischarge Condition:\nas above\n"


def lengthened(draw: Random, illness: float, text: str, length: int) -> str:
    """Add lines to a note until it has about `length` characters."""
    while len(text) < length:
        text += f"\n{phrases(draw, illness, 40)}"
    return text


def _bodies(draw: Random, illness: float, trap: str, turn: int, marker: str) -> dict[str, str]:
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
        bodies[HEADINGS[5]] += f" {told(turn)} Skin warm."
    if trap == "told in medications":
        bodies[HEADINGS[3]] += f" {told(turn)}"
    if trap == "told elsewhere":
        bodies[HEADINGS[(1, 2, 7)[turn % 3]]] += f" {told(turn)}"
    if trap == "relatives' deaths":
        bodies[HEADINGS[(1, 6, 7)[turn % 3]]] += f" {'. '.join(RELATIVES)}."
    return bodies


def addendum(draw: Random, marker: str) -> str:
    """Write an addendum, which has headings of its own."""
    return f"Admission Date: [**2150-1-1**]\n\nAddendum:\n{phrases(draw, 0.5, 2)} {marker}\n\nAllergies: changed\n"


def progress_note(draw: Random, illness: float, trap: str, turn: int, marker: str) -> str:
    """Write a note of the ward."""
    told_here = {"told in notes": f"\n{told(turn)}", "relatives' deaths": f"\n{'. '.join(RELATIVES)}."}.get(trap, "")
    return f'NPN 0700-1900\n{phrases(draw, illness, 5)}{told_here}\n\nPlan: "{phrases(draw, illness, 2)}"\n{marker}'


def _gap(name: str) -> str:
    return " " if name in ("Allergies", "Family History") else "\n"


def _case(name: str, draw: Random) -> str:
    return "".join(letter.upper() if draw.random() < 0.5 else letter.lower() for letter in name)
