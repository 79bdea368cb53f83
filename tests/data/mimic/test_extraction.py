"""The extraction on tables written by hand, and on synthetic ones against a slow reference in plain Python."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from plankwise.core.errors import DataError, OutputError
from plankwise.data.mimic.extraction import extract, split_of
from plankwise.data.mimic.leaks import FILTERS
from plankwise.data.mimic.mentions import sex_of
from plankwise.data.mimic.sections import SECTIONS, without_leaks
from plankwise.data.mimic.synthetic import write_synthetic
from plankwise.data.mimic.tables import MAX_CELL

A, B = "admission-notes", "first-48h"
SECRET = "Zzyzxsecret"
Row = dict[str, Any]
COLUMNS = {
    "ADMISSIONS": "SUBJECT_ID HADM_ID ADMISSION_TYPE HOSPITAL_EXPIRE_FLAG ADMITTIME DISCHTIME DEATHTIME DIAGNOSIS "
    "HAS_CHARTEVENTS_DATA",
    "NOTEEVENTS": "ROW_ID SUBJECT_ID HADM_ID CHARTDATE CHARTTIME STORETIME CATEGORY DESCRIPTION ISERROR TEXT",
    "PATIENTS": "SUBJECT_ID DOB DOD",
    "ICUSTAYS": "SUBJECT_ID HADM_ID FIRST_CAREUNIT LAST_CAREUNIT FIRST_WARDID LAST_WARDID INTIME OUTTIME",
}
NOON = datetime(2150, 6, 15, 12)


def write(folder: Path, table: str, rows: Iterable[Row]) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / f"{table}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS[table].split(), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def body(word: str) -> str:
    return f'Chief Complaint:\n{word} "quoted", with\nlines\n\nSex: F\n'


def admission(number: int, **changes: Any) -> Row:
    times = {"ADMITTIME": NOON, "DISCHTIME": NOON + timedelta(days=9), "DEATHTIME": ""}
    common = {"ADMISSION_TYPE": "EMERGENCY", "HOSPITAL_EXPIRE_FLAG": 0}
    return {"SUBJECT_ID": number, "HADM_ID": number, **common, **times, **changes}


def note(row: int, number: int, **changes: Any) -> Row:
    common = {"CHARTDATE": "2150-06-20", "CATEGORY": "Discharge summary", "DESCRIPTION": "Report"}
    return {"ROW_ID": row, "SUBJECT_ID": number, "HADM_ID": number, "TEXT": body(f"w{row}"), **common, **changes}


def examples(out: Path) -> dict[str, Row]:
    lines = [line for part in ("train", "dev", "test") for line in (out / f"{part}.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def words(out: Path) -> dict[str, list[str]]:
    return {name: re.findall(r"\bw\d+", row["text"]) for name, row in examples(out).items()}


def steps(counts: Row) -> dict[str, tuple[int, int, int]]:
    return {step["step"]: (step["rows"], step["admissions"], step["patients"]) for step in counts["steps"]}


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises((DataError, OutputError)) as caught:
        extract(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def admission_tables(folder: Path, notes: list[Row], **changes: dict[str, Any]) -> Path:
    numbers = sorted({row["HADM_ID"] for row in notes if isinstance(row["HADM_ID"], int) and row["HADM_ID"] < 900})
    write(folder, "ADMISSIONS", [admission(n, **changes.get(f"a{n}", {})) for n in numbers])
    write(folder, "NOTEEVENTS", notes)
    return folder


class TestAdmissionNotes:
    def test_every_rule_by_hand(self, tmp_path: Path) -> None:
        three = "Chief Complaint: w100\n\nSex: F\n\nAllergies: w101"
        notes = [
            note(1, 1),
            note(2, 1, CHARTDATE="2150-06-25", DESCRIPTION="Addendum", TEXT="\n\nPhysical Exam: w2\n\nEnd: x"),
            note(3, 2, CHARTDATE="2150-06-25", DESCRIPTION="Addendum", TEXT="w3\n\nAllergies: w103\n\nEnd: x"),
            note(4, 2, CHARTDATE="2150-06-19", TEXT=three),  # joined by date, not by row
            note(5, 3, DESCRIPTION="Addendum"),
            note(6, 4),  # a newborn
            note(7, 5, TEXT=""),
            note(8, 5, TEXT=" \n "),
            note(9, 5, HADM_ID=""),
            note(10, 5, HADM_ID=999),
            note(11, 5, CATEGORY="Nursing"),
            note(12, 6, TEXT=body("w0"), CHARTDATE="2150-06-21"),
            note(13, 7, TEXT=body("w0"), CHARTDATE="2150-06-22"),  # the later of two identical texts stays
            note(14, 8, TEXT="Allergies: none\n\nSex: F"),
            note(15, 9, TEXT="Chief Complaint: w15\n\nSocial History: the pt has\ndied\n\nSex: F"),
            note(16, 10, TEXT="Chief Complaint: w16\n\nPhysical Exam: Cold. Patient expired. Pale.\n\nSex: F"),
        ]
        tables = admission_tables(
            tmp_path / "m", notes, a4={"ADMISSION_TYPE": "NEWBORN"}, a10={"HOSPITAL_EXPIRE_FLAG": 1}
        )
        counts = extract(tables, tmp_path / "out", A)
        assert words(tmp_path / "out") == {"1": ["w1", "w2"], "2": ["w100", "w101", "w3"], "7": ["w0"], "10": ["w16"]}
        found = examples(tmp_path / "out")
        assert found["10"]["text"] == "CHIEF COMPLAINT: w16\n\nPHYSICAL EXAM: Cold. Pale."
        assert {name: row["label"] for name, row in found.items()} == {"1": 0, "2": 0, "7": 0, "10": 1}
        assert found["1"]["subject_id"] == "1"
        assert steps(counts) == {
            "notes read": (16, 11, 10),
            "admission of no newborn": (15, 10, 9),
            "with text": (13, 10, 9),
            "with HADM_ID": (12, 10, 9),
            "admission in ADMISSIONS": (11, 9, 9),
            "admission of no organ donor": (11, 9, 9),
            "admission begun before death": (11, 9, 9),
            "admission that ends after it begins": (11, 9, 9),
            "admission charted, or not on the day of death": (11, 9, 9),
            "discharge summaries": (10, 8, 8),
            "no addendum from the day of death on": (10, 8, 8),
            "identical texts once": (9, 7, 7),
            "admissions with a Report": (8, 6, 6),
            "of one patient": (8, 6, 6),
            "with chief complaint, present illness or medical history": (7, 5, 5),
            "no outcome told (leak filter 2)": (6, 4, 4),
        }

    def test_nobody_is_admitted_dead(self, tmp_path: Path) -> None:
        cases: list[tuple[Row, str, str | None]] = [
            ({"DIAGNOSIS": "ORGAN DONOR ACCOUNT"}, "", "admission of no organ donor"),
            ({"DIAGNOSIS": "donor account"}, "", "admission of no organ donor"),
            ({"DIAGNOSIS": "LIVING KIDNEY DONOR"}, "", None),
            ({"DIAGNOSIS": "LIVING ORGAN DONOR"}, "", None),
            ({"DIAGNOSIS": "ORGAN DONOR;LIVER LACERATION"}, "", "admission of no organ donor"),
            ({"DIAGNOSIS": "S/P DECEASED DONOR KIDNEY TRANSPLANT"}, "", None),
            ({"DEATHTIME": NOON}, "", "admission begun before death"),
            ({"DEATHTIME": NOON + timedelta(seconds=1)}, "", None),
            ({}, "2150-06-14", "admission begun before death"),
            ({}, "2150-06-15", None),  # a date: in the evening, for all that is known
            ({"DEATHTIME": NOON + timedelta(days=2)}, "2150-06-14", None),  # a time counts before a date
            ({"DISCHTIME": NOON}, "", "admission that ends after it begins"),
            ({"DISCHTIME": ""}, "", None),
            ({"HAS_CHARTEVENTS_DATA": 0}, "2150-06-15", "admission charted, or not on the day of death"),
            ({"HAS_CHARTEVENTS_DATA": 0}, "2150-06-16", None),
        ]
        changes = {f"a{n}": change for n, (change, _, _) in enumerate(cases, 1)}
        tables = admission_tables(tmp_path / "m", [note(n, n) for n in range(1, len(cases) + 1)], **changes)
        write(tables, "PATIENTS", [{"SUBJECT_ID": n, "DOD": dod} for n, (_, dod, _) in enumerate(cases, 1)])
        counts = extract(tables, tmp_path / "out", A)
        kept = {str(n): [f"w{n}"] for n, (_, _, step) in enumerate(cases, 1) if step is None}
        assert words(tmp_path / "out") == kept
        trail = list(steps(counts).items())
        lost = {name: before[0] - after[0] for (_, before), (name, after) in pairwise(trail) if before != after}
        assert lost == Counter(step for _, _, step in cases if step)

    def test_a_second_account_of_the_dead_is_left_out(self, tmp_path: Path) -> None:
        tables = admission_tables(
            tmp_path / "m",
            [note(1, 1), note(2, 2), note(3, 3)],
            a1={"SUBJECT_ID": 7, "DEATHTIME": NOON + timedelta(days=1), "HOSPITAL_EXPIRE_FLAG": 1},
            a2={"SUBJECT_ID": 7, "ADMITTIME": NOON + timedelta(days=1), "DIAGNOSIS": "INTRACRANIAL HEMORRHAGE"},
        )
        counts = extract(tables, tmp_path / "out", A)
        assert set(words(tmp_path / "out")) == {"1", "3"}
        assert steps(counts)["admission begun before death"] == (2, 2, 2)

    def test_addenda_of_the_dead(self, tmp_path: Path) -> None:
        addendum = {"DESCRIPTION": "Addendum", "TEXT": "\n\nPhysical Exam: w9\n\nEnd: x"}
        days = {1: "2150-06-16", 2: "2150-06-17", 3: "2150-06-18"}
        notes = [note(n, n) for n in days] + [note(10 + n, n, CHARTDATE=day, **addendum) for n, day in days.items()]
        died = {f"a{n}": {"DEATHTIME": datetime(2150, 6, 17, 15)} for n in days}
        tables = admission_tables(tmp_path / "m", notes, **died)
        counts = extract(tables, tmp_path / "out", A)
        assert words(tmp_path / "out") == {"1": ["w1", "w9"], "2": ["w2"], "3": ["w3"]}
        assert steps(counts)["no addendum from the day of death on"] == (4, 3, 3)

    def test_filters_and_their_counts(self, tmp_path: Path) -> None:
        notes = [
            note(1, 1, TEXT=body("w1 Pt. expired in the ICU.")),
            note(2, 2, TEXT=body("w2 She died. Expired")),
            note(3, 3, TEXT=body("w3 her husband died in 2147")),
            note(4, 4, TEXT="Chief Complaint: w4\n\nPhysical Exam: Cold. Passed away. Died. Pale.\n\nSex: F"),
        ]
        tables = admission_tables(tmp_path / "m", notes)
        counts = extract(tables, tmp_path / "two", A)
        assert words(tmp_path / "two") == {"3": ["w3"], "4": ["w4"]}
        assert examples(tmp_path / "two")["4"]["text"] == "CHIEF COMPLAINT: w4\n\nPHYSICAL EXAM: Cold. Pale."
        assert counts["leak_filter_version"] == "2"
        assert counts["leak_filter"]["counts"] == "admissions"
        found = {row["rule"]: (row["dropped"], row["cut"]) for row in counts["leak_filter"]["rules"]}
        assert {rule: pair for rule, pair in found.items() if any(pair)} == {
            "expired": (2, 0),
            "died": (1, 1),
            "passed away": (0, 1),
        }
        assert tuple(found) == FILTERS["2"].rules
        counts = extract(tables, tmp_path / "published", A, leak_filter="published")
        assert set(words(tmp_path / "published")) == {"1", "2", "3", "4"}
        assert counts["leak_filter_version"] == "published"
        assert counts["leak_filter"]["rules"] == [{"rule": "published wording", "dropped": 0, "cut": 0}]
        assert list(steps(counts))[-1] == "no outcome told (leak filter published)"
        message = refusal(tables, tmp_path / "three", A, leak_filter="1")
        assert message == "there is no filter '1'; Allowed: 2, published"

    def test_missing_tables_and_columns_are_named(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        tables = admission_tables(tmp_path / "m", [note(1, 1)])
        short = {name: value for name, value in admission(1).items() if name != "DIAGNOSIS"}
        with (tables / "ADMISSIONS.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(short))
            writer.writeheader()
            writer.writerow(short)
        extract(tables, tmp_path / "out", A)
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert f"{tables / 'ADMISSIONS.csv'}: there is no column DIAGNOSIS; it counts as empty" in said
        assert f"{tables} holds no PATIENTS: deaths are known by DEATHTIME alone" in said

    def test_an_admission_of_two_patients_is_left_out(self, tmp_path: Path) -> None:
        tables = admission_tables(tmp_path / "m", [note(1, 1), note(2, 1, SUBJECT_ID=2), note(3, 3)])
        extract(tables, tmp_path / "out", A)
        assert words(tmp_path / "out") == {"3": ["w3"]}

    @pytest.mark.parametrize(
        ("notes", "changes", "step"),
        [
            ([], {}, "notes read"),
            ([note(1, 1)], {"a1": {"ADMISSION_TYPE": "NEWBORN"}}, "admission of no newborn"),
            ([note(1, 1, TEXT="")], {}, "with text"),
            ([note(1, 1, HADM_ID="")], {}, "with HADM_ID"),
            ([note(1, 1, HADM_ID=999)], {}, "admission in ADMISSIONS"),
            ([note(1, 1, CATEGORY="Nursing")], {}, "discharge summaries"),
            ([note(1, 1, DESCRIPTION="Addendum")], {}, "admissions with a Report"),
            ([note(1, 1, TEXT=SECRET)], {}, "with chief complaint, present illness or medical history"),
            ([note(1, 1, TEXT=body("pt died"))], {}, r"no outcome told \(leak filter 2\)"),
        ],
    )
    def test_a_step_that_leaves_nothing_is_an_error(self, tmp_path: Path, notes: Any, changes: Any, step: str) -> None:
        tables = admission_tables(tmp_path / "m", notes, **changes)
        assert re.match(f"the step '{step}' leaves nothing; ", refusal(tables, tmp_path / "out", A))
        assert [path.name for path in tmp_path.iterdir()] == ["m"]


class TestFirst48h:
    def tables(self, folder: Path, cases: list[Row], notes: list[Row] | None = None) -> Path:
        """Cases are ICU stays that change `p`, `a` or the stay itself."""
        patients, admissions, stays = {}, {}, []
        for number, case in enumerate(cases, 1):
            patients[number] = {"SUBJECT_ID": number, "DOB": "2100-01-01 00:00:00", "DOD": "", **case.get("p", {})}
            admissions[number] = admission(number, **case.get("a", {}))
            for stay in case.get("stays", [{}]):
                units = {"FIRST_CAREUNIT": "MICU", "LAST_CAREUNIT": "MICU", "FIRST_WARDID": 1, "LAST_WARDID": 1}
                times = {"INTIME": NOON, "OUTTIME": NOON + timedelta(hours=48)}
                stays.append({"SUBJECT_ID": number, "HADM_ID": number, **units, **times, **stay})
        write(folder, "PATIENTS", patients.values())
        write(folder, "ADMISSIONS", admissions.values())
        write(folder, "ICUSTAYS", stays)
        made = [self.note(number, number) for number in range(1, len(cases) + 1)]
        write(folder, "NOTEEVENTS", made if notes is None else notes)
        return folder

    @staticmethod
    def note(row: int, number: int, hours: float = 1, **changes: Any) -> Row:
        time = NOON + timedelta(seconds=round(3600 * hours))
        made = {"CHARTTIME": time, "CHARTDATE": time.date(), "CATEGORY": "Nursing", "TEXT": f"w{row} "}
        return note(row, number, **{**made, **changes})

    def test_who_is_in(self, tmp_path: Path) -> None:
        cases: list[tuple[Row, bool]] = [
            ({}, True),
            ({"stays": [{"LAST_CAREUNIT": "SICU"}]}, False),
            ({"stays": [{"LAST_WARDID": 2}]}, False),
            ({"stays": [{}, {}]}, False),
            ({"stays": [{}, {"LAST_WARDID": 2}]}, True),  # transfers go first
            ({"stays": [{"OUTTIME": NOON + timedelta(hours=48, seconds=-1)}]}, False),
            ({"stays": [{"OUTTIME": ""}]}, False),
            ({"p": {"DOB": "2132-06-15 00:00:00"}}, True),  # 18 that day
            ({"p": {"DOB": "2132-06-16 00:00:00"}}, False),
            ({"p": {"DOB": "1850-06-15 00:00:00"}}, True),  # over 89
            ({"p": {"DOB": ""}}, False),
            ({"p": {"SUBJECT_ID": 77}}, False),
            ({"a": {"HADM_ID": 77}}, False),
        ]
        extract(self.tables(tmp_path / "m", [case for case, _ in cases]), tmp_path / "out", B)
        found = examples(tmp_path / "out")
        assert [(case, str(number) in found) for number, (case, _) in enumerate(cases, 1)] == cases

    def test_the_label(self, tmp_path: Path) -> None:
        cases: list[tuple[Row, int]] = [
            ({}, 0),
            ({"p": {"DOD": "2150-06-20 00:00:00"}}, 1),
            ({"p": {"DOD": "2150-06-24 00:00:00"}}, 1),
            ({"p": {"DOD": "2150-06-25 00:00:00"}}, 0),  # after leaving
            ({"a": {"DEATHTIME": NOON + timedelta(hours=3)}}, 1),
            ({"a": {"DEATHTIME": NOON + timedelta(days=9)}}, 1),
            ({"a": {"DEATHTIME": NOON + timedelta(days=9, seconds=1)}}, 0),
            ({"a": {"HOSPITAL_EXPIRE_FLAG": 1}}, 0),  # this definition goes by dates
        ]
        extract(self.tables(tmp_path / "m", [case for case, _ in cases]), tmp_path / "out", B)
        found = examples(tmp_path / "out")
        assert [(case, found[str(number)]["label"]) for number, (case, _) in enumerate(cases, 1)] == cases

    def test_which_notes(self, tmp_path: Path) -> None:
        second = 1 / 3600
        notes = [
            self.note(1, 1, 48),
            self.note(2, 1, 0),
            self.note(3, 1, 48 + second),
            self.note(4, 1, -second),
            self.note(5, 1, CATEGORY="Discharge summary"),
            self.note(6, 1, ISERROR=1),
            self.note(7, 1, ISERROR=0),
            self.note(8, 1, CHARTTIME=""),
            self.note(9, 1, TEXT=" "),
            self.note(10, 1, HADM_ID=""),
            self.note(11, 1, HADM_ID="1.0", TEXT="her husband died w11"),
            self.note(12, 2, ISERROR="1.0"),
            self.note(13, 1, TEXT="the patient died w13"),
        ]
        counts = extract(self.tables(tmp_path / "m", [{}, {}], notes), tmp_path / "out", B)
        assert words(tmp_path / "out") == {"1": ["w2", "w7", "w11", "w1"]}
        assert examples(tmp_path / "out")["1"]["text"] == "w2\n\nw7\n\nher husband died w11\n\nw1"
        assert list(steps(counts).items())[-8:] == [
            ("notes of these stays' admissions", (12, 2, 2)),
            ("with text", (11, 2, 2)),
            ("no discharge summaries", (10, 2, 2)),
            ("not marked as error", (8, 1, 1)),
            ("with CHARTTIME", (7, 1, 1)),
            ("charted in the first 48 h", (5, 1, 1)),
            ("charted and stored before death", (5, 1, 1)),
            ("no outcome told (leak filter 2)", (4, 1, 1)),
        ]
        assert counts["leak_filter"]["counts"] == "notes"
        assert {row["rule"]: row["dropped"] for row in counts["leak_filter"]["rules"] if row["dropped"]} == {"died": 1}
        counts = extract(tmp_path / "m", tmp_path / "published", B, leak_filter="published")
        assert words(tmp_path / "published") == {"1": ["w2", "w7", "w11", "w13", "w1"]}
        assert counts["leak_filter_version"] is None
        assert counts["leak_filter"] is None

    @pytest.mark.parametrize(
        ("case", "kept"),
        [
            ({"a": {"DEATHTIME": NOON + timedelta(hours=20)}}, ["w2", "w3"]),
            ({"a": {"DEATHTIME": NOON + timedelta(hours=10)}}, ["w2"]),  # stored an hour later than charted
            ({"a": {"DEATHTIME": NOON + timedelta(hours=20)}, "p": {"DOD": "2150-06-16"}}, ["w2", "w3"]),
            ({"p": {"DOD": "2150-06-16"}}, ["w2", "w3"]),  # a date: from midnight on, which is 12 h after the first
            ({"p": {"DOD": "2150-06-15"}}, None),
            ({"a": {"DEATHTIME": NOON, "ADMITTIME": NOON - timedelta(hours=3)}}, None),  # dead before the stay
            ({"a": {"DIAGNOSIS": "ORGAN DONOR"}}, None),
            ({"a": {"DISCHTIME": NOON - timedelta(hours=1)}}, None),
            ({}, ["w2", "w3", "w4", "w5"]),
        ],
    )
    def test_no_note_from_death_on(self, tmp_path: Path, case: Row, kept: list[str] | None) -> None:
        stored = NOON + timedelta(hours=10, minutes=30)
        notes = [
            self.note(1, 1),
            self.note(2, 2, 3, STORETIME=NOON + timedelta(hours=3)),
            self.note(3, 2, 9.5, STORETIME=stored),
            self.note(4, 2, 20),
            self.note(5, 2, 22),
            self.note(6, 2, CHARTTIME=""),
        ]
        counts = extract(self.tables(tmp_path / "m", [{}, case], notes), tmp_path / "out", B)
        assert words(tmp_path / "out") == {"1": ["w1"], **({"2": kept} if kept else {})}
        assert counts["deaths_within_48h"] == int(bool(kept) and bool(case))
        assert steps(counts)["charted and stored before death"][0] == 1 + len(kept or [])

    def test_a_step_that_leaves_nothing_is_an_error(self, tmp_path: Path) -> None:
        tables = self.tables(tmp_path / "m", [{"stays": [{"LAST_WARDID": 2}]}])
        expected = "the step 'stays without transfer' leaves nothing; before it there were 1"
        assert refusal(tables, tmp_path / "out", B) == expected
        tables = self.tables(tmp_path / "m", [{}], [self.note(1, 1, 49)])
        assert "'charted in the first 48 h' leaves nothing" in refusal(tables, tmp_path / "out", B)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "tables"
    write_synthetic(folder, 420, seed=5)
    return folder


def read(folder: Path, table: str) -> list[dict[str, str]]:
    with (folder / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def count(rows: list[dict[str, str]]) -> tuple[int, int, int]:
    return len(rows), len({r["HADM_ID"] for r in rows} - {""}), len({r["SUBJECT_ID"] for r in rows})


def slow_deaths(folder: Path) -> dict[str, str]:
    """Return each patient's first DEATHTIME, or DOD, or the end of time."""
    deaths = {row["SUBJECT_ID"]: row["DOD"] or "9999" for row in read(folder, "PATIENTS")}
    times: dict[str, str] = {}
    for row in read(folder, "ADMISSIONS"):
        if row["DEATHTIME"]:
            times[row["SUBJECT_ID"]] = min(row["DEATHTIME"], times.get(row["SUBJECT_ID"], "9999"))
    return {**deaths, **times}


def slow_alive(folder: Path) -> list[Any]:
    """Return a test of rows for each step against admissions of the dead."""
    every, death = {row["HADM_ID"]: row for row in read(folder, "ADMISSIONS")}, slow_deaths(folder)

    def begun_before_death(row: dict[str, str]) -> bool:
        begin, end = every[row["HADM_ID"]]["ADMITTIME"], death[row["SUBJECT_ID"]]
        return begin[:10] <= end[:10] if end.endswith("00:00:00") else begin < end

    return [
        lambda row: "ORGAN DONOR" not in every[row["HADM_ID"]]["DIAGNOSIS"],
        begun_before_death,
        lambda row: every[row["HADM_ID"]]["ADMITTIME"] < every[row["HADM_ID"]]["DISCHTIME"],
        lambda row: (
            every[row["HADM_ID"]]["HAS_CHARTEVENTS_DATA"] == "1"
            or every[row["HADM_ID"]]["ADMITTIME"][:10] != death[row["SUBJECT_ID"]][:10]
        ),
    ]


def slow_told(texts: list[str]) -> list[str]:
    return [text for text in texts if not list(FILTERS["2"].leaks(text, False, sex_of("\n".join(texts))))]


def slow_admission_notes(folder: Path) -> tuple[list[tuple[int, int, int]], dict[str, tuple[str, int]]]:
    """Do the same with lists and dictionaries, a step at a time."""
    every = {row["HADM_ID"]: row for row in read(folder, "ADMISSIONS")}
    born = {name for name, row in every.items() if row["ADMISSION_TYPE"] == "NEWBORN"}
    notes = read(folder, "NOTEEVENTS")
    death = slow_deaths(folder)
    trail = [count(notes)]
    for keep in (
        lambda r: r["HADM_ID"] not in born,
        lambda r: r["TEXT"].strip(),
        lambda r: r["HADM_ID"],
        lambda r: r["HADM_ID"] in every,
        *slow_alive(folder),
        lambda r: r["CATEGORY"] == "Discharge summary",
        lambda r: r["DESCRIPTION"] == "Report" or r["CHARTDATE"] < death[r["SUBJECT_ID"]][:10],
    ):
        notes = [row for row in notes if keep(row)]
        trail.append(count(notes))
    notes.sort(key=lambda row: (row["CHARTDATE"], int(row["ROW_ID"])))
    notes = list({row["TEXT"]: row for row in notes}.values())
    trail.append(count(notes))
    notes.sort(key=lambda row: (row["CHARTDATE"], int(row["ROW_ID"])))
    reported = {row["HADM_ID"] for row in notes if row["DESCRIPTION"] == "Report"}
    notes = [row for row in notes if row["HADM_ID"] in reported]
    trail += [count(notes)] * 2
    joined: dict[str, str] = {}
    for row in notes:
        joined[row["HADM_ID"]] = (joined.get(row["HADM_ID"], "") + "\n\n" + row["TEXT"].strip()).strip()
    found = {name: slow_note(text) for name, text in joined.items()}
    for bad in (None, ""):
        notes = [row for row in notes if found[row["HADM_ID"]] != bad and found[row["HADM_ID"]] is not None]
        trail.append(count(notes))
    return trail, {n: (t, int(every[n]["HOSPITAL_EXPIRE_FLAG"])) for n, t in found.items() if t}


def slow_note(text: str) -> str | None:
    """Return None without a main section, and an empty text for a leak."""
    sections = slow_sections(text)
    if not {"chief complaint", "present illness", "medical history"} & set(sections):
        return None
    clean = without_leaks(sections, FILTERS["2"])
    return "" if clean is None else "\n\n".join(f"{name.upper()}: {body}" for name, body in clean.items())


def slow_sections(text: str) -> dict[str, str]:
    found = {}
    for name in SECTIONS:
        _, match, rest = (lambda p: (text[:p], p >= 0, text[p + len(name) + 1 :]))(text.lower().find(f"{name}:"))
        parts = re.split(r"\n\s*?\n(?=[^()|.\\\d\n:]+:)", rest)
        if match and len(parts) > 1 and parts[0].strip():
            found[name] = " ".join(parts[0].split())
    return found


def slow_first_48h(folder: Path) -> tuple[list[tuple[int, int, int]], dict[str, tuple[str, int]]]:
    def time(text: str) -> datetime | None:
        return datetime.fromisoformat(text) if text else None

    patients = {row["SUBJECT_ID"]: row for row in read(folder, "PATIENTS")}
    admissions = {row["HADM_ID"]: row for row in read(folder, "ADMISSIONS")}
    stays = read(folder, "ICUSTAYS")
    trail = [count(stays)] * 2
    for alive in slow_alive(folder):
        stays = [stay for stay in stays if alive(stay)]
        trail.append(count(stays))
    death = slow_deaths(folder)
    stays = [s for s in stays if (s["FIRST_CAREUNIT"], s["FIRST_WARDID"]) == (s["LAST_CAREUNIT"], s["LAST_WARDID"])]
    trail.append(count(stays))
    ids = [stay["HADM_ID"] for stay in stays]
    stays = [stay for stay in stays if ids.count(stay["HADM_ID"]) == 1]
    trail.append(count(stays))

    def age(stay: dict[str, str]) -> int:
        born, now = time(patients[stay["SUBJECT_ID"]]["DOB"]), time(stay["INTIME"])
        assert born
        assert now
        return now.year - born.year - ((now.month, now.day) < (born.month, born.day))

    stays = [stay for stay in stays if age(stay) >= 18]
    trail.append(count(stays))
    two_days = timedelta(hours=48)
    stays = [s for s in stays if time(s["OUTTIME"]) - time(s["INTIME"]) >= two_days]  # type: ignore[operator]
    trail.append(count(stays))
    stays = [stay for stay in stays if stay["INTIME"] < death[stay["SUBJECT_ID"]]]
    trail.append(count(stays))
    begin = {stay["HADM_ID"]: time(stay["INTIME"]) for stay in stays}
    notes = [row for row in read(folder, "NOTEEVENTS") if row["HADM_ID"] in begin]
    trail.append(count(notes))
    keeps: list[Callable[[dict[str, str]], Any]] = [
        lambda r: r["TEXT"].strip(),
        lambda r: r["CATEGORY"] != "Discharge summary",
        lambda r: r["ISERROR"] != "1",
        lambda r: r["CHARTTIME"],
        lambda r: begin[r["HADM_ID"]] <= time(r["CHARTTIME"]) <= begin[r["HADM_ID"]] + two_days,  # type: ignore
        lambda r: max(r["CHARTTIME"], r["STORETIME"]) < death[r["SUBJECT_ID"]],
    ]
    for keep in keeps:
        notes = [row for row in notes if keep(row)]
        trail.append(count(notes))
    texts: dict[str, list[str]] = {}
    for row in sorted(notes, key=lambda row: (row["CHARTTIME"], int(row["ROW_ID"]))):
        texts.setdefault(row["HADM_ID"], []).append(row["TEXT"].strip())
    told = {name: slow_told(found) for name, found in texts.items()}
    notes = [row for row in notes if row["TEXT"].strip() in told[row["HADM_ID"]]]
    trail.append(count(notes))
    joined = {name: "\n\n".join(found) for name, found in told.items() if found}

    def label(name: str) -> int:
        row = admissions[name]
        ends = (patients[row["SUBJECT_ID"]]["DOD"], row["DEATHTIME"])
        return int(any(row["ADMITTIME"] <= end <= row["DISCHTIME"] for end in ends if end))

    return trail, {name: (text, label(name)) for name, text in joined.items()}


class TestAgainstTheReference:
    @pytest.mark.parametrize(("definition", "slow"), [(A, slow_admission_notes), (B, slow_first_48h)])
    def test_counts_and_texts_agree(self, synthetic: Path, tmp_path: Path, definition: str, slow: Any) -> None:
        counts = extract(synthetic, tmp_path / "out", definition)
        trail, expected = slow(synthetic)
        assert list(steps(counts).values()) == trail
        found = examples(tmp_path / "out")
        assert {name: (row["text"], row["label"]) for name, row in found.items()} == expected
        assert json.loads((tmp_path / "out" / "counts.json").read_text()) == counts
        rules = counts["leak_filter"]["rules"]
        assert all(row["dropped"] and (row["cut"] or definition == B) for row in rules)
        numbers = [step["rows"] for step in counts["steps"]]
        assert [counts["steps"][n]["step"] for n in range(1, len(numbers)) if numbers[n] == numbers[n - 1]] == [
            {A: "of one patient", B: "stays with patient and admission"}[definition]
        ]

    @pytest.mark.parametrize("definition", [A, B])
    def test_row_order_case_and_gzip_change_nothing(self, synthetic: Path, tmp_path: Path, definition: str) -> None:
        other = tmp_path / "other [1]*"  # DuckDB would take this for a pattern
        other.mkdir()
        for path in synthetic.iterdir():
            header, *rows = list(csv.reader(io.StringIO(path.read_text(), newline="")))
            random.Random(1).shuffle(rows)
            with gzip.open(other / f"{path.stem.lower()}.csv.gz", "wt", newline="") as file:
                csv.writer(file, quoting=csv.QUOTE_ALL).writerows([[name.lower() for name in header], *rows])
        one, two = extract(synthetic, tmp_path / "one", definition), extract(other, tmp_path / "two", definition)
        assert {**one, "input_bytes": 0} == {**two, "input_bytes": 0}
        for part in ("train", "dev", "test"):
            assert (tmp_path / "one" / f"{part}.jsonl").read_bytes() == (
                tmp_path / "two" / f"{part}.jsonl"
            ).read_bytes()


class TestSplits:
    def test_patients_keep_apart_and_the_seed_decides(self, synthetic: Path, tmp_path: Path) -> None:
        kept = {}
        for seed in (0, 1):
            counts = extract(synthetic, tmp_path / str(seed), A, seed=seed)
            parts = {}
            for part in ("train", "dev", "test"):
                rows = [json.loads(line) for line in (tmp_path / str(seed) / f"{part}.jsonl").read_text().splitlines()]
                parts[part] = {row["subject_id"] for row in rows}
                died = sum(row["label"] for row in rows)
                held = {"admissions": len(rows), "patients": len(parts[part]), "positive": died}
                assert counts["splits"][part] == held
            assert sum(len(part) for part in parts.values()) == len(set.union(*parts.values()))
            kept[seed] = parts
        assert kept[0] != kept[1]

    def test_shares(self) -> None:
        names = [split_of(str(number), 3) for number in range(10_000)]
        assert [round(names.count(part) / 10_000, 1) for part in ("train", "dev", "test")] == [0.7, 0.1, 0.2]


class TestRefusals:
    @pytest.fixture
    def tables(self, tmp_path: Path) -> Path:
        secret = [note(n, n, TEXT=body(f"{SECRET} {n}")) for n in range(1, 40)]
        return admission_tables(tmp_path / "m", secret)

    def test_names_and_places(self, tables: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        message = refusal(tables, out, "first-48")
        assert (
            message
            == "there is no definition 'first-48'; did you mean 'first-48h'? Allowed: admission-notes, first-48h"
        )
        assert "--memory 10 is too little" in refusal(tables, out, A, memory_mb=10)
        assert f"there is no folder {tmp_path / 'none'}" in refusal(tmp_path / "none", out, A)
        message = refusal(tables, out, B)
        assert message == (
            f"{tables} holds no PATIENTS.csv or PATIENTS.csv.gz; tables there: ADMISSIONS.csv, NOTEEVENTS.csv"
        )
        assert not out.exists()

    def test_a_folder_in_use(self, tables: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("x")
        assert "holds files; give a folder that is new or empty" in refusal(tables, tmp_path / "out", A)
        assert (tmp_path / "out" / "mine").read_text() == "x"
        assert "it is a file" in refusal(tables, tmp_path / "out" / "mine", A)

    def test_a_missing_column(self, tables: Path, tmp_path: Path) -> None:
        path = tables / "NOTEEVENTS.csv"
        path.write_text(path.read_text().replace("CATEGORY", "KIND", 1))
        message = refusal(tables, tmp_path / "out", A)
        assert message.startswith(f"{path}: there is no column CATEGORY; its first line has ROW_ID, SUBJECT_ID")

    def test_no_header(self, tables: Path, tmp_path: Path) -> None:
        path = tables / "NOTEEVENTS.csv"
        path.write_text(f"1,2,{SECRET} came in\n")
        assert "3 cells, not all of them names of columns" in refusal(tables, tmp_path / "out", A)

    def test_an_empty_file(self, tables: Path, tmp_path: Path) -> None:
        (tables / "NOTEEVENTS.csv").write_text("")
        assert "there is no column ROW_ID; its first line has nothing" in refusal(tables, tmp_path / "out", A)

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda text: text + f"1,2,{SECRET}\n", "row 40: 3 cells, the header has 10"),
            (
                lambda text: text[: text.rindex(SECRET) + 20],
                "a quote is out of place near line 230, or the file is cut off",
            ),
            (lambda text: text.replace('""quoted""', '"quoted"', 1), "a quote is out of place near line 2"),
            (
                lambda text: text.replace("\n2,2,", f"\n2,{SECRET},", 1),
                "1 rows hold something else than a whole number",
            ),
            (lambda text: text.replace("2150-06-20", SECRET, 3), "3 rows hold something else than a date under CHART"),
            (lambda text: text.replace(SECRET, SECRET + "\udcff", 1), "it is not UTF-8"),
        ],
    )
    def test_a_malformed_row_is_not_quoted(self, tables: Path, tmp_path: Path, damage: Any, said: str) -> None:
        path = tables / "NOTEEVENTS.csv"
        path.write_bytes(damage(path.read_text()).encode(errors="surrogateescape"))
        message = refusal(tables, tmp_path / "out", A)
        assert str(path) in message
        assert said in message
        assert [each.name for each in tmp_path.iterdir()] == ["m"]

    def test_too_long_a_row(self, tables: Path, tmp_path: Path) -> None:
        write(tables, "NOTEEVENTS", [note(1, 1, TEXT=SECRET * (MAX_CELL // len(SECRET) + 1))])
        assert "a cell is too long near line 2" in refusal(tables, tmp_path / "out", A)

    @pytest.mark.parametrize(
        "damage", [lambda data: data[:-30], lambda data: data[:60] + b"xx" * 30, lambda data: b"no"]
    )
    def test_a_damaged_gzip_stream(self, tables: Path, tmp_path: Path, damage: Any) -> None:
        path = tables / "NOTEEVENTS.csv"
        (tables / "NOTEEVENTS.csv.gz").write_bytes(damage(gzip.compress(path.read_bytes())))
        path.unlink()
        assert "NOTEEVENTS.csv.gz: the gzip stream is damaged or cut off" in refusal(tables, tmp_path / "out", A)

    def test_keys_and_flags(self, tables: Path, tmp_path: Path) -> None:
        write(tables, "ADMISSIONS", [admission(1), admission(1)])
        assert "ADMISSIONS.csv: several rows have HADM_ID 1" in refusal(tables, tmp_path / "out", A)
        write(tables, "ADMISSIONS", [admission(1, HOSPITAL_EXPIRE_FLAG=2)])
        assert "HADM_ID 1: HOSPITAL_EXPIRE_FLAG is neither 0 nor 1" in refusal(tables, tmp_path / "out", A)

    def test_without_duckdb(self, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "duckdb", None)
        assert "pip install 'plankwise[mimic]'" in refusal(tables, tmp_path / "out", A)


def test_only_the_owner_may_read_and_nothing_else_stays(tmp_path: Path) -> None:
    tables = admission_tables(tmp_path / "m", [note(n, n) for n in range(1, 40)])
    extract(tables, tmp_path / "out", A)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "counts.json",
        "dev.jsonl",
        "test.jsonl",
        "train.jsonl",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "out"]


def test_very_long_notes_pass(tmp_path: Path) -> None:
    long = "Chief Complaint: " + "so it went on " * 400_000 + "\n\nSex: F"
    tables = admission_tables(tmp_path / "m", [note(1, 1, TEXT=long), note(2, 2)])
    extract(tables, tmp_path / "out", A)
    assert len(examples(tmp_path / "out")["1"]["text"]) > 5_000_000
