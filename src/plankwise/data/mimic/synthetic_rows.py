"""Rows of the synthetic MIMIC-III: what an admission, its patient, its stays and its notes are in the tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from plankwise.data.mimic.synthetic_notes import addendum, lengthened, progress_note, summary

HOURS_TO_DEATH = {  # from arrival; two hours later intensive care begins
    "admitted dead": -3,
    "dead before the stay": 1,
    "uncharted on the day of death": 5,
    "death before the bed is left": 32,
    "date of death alone": 32,
}
DYING = {*HOURS_TO_DEATH, "organ donor", "second account", "addendum after death"}
TableRow = dict[str, Any]
TURNED = "ends before it begins"
Made = tuple[str, TableRow]  # a table's name and a row of it


@dataclass(frozen=True)
class Admission:
    """One stay in hospital, before it is written out as rows."""

    number: int
    subject: int
    arrival: datetime
    trap: str
    illness: float
    died: bool
    draw: Random
    marker: str
    length: int
    turn: int

    @property
    def id(self) -> int:
        """Return the HADM_ID."""
        return 100_000 + self.number

    @property
    def in_time(self) -> datetime:
        """When intensive care begins."""
        return self.arrival + timedelta(hours=2)

    @property
    def end(self) -> datetime:
        """When the stay in hospital ends."""
        return self.arrival + timedelta(days=8)

    @property
    def death(self) -> datetime | None:
        """When the patient dies, if he does."""
        if not self.died:
            return None
        hours = HOURS_TO_DEATH.get(self.trap)
        return self.end if hours is None else self.arrival + timedelta(hours=hours)


def rows_of(patient: list[Admission]) -> Iterator[Made]:
    """Yield a patient's rows in all tables, without ROW_ID."""
    yield "PATIENTS", _patient_row(patient)
    for admission in patient:
        yield "ADMISSIONS", _admission_row(admission)
        yield from (("ICUSTAYS", row) for row in _stay_rows(admission))
        yield from (("NOTEEVENTS", row) for row in _note_rows(admission))


def _patient_row(patient: list[Admission]) -> TableRow:
    last = patient[-1]
    born = last.arrival.replace(day=1) - timedelta(days=365 * last.draw.randrange(25, 85))
    for admission in patient:
        day = datetime(admission.in_time.year, admission.in_time.month, min(admission.in_time.day, 28))
        if admission.trap == "newborn":
            born = day
        elif admission.trap == "aged over 89":  # shifted by 300 years, as MIMIC-III does
            born = day.replace(year=day.year - 300)
        elif admission.trap == "aged 18 that day":
            born = day.replace(year=day.year - 18)
        elif admission.trap == "aged 17":
            born = admission.in_time.replace(year=day.year - 18, month=12, day=31, hour=0)
    died = next((each.death for each in patient if each.died), None)
    if died is None and last.trap == "died after leaving":
        died = last.end + timedelta(days=30)
    dod = None if died is None else _time(died.replace(hour=0))
    return {
        "SUBJECT_ID": last.subject,
        "GENDER": last.draw.choice("FM"),
        "DOB": _time(born.replace(hour=0)),
        "DOD": dod,
        "DOD_SSN": dod,
        "EXPIRE_FLAG": int(died is not None),
    }


def _admission_row(admission: Admission) -> TableRow:
    return {
        "SUBJECT_ID": admission.subject,
        "HADM_ID": admission.id,
        "ADMITTIME": _time(admission.arrival),
        "DISCHTIME": _time(admission.arrival - timedelta(hours=1) if admission.trap == TURNED else admission.end),
        "DEATHTIME": _time(admission.death) if admission.death and admission.trap != "date of death alone" else None,
        "ADMISSION_TYPE": "NEWBORN"
        if admission.trap == "newborn"
        else admission.draw.choice(("EMERGENCY", "ELECTIVE")),
        "INSURANCE": "Medicare",
        "DIAGNOSIS": "ORGAN DONOR ACCOUNT" if admission.trap == "organ donor" else "PNEUMONIA",
        "HOSPITAL_EXPIRE_FLAG": int(admission.died),
        "HAS_CHARTEVENTS_DATA": int(admission.trap != "uncharted on the day of death"),
    }


def _stay_rows(admission: Admission) -> Iterator[TableRow]:
    trap = admission.trap
    hours = {"stay of 47 h": 47.99, "stay of 48 h": 48}.get(trap, 60)
    stays = {"no ICU stay": 0, "two stays": 2, "two stays, one moved": 2}.get(trap, 1)
    for number in range(stays):
        begin = admission.in_time + timedelta(hours=70 * number)
        moved = trap == "other unit" or (trap == "two stays, one moved" and number == 1)
        yield {
            "SUBJECT_ID": admission.subject,
            "HADM_ID": admission.id,
            "ICUSTAY_ID": 200_000 + 2 * admission.number + number,
            "DBSOURCE": "carevue",
            "FIRST_CAREUNIT": "MICU",
            "LAST_CAREUNIT": "SICU" if moved else "MICU",
            "FIRST_WARDID": 12,
            "LAST_WARDID": 15 if trap == "other ward" else 12,
            "INTIME": _time(begin),
            "OUTTIME": _time(begin + timedelta(hours=hours)),
            "LOS": round(hours / 24, 4),
        }


def _note_rows(admission: Admission) -> Iterator[TableRow]:
    yield from _summary_rows(admission)
    draw, trap = admission.draw, admission.trap
    hours = {
        "late notes": (50.0, 55.0),
        "notes on the bounds": (-1 / 3600, 0.0, 48.0, 48 + 1 / 3600),
        "death before the bed is left": (3.0, 29.9, 30.0, 31.0),  # the second is stored after death
    }
    for number, hour in enumerate(hours.get(trap, (3.0, 20.0, 52.0))):
        text = progress_note(draw, admission.illness, trap if number else "none", admission.turn, admission.marker)
        text = lengthened(draw, admission.illness, text, admission.length)
        time = admission.in_time + timedelta(seconds=round(3600 * hour))
        row = _note(admission, time, draw.choice(("Nursing/other", "Radiology", "Physician ")), "Report", text)
        row["CHARTTIME"] = None if trap == "no CHARTTIME" and number == 0 else _time(time)
        row["STORETIME"] = _time(time + timedelta(minutes=20))
        row["ISERROR"] = 1 if trap == "note in error" and number == 0 else None
        yield row


def _summary_rows(admission: Admission) -> Iterator[TableRow]:
    """Write the discharge summary and what its trap adds to it."""
    draw, trap, end = admission.draw, admission.trap, admission.end
    text = summary(draw, admission.illness, trap, admission.turn, admission.marker)
    text = lengthened(draw, admission.illness, text, admission.length)
    category = "Discharge summary"
    report = _note(admission, end, category, "Addendum" if trap == "addendum alone" else "Report", text)
    if trap in ("addendum", "addendum dated earlier", "addendum after death"):
        day = end + timedelta(days=-2 if trap == "addendum dated earlier" else 2)
        yield _note(admission, day, category, "Addendum", addendum(draw, admission.marker))
    if trap == "duplicate":
        yield {**report, "CHARTDATE": (end + timedelta(days=1)).date().isoformat()}
    if trap == "no HADM_ID":
        yield {**report, "HADM_ID": None, "TEXT": f"{text}lost\n"}
    if trap == "no text":
        yield {**report, "TEXT": draw.choice(("", " \n "))}
    if trap == "unknown admission":
        yield {**report, "HADM_ID": 800_000 + admission.number, "TEXT": f"{text}unknown\n"}
    if trap == "early summary":
        early = _note(admission, admission.in_time + timedelta(hours=5), category, "Report", f"{text}early\n")
        yield {**early, "CHARTTIME": _time(admission.in_time + timedelta(hours=5))}
    yield report


def _note(admission: Admission, time: datetime, category: str, description: str, text: str) -> TableRow:
    return {
        "SUBJECT_ID": admission.subject,
        "HADM_ID": admission.id,
        "CHARTDATE": time.date().isoformat(),
        "CATEGORY": category,
        "DESCRIPTION": description,
        "TEXT": text,
    }


def _time(time: datetime) -> str:
    return time.isoformat(sep=" ", timespec="seconds")
