"""A synthetic MIMIC-III: tables of its schema with made-up patients, for tests, a demo and measurements.

Every second admission carries one trap, in turn, so that 2 · len(TRAPS) admissions hold each at least once. Traps and
outcome are drawn apart: who died shows in the words, not in what is odd about the records.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from plankwise.core.errors import DataError
from plankwise.core.files import atomic_folder
from plankwise.core.progress import bar
from plankwise.data.mimic.extraction import free_folder
from plankwise.data.mimic.synthetic_rows import DYING, Admission, rows_of

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
    "organ donor",
    "admitted dead",
    "second account",
    "ends before it begins",
    "uncharted on the day of death",
    "dead before the stay",
    "death before the bed is left",
    "date of death alone",
    "addendum after death",
    "told in notes",
    "relatives' deaths",
)


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
    with atomic_folder(free_folder(out)) as made, ExitStack() as stack:
        writers = {}
        for table, columns in COLUMNS.items():
            file = stack.enter_context((made / f"{table}.csv").open("w", encoding="utf-8", newline=""))
            writers[table] = csv.DictWriter(file, columns.split(","), restval="", lineterminator="\n")
            writers[table].writeheader()
        show = stack.enter_context(bar("writing admissions", admissions, progress))
        for patient in _patients(admissions, seed, marker, length):
            for table, row in rows_of(patient):
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
            trap = TRAPS[number // 2 % len(TRAPS)] if number % 2 else "none"
            illness = draw.random()
            illness = 0.5 + illness / 2 if trap in DYING else illness
            died = draw.random() < 1 / (1 + math.exp(-12 * (illness - 0.7))) or trap in DYING
            word = f"{marker}{number:06d}" if marker else ""
            turn = number // (2 * len(TRAPS))
            made.append(Admission(number, subject, arrival, trap, illness, died, draw, word, length, turn))
            if died:
                break
            arrival += timedelta(days=draw.randrange(30, 300))
        if made[-1].trap == "second account" and number < count:  # opened when its patient has died
            number += 1
            word = f"{marker}{number:06d}" if marker else ""
            opened = made[-1].end + timedelta(minutes=1)
            made.append(replace(made[-1], number=number, arrival=opened, trap="none", died=False, marker=word))
        yield made
