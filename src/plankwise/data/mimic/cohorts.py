"""Who is in: two definitions of in-hospital mortality on MIMIC-III, as queries that count what each step leaves.

Both leave a table `chosen` (hadm_id, subject_id, label) and a view `texts` (hadm_id, moment, row_id, digest,
characters, text). The large table is read once; of a note that a step drops, no text is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plankwise.core.errors import DataError
from plankwise.data.mimic.tables import Source, explained, find, load, path_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

log = logging.getLogger(__name__)
HAS_TEXT = r"regexp_matches(n.text, '\S')"
IS_SUMMARY = "lower(n.category) = 'discharge summary'"
ADMISSION = {
    **{"hadm_id": "number", "subject_id": "number"},
    **{"admittime": "time", "dischtime": "time", "deathtime": "time"},
}
IF_THERE = {"diagnosis": "text", "has_chartevents_data": "number"}
DEATHS = {"subject_id": "number", "dod": "time"}
# Admissions with the patient's death: the first DEATHTIME of all admissions or, where there is none, DOD, a date at
# midnight. From `death` on a note may be written after it; from `past_death` on the patient is dead for certain.
ACCOUNTS = r"""WITH timed AS (
        SELECT a.*, min(deathtime) OVER (PARTITION BY coalesce(subject_id, -hadm_id)) AS time_of_death FROM admissions a
    ), dated AS (
        SELECT t.*, coalesce(time_of_death, date_trunc('day', p.dod)) AS death,
            coalesce(time_of_death, date_trunc('day', p.dod) + INTERVAL 1 DAY) AS past_death
        FROM timed t LEFT JOIN patients p ON p.subject_id = t.subject_id
    )
    SELECT *, regexp_matches(lower(diagnosis), '\borgan\W+(donor|donation|procurement|harvest)|\bdonor\W+account')
            AND NOT regexp_matches(lower(diagnosis), '\b(live|living|recipient|awaiting)\b') AS donor,
        admittime >= past_death AS begun_after_death,
        dischtime <= admittime AS ends_before_it_begins,
        has_chartevents_data = 0 AND date_trunc('day', admittime) = date_trunc('day', death) AS uncharted
    FROM dated"""
NOT_ALIVE = {  # steps against admissions of the dead, and the column that holds for these
    "admission of no organ donor": "donor",
    "admission begun before death": "begun_after_death",
    "admission that ends after it begins": "ends_before_it_begins",
    "admission charted, or not on the day of death": "uncharted",
}


@dataclass(frozen=True)
class Step:
    """What one step leaves: rows are notes, or ICU stays where the step's name says so."""

    step: str
    rows: int
    admissions: int
    patients: int


class Steps(list[Step]):
    """The steps so far; one that leaves nothing is an error."""

    def add(self, name: str, rows: int, admissions: int, patients: int) -> None:
        """Append a step.

        Raises:
            DataError: if it leaves nothing.
        """
        if not rows:
            before = f"before it there were {self[-1].rows}" if self else "the table has no rows"
            raise DataError(f"the step '{name}' leaves nothing; {before}")
        self.append(Step(name, rows, admissions, patients))
        log.debug("%s: %d rows, %d admissions, %d patients", name, rows, admissions, patients)


def admission_notes(connection: DuckDBPyConnection, folder: Path, steps: Steps, progress: bool) -> None:
    """Select discharge summaries of all but newborns; their sections and leaks are checked later.

    The addenda of an admission join its report by date. Of identical texts the last one is kept. A report is always
    written after the stay, so that the date of death can only hold back addenda.

    Raises:
        DataError: if a table is missing or damaged, or a step leaves nothing.
    """
    kinds = {**ADMISSION, "admission_type": "text", "hospital_expire_flag": "number"}
    admissions = find(folder, "admissions", kinds, IF_THERE)
    patients = find(folder, "patients", DEATHS) if path_of(folder, "patients") else None
    dates = {"row_id": "number", "subject_id": "number", "hadm_id": "number", "chartdate": "time"}
    notes = find(folder, "noteevents", {**dates, "category": "text", "description": "text", "text": "note"})
    _load_all(connection, {"admissions": (admissions, "hadm_id")}, progress)
    if patients is None:
        log.warning("%s holds no PATIENTS: deaths are known by DEATHTIME alone", folder)
        connection.execute("CREATE TABLE patients (subject_id BIGINT, dod TIMESTAMP)")
    else:
        _load_all(connection, {"patients": (patients, "subject_id")}, progress)
    connection.execute(f"CREATE TABLE accounts AS {ACCOUNTS}")
    _refuse_flags(connection, admissions)
    predicates = {
        "notes read": "true",
        "admission of no newborn": "upper(a.admission_type) IS DISTINCT FROM 'NEWBORN'",
        "with text": HAS_TEXT,
        "with HADM_ID": "n.hadm_id IS NOT NULL",
        "admission in ADMISSIONS": "a.hadm_id IS NOT NULL",
        **{name: f"(a.{column}) IS NOT TRUE" for name, column in NOT_ALIVE.items()},
        "discharge summaries": IS_SUMMARY,
        "no addendum from the day of death on": "(NOT coalesce(lower(n.description) = 'report', false)"
        " AND n.chartdate >= date_trunc('day', a.death)) IS NOT TRUE",
    }
    _load_notes(connection, notes, "accounts a", "n.chartdate", predicates, progress)
    with explained("the notes"):
        _count(connection, steps, "notes", predicates)
        connection.execute(
            f"""CREATE TABLE latest AS SELECT rowid AS place, * EXCLUDE (text) FROM notes
            WHERE passed = {len(predicates)} QUALIFY row_number() OVER (
                PARTITION BY digest ORDER BY moment DESC NULLS LAST, row_id DESC NULLS LAST, hadm_id DESC
            ) = 1"""
        )
        _count(connection, steps, "(SELECT *, 1 AS passed FROM latest)", {"identical texts once": ""})
        joined = """SELECT hadm_id, max(n.subject_id) AS subject_id, hospital_expire_flag AS label, count(*) AS notes,
            CASE WHEN NOT bool_or(report) THEN 0 WHEN count(DISTINCT n.subject_id) <> 1 THEN 1 ELSE 2 END AS passed
            FROM latest n JOIN admissions USING (hadm_id) GROUP BY hadm_id, hospital_expire_flag"""
        connection.execute(f"CREATE TABLE joined AS {joined}")
        _count(connection, steps, "joined", {"admissions with a Report": "", "of one patient": ""}, "sum(notes)")
        connection.execute("CREATE TABLE chosen AS SELECT * FROM joined WHERE passed = 2")
        connection.execute("CREATE VIEW texts AS SELECT n.* FROM notes n JOIN latest ON n.rowid = latest.place")


def first_48h(connection: DuckDBPyConnection, folder: Path, steps: Steps, progress: bool) -> None:
    """Select notes of the first two days in intensive care, of adults who kept their bed at least as long.

    The bed may be left after death, which may so lie within the two days; no note from then on is selected. Ages over
    89 are shifted by 300 years in MIMIC-III and count as adult by plain date arithmetic.

    Raises:
        DataError: if a table is missing or damaged, or a step leaves nothing.
    """
    patients = find(folder, "patients", {**DEATHS, "dob": "time"})
    admissions = find(folder, "admissions", ADMISSION, IF_THERE)
    units = {"first_careunit": "text", "last_careunit": "text", "first_wardid": "number", "last_wardid": "number"}
    ids = {"subject_id": "number", "hadm_id": "number"}
    stays = find(folder, "icustays", {**ids, **units, "intime": "time", "outtime": "time"})
    kinds = {"row_id": "number", **ids, "charttime": "time", "category": "text", "iserror": "number", "text": "note"}
    notes = find(folder, "noteevents", kinds, {"storetime": "time"})
    tables = {"patients": (patients, "subject_id"), "admissions": (admissions, "hadm_id"), "icustays": (stays, None)}
    _load_all(connection, tables, progress)
    predicates = {
        "ICU stays read": "true",
        "stays with patient and admission": "known",
        **{
            name.replace("admission", "stays of an admission"): f"{each} IS NOT TRUE"
            for name, each in NOT_ALIVE.items()
        },
        "stays without transfer": "settled",
        "one stay an admission": "alone = 1",
        "stays at an age of 18 or more": "dob + INTERVAL 18 YEAR <= intime",
        "stays of 48 h or more": "intime + INTERVAL 48 HOUR <= outtime",
        "stays begun before death": "(death <= intime) IS NOT TRUE",
    }
    with explained("the ICU stays"):
        connection.execute(f"CREATE TABLE accounts AS {ACCOUNTS}")
        connection.execute(f"CREATE TABLE stays AS {_stays(predicates)}")
        _count(connection, steps, "stays", predicates)
        connection.execute(f"CREATE TABLE chosen AS SELECT * FROM stays WHERE passed = {len(predicates)}")
    predicates = {
        "notes of these stays' admissions": "a.hadm_id IS NOT NULL",
        "with text": HAS_TEXT,
        "no discharge summaries": f"({IS_SUMMARY}) IS NOT TRUE",
        "not marked as error": "n.iserror IS DISTINCT FROM 1",
        "with CHARTTIME": "n.charttime IS NOT NULL",
        "charted in the first 48 h": "n.charttime BETWEEN a.intime AND a.intime + INTERVAL 48 HOUR",
        "charted and stored before death": "(greatest(n.charttime, n.storetime) >= a.death) IS NOT TRUE",
    }
    _load_notes(connection, notes, "chosen a", "n.charttime", predicates, progress)
    with explained("the notes"):
        _count(connection, steps, "notes", predicates)
        connection.execute(f"CREATE VIEW texts AS SELECT * FROM notes WHERE passed = {len(predicates)}")


def _stays(predicates: Mapping[str, str]) -> str:
    """Return a query for ICU stays with their labels and the number of steps that each passes."""
    return f"""WITH joined AS (
        SELECT s.hadm_id, s.subject_id, s.intime, s.outtime, p.dob, a.death, {", ".join(NOT_ALIVE.values())},
            p.subject_id IS NOT NULL AND a.hadm_id IS NOT NULL AS known,
            (known AND first_careunit = last_careunit AND first_wardid = last_wardid) IS TRUE AS settled,
            ((p.dod BETWEEN a.admittime AND a.dischtime) IS TRUE
                OR (a.deathtime BETWEEN a.admittime AND a.dischtime) IS TRUE)::BIGINT AS label
        FROM icustays s LEFT JOIN patients p USING (subject_id) LEFT JOIN accounts a ON a.hadm_id = s.hadm_id
    ), counted AS (SELECT *, count(*) FILTER (settled) OVER (PARTITION BY hadm_id) AS alone FROM joined)
    SELECT *, {_passed(predicates)} FROM counted"""


def _load_all(connection: DuckDBPyConnection, tables: Mapping[str, tuple[Source, str | None]], progress: bool) -> None:
    """Load small tables; where a key is given, no row may share it with another."""
    for name, (source, key) in tables.items():
        load(connection, name, source, "SELECT * FROM {rows}", progress)
        if key is not None:
            twice = f"SELECT {key} FROM {name} WHERE {key} IS NOT NULL GROUP BY {key} HAVING count(*) > 1 ORDER BY 1"
            row = connection.execute(twice).fetchone()
            if row is not None:
                raise DataError(f"{source.path}: several rows have {key.upper()} {row[0]}; allowed: one")


def _refuse_flags(connection: DuckDBPyConnection, admissions: Source) -> None:
    wrong = "SELECT hadm_id FROM admissions WHERE (hospital_expire_flag IN (0, 1)) IS NOT TRUE ORDER BY 1"
    row = connection.execute(wrong).fetchone()
    if row is not None:
        raise DataError(f"{admissions.path}: HADM_ID {row[0]}: HOSPITAL_EXPIRE_FLAG is neither 0 nor 1")


def _load_notes(
    connection: DuckDBPyConnection,
    notes: Source,
    other: str,
    moment: str,
    predicates: Mapping[str, str],
    progress: bool,
) -> None:
    """Stream the notes into a table that has a text only where all predicates hold, joined to `other` by admission."""
    everything = " AND ".join(f"({each})" for each in predicates.values())
    report = "lower(n.description) = 'report'" if "description" in notes.kinds else "NULL"
    load(
        connection,
        "notes",
        notes,
        f"""SELECT n.row_id, n.subject_id, n.hadm_id, {moment} AS moment, {report} AS report, n.unreadable,
        {_passed(predicates)},
        CASE WHEN {everything} THEN md5(n.text) END AS digest, length(n.text) AS characters,
        CASE WHEN {everything} THEN n.text END AS text
        FROM {{rows}} n LEFT JOIN {other} ON n.hadm_id = a.hadm_id""",
        progress,
    )


def _passed(predicates: Mapping[str, str]) -> str:
    """Return SQL for the number of predicates that hold before the first one that does not."""
    cases = " ".join(f"WHEN ({each}) IS NOT TRUE THEN {number}" for number, each in enumerate(predicates.values()))
    return f"CASE {cases} ELSE {len(predicates)} END AS passed"


def _count(
    connection: DuckDBPyConnection, steps: Steps, table: str, names: Sequence[str] | Mapping[str, str], rows: str = ""
) -> None:
    """Count what is left after each of the named steps of a table with a column `passed`."""
    for number, name in enumerate(names, 1):
        query = f"SELECT {rows or 'count(*)'}, count(DISTINCT hadm_id), count(DISTINCT subject_id) FROM {table}"
        row = connection.execute(f"{query} WHERE passed >= {number}").fetchone()
        assert row is not None
        steps.add(name, *(int(value or 0) for value in row))
