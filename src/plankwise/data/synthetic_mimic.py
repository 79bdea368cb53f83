"""A synthetic MIMIC-III: tables of its schema with made-up patients, for tests, a demo and measurements.

Every second admission carries one trap, in turn, so that 2 · len(TRAPS) admissions hold each at least once. Traps and
outcome are drawn apart: who died shows in the words, not in what is odd about the records.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from plankwise.core.errors import DataError
from plankwise.core.files import whole_folder
from plankwise.core.progress import bar
from plankwise.data.mimic import free_folder
from plankwise.data.synthetic_notes import addendum, progress_note, summary

COLUMNS = {
    "PATIENTS": "ROW_ID,SUBJECT_ID,GENDER,DOB,DOD,DOD_HOSP,DOD_SSN,EXPIRE_FLAG",
    "ADMISSIONS": "ROW_ID,SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,DEATHTIME,ADMISSION_TYPE,ADMISSION_LOCATION,"
    "DISCHARGE_LOCATION,INSURANCE,LANGUAGE,RELIGION,MARITAL_STATUS,ETHNICITY,EDREGTIME,EDOUTTIME,DIAGNOSIS,"
    "HOSPITAL_EXPIRE_FLAG,HAS_CHARTEVENTS_DATA",
    "ICUSTAYS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,DBSOURCE,FIRST_CAREUNIT,LAST_CAREUNIT,FIRST_WARDID,LAST_WARDID,"
    "INTIME,OUTTIME,LOS",
    "NOTEEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,CHARTDATE,CHARTTIME,STORETIME,CATEGORY,DESCRIPTION,CGID,ISERROR,TEXT",
}
TRAPS = (
    "addendum",
    "addendum alone",
    "addendum dated earlier",
    "duplicate",
    "newborn",
    "no HADM_ID",
    "no text",
    "unknown admission",
    "told in the exam",
    "told in medications",
    "told elsewhere",
    "mixed-case headings",
    "false headings",
    "no main section",
    "other unit",
    "other ward",
    "two stays",
    "two stays, one moved",
    "aged 17",
    "aged 18 that day",
    "aged over 89",
    "stay of 47 h",
    "stay of 48 h",
    "late notes",
    "notes on the bounds",
    "note in error",
    "no CHARTTIME",
    "early summary",
    "died after leaving",
    "no ICU stay",
)
Row = dict[str, Any]
Made = tuple[str, Row]  # a table's name and a row of it


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

    @property
    def id(self) -> int:
        """Give the HADM_ID."""
        return 100_000 + self.number

    @property
    def in_time(self) -> datetime:
        """When intensive care begins."""
        return self.arrival + timedelta(hours=2)

    @property
    def end(self) -> datetime:
        """When the stay in hospital ends."""
        return self.arrival + timedelta(days=8)


def write_synthetic(
    out: Path, admissions: int, seed: int = 0, marker: str = "", length: int = 1500, progress: bool = False
) -> dict[str, int]:
    """Write PATIENTS.csv, ADMISSIONS.csv, ICUSTAYS.csv and NOTEEVENTS.csv, row by row.

    Args:
        out: a folder that is new or empty.
        admissions: how many.
        seed: the same one gives the same bytes.
        marker: a word to put into every note, which a search of a run's outputs can look for.
        length: least characters of a note.
        progress: show a bar where standard error is a terminal.

    Returns:
        Rows of each table.

    Raises:
        DataError: if there is to be less than one admission.
        OutputError: if `out` holds files or cannot be written to.
    """
    if admissions < 1:
        raise DataError(f"--admissions {admissions}: give at least 1")
    rows = dict.fromkeys(COLUMNS, 0)
    with whole_folder(free_folder(out)) as made, ExitStack() as stack:
        writers = {}
        for table, columns in COLUMNS.items():
            file = stack.enter_context((made / f"{table}.csv").open("w", encoding="utf-8", newline=""))
            writers[table] = csv.DictWriter(file, columns.split(","), restval="", lineterminator="\n")
            writers[table].writeheader()
        show = stack.enter_context(bar("writing admissions", admissions, progress))
        for patient in _patients(admissions, seed, marker, length):
            for table, row in _rows(patient):
                rows[table] += 1
                writers[table].writerow({"ROW_ID": rows[table], **row})
            show(patient[-1].number)
    return rows


def _patients(count: int, seed: int, marker: str, length: int) -> Iterator[list[Admission]]:
    """Draw patients of one to three admissions each, who die in the last one or in none."""
    number, subject = 0, 0
    while number < count:
        subject += 1
        draw = Random(f"{seed}/{subject}")
        arrival = datetime(2120, 1, 1, 8) + timedelta(days=draw.randrange(20_000))
        made: list[Admission] = []
        for _ in range(min(draw.choice((1, 1, 1, 2, 3)), count - number)):
            number += 1
            illness = draw.random()
            died = draw.random() < 1 / (1 + math.exp(-12 * (illness - 0.7)))
            trap = TRAPS[number // 2 % len(TRAPS)] if number % 2 else "none"
            word = f"{marker}{number:06d}" if marker else ""
            made.append(Admission(number, subject, arrival, trap, illness, died, draw, word, length))
            if died:
                break
            arrival += timedelta(days=draw.randrange(30, 300))
        yield made


def _rows(patient: list[Admission]) -> Iterator[Made]:
    yield "PATIENTS", _patient_row(patient)
    for admission in patient:
        yield "ADMISSIONS", _admission_row(admission)
        yield from (("ICUSTAYS", row) for row in _stay_rows(admission))
        yield from (("NOTEEVENTS", row) for row in _note_rows(admission))


def _patient_row(patient: list[Admission]) -> Row:
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
    died = next((each.end for each in patient if each.died), None)
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


def _admission_row(admission: Admission) -> Row:
    return {
        "SUBJECT_ID": admission.subject,
        "HADM_ID": admission.id,
        "ADMITTIME": _time(admission.arrival),
        "DISCHTIME": _time(admission.end),
        "DEATHTIME": _time(admission.end) if admission.died else None,
        "ADMISSION_TYPE": "NEWBORN"
        if admission.trap == "newborn"
        else admission.draw.choice(("EMERGENCY", "ELECTIVE")),
        "INSURANCE": "Medicare",
        "HOSPITAL_EXPIRE_FLAG": int(admission.died),
        "HAS_CHARTEVENTS_DATA": 1,
    }


def _stay_rows(admission: Admission) -> Iterator[Row]:
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


def _note_rows(admission: Admission) -> Iterator[Row]:
    yield from _summary_rows(admission)
    draw, trap = admission.draw, admission.trap
    hours = {"late notes": (50.0, 55.0), "notes on the bounds": (-1 / 3600, 0.0, 48.0, 48 + 1 / 3600)}
    for number, hour in enumerate(hours.get(trap, (3.0, 20.0, 52.0))):
        text = progress_note(draw, admission.illness, admission.marker, admission.length)
        time = admission.in_time + timedelta(seconds=round(3600 * hour))
        row = _note(admission, time, draw.choice(("Nursing/other", "Radiology", "Physician ")), "Report", text)
        row["CHARTTIME"] = None if trap == "no CHARTTIME" and number == 0 else _time(time)
        row["ISERROR"] = 1 if trap == "note in error" and number == 0 else None
        yield row


def _summary_rows(admission: Admission) -> Iterator[Row]:
    """Write the discharge summary and what its trap adds to it."""
    draw, trap, end = admission.draw, admission.trap, admission.end
    text = summary(draw, admission.illness, trap, admission.marker, admission.length)
    category = "Discharge summary"
    report = _note(admission, end, category, "Addendum" if trap == "addendum alone" else "Report", text)
    if trap in ("addendum", "addendum dated earlier"):
        day = end + timedelta(days=2 if trap == "addendum" else -2)
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


def _note(admission: Admission, time: datetime, category: str, description: str, text: str) -> Row:
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
