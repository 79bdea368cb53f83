"""MIMIC-III in-hospital mortality: notes in, patient-disjoint splits and a count for every step out.

The text is credentialed. It goes from the tables through a database in the output's temporary folder, which only the
owner may enter, into the split files, and nowhere else: messages and counts hold ids and numbers.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from plankwise.core.errors import DataError, OutputError, suggest
from plankwise.core.files import atomic_folder, make_writable_folder, write_json
from plankwise.core.paths import check_folder, tidy
from plankwise.core.progress import bar
from plankwise.data.mimic.cohorts import Steps, admission_notes, first_48h
from plankwise.data.mimic.leaks import FILTERS
from plankwise.data.mimic.readers import AdmissionNotes, EveryNote, Reader, UntoldNotes
from plankwise.data.mimic.tables import connect, explained

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ADMISSION_NOTES, FIRST_48H = "admission-notes", "first-48h"
DEFAULT_FILTER = "2"
COHORTS = {ADMISSION_NOTES: admission_notes, FIRST_48H: first_48h}
SHARES = {"train": 0.7, "dev": 0.1, "test": 0.2}
MIN_MEMORY_MB = 256
HELD_CHARACTERS = 32 << 20  # of notes held at a time
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One admission: its notes joined by date, and whether the patient died in hospital."""

    id: str
    subject_id: str
    text: str
    label: int


@dataclass
class Tally:
    """Counts of examples that passed a step."""

    admissions: int = 0
    positive: int = 0
    notes: int = 0
    subjects: set[str] = field(default_factory=set)

    def add(self, example: Example, notes: int) -> None:
        """Count one."""
        self.admissions += 1
        self.notes += notes
        self.positive += example.label
        self.subjects.add(example.subject_id)


def extract(
    folder: Path,
    out: Path,
    definition: str,
    seed: int = 0,
    memory_mb: int = 512,
    progress: bool = False,
    leak_filter: str = DEFAULT_FILTER,
) -> dict[str, Any]:
    """Write `train.jsonl`, `dev.jsonl`, `test.jsonl` and `counts.json` into `out`.

    Each line has `id` (HADM_ID), `subject_id`, `text` and `label` (1: died). The same tables and seed give the same
    bytes, whatever the order of their rows.

    Args:
        folder: holds MIMIC-III's tables as .csv or .csv.gz.
        out: a folder that is new or empty.
        definition: `admission-notes` or `first-48h`.
        seed: of the hash that assigns patients to splits.
        memory_mb: memory for DuckDB; the rest spills into the output's temporary folder.
        progress: show bars where standard error is a terminal.
        leak_filter: version of the filter that finds outcomes told in a note, `2` or `published`.

    Returns:
        What `counts.json` holds.

    Raises:
        DataError: if a table is missing or damaged, a step leaves nothing, or a setting is wrong.
        OutputError: if `out` holds files or cannot be written to.
    """
    _check_settings(definition, leak_filter, memory_mb)
    out = free_folder(out)
    with atomic_folder(out, private=True) as made:
        work = made / ".work"
        work.mkdir()
        steps = Steps()
        with closing(connect(work, memory_mb)) as connection:
            COHORTS[definition](connection, folder, steps, progress)
            reader = _reader(definition, leak_filter)
            splits = _write(connection, made, reader, steps, seed, progress)
            early = _deaths_within_48h(connection) if definition == FIRST_48H else {}
        rmtree(work)
        counts = {**_counts(folder, definition, steps, seed, splits), **early, **reader.counted()}
        write_json(made / "counts.json", counts)
    for name, tally in splits.items():
        if not 0 < tally.positive < tally.admissions:
            log.warning("the %s split has %d positives of %d", name, tally.positive, tally.admissions)
    return counts


def _check_settings(definition: str, leak_filter: str, memory_mb: int) -> None:
    if definition not in COHORTS:
        raise DataError(f"there is no definition '{definition}'; {suggest(definition, COHORTS)}")
    if leak_filter not in FILTERS:
        raise DataError(f"there is no filter '{leak_filter}'; {suggest(leak_filter, FILTERS)}")
    if memory_mb < MIN_MEMORY_MB:
        raise DataError(f"--memory {memory_mb} is too little; give at least {MIN_MEMORY_MB} (MB)")


def free_folder(path: Path) -> Path:
    """Return the absolute path of a folder that is new or empty and can be created.

    Raises:
        OutputError: otherwise.
    """
    path = check_folder(path).resolve()
    if path.exists() and not path.is_dir():
        raise OutputError(f"cannot write to {path}: it is a file")
    if path.is_dir() and any(path.iterdir()):
        raise OutputError(f"{path} holds files; give a folder that is new or empty")
    make_writable_folder(path.parent)
    tidy(path.parent)
    return path


def split_of(subject_id: str, seed: int) -> str:
    """Return the split of a patient, by a seeded hash."""
    digest = hashlib.sha256(f"{seed}/{subject_id}".encode()).hexdigest()
    place = int(digest[:8], 16) / 16**8
    if place < SHARES["train"]:
        return "train"
    return "dev" if place < SHARES["train"] + SHARES["dev"] else "test"


def _reader(definition: str, version: str) -> Reader:
    """Return how notes are read; the published filter leaves the notes of the first 48 h alone."""
    leak_filter = FILTERS[version]
    if definition == ADMISSION_NOTES:
        return AdmissionNotes(leak_filter)
    return EveryNote(leak_filter) if version == "published" else UntoldNotes(leak_filter)


def _write(
    connection: DuckDBPyConnection, made: Path, reader: Reader, steps: Steps, seed: int, progress: bool
) -> dict[str, Tally]:
    """Write the splits, one admission at a time, and append the steps that check text."""
    splits = {name: Tally() for name in SHARES}
    passing = {name: Tally() for name in reader.steps}
    log.info("writing admissions")
    with ExitStack() as stack:
        files = {name: stack.enter_context((made / f"{name}.jsonl").open("w", encoding="utf-8")) for name in SHARES}
        show = stack.enter_context(bar("writing admissions", steps[-1].admissions, progress))
        for number, (admission, subject, label, texts) in enumerate(_admissions(connection), 1):
            passed, notes, text = reader.read(texts)
            example = Example(admission, subject, text, label)
            for tally in list(passing.values())[:passed]:
                tally.add(example, notes)
            if passed >= len(passing):
                name = split_of(subject, seed)
                splits[name].add(example, notes)
                files[name].write(json.dumps(asdict(example), ensure_ascii=False) + "\n")
            show(number)
    for name, tally in passing.items():
        steps.add(name, tally.notes, tally.admissions, len(tally.subjects))
    return splits


def _admissions(connection: DuckDBPyConnection) -> Iterator[tuple[str, str, int, list[str]]]:
    """Yield admissions in the order of their ids: id, patient, label and the texts of its notes by date."""
    query = """SELECT hadm_id, c.subject_id, c.label, t.text FROM texts t JOIN chosen c USING (hadm_id)
        WHERE hadm_id BETWEEN ? AND ? ORDER BY hadm_id, t.moment NULLS FIRST, t.row_id NULLS FIRST, t.digest"""
    for first, last in _ranges(connection):
        with explained("the notes"):
            found = connection.execute(query, [first, last]).fetchall()
        for (admission, subject, label), rows in groupby(found, key=lambda row: row[:3]):
            yield str(admission), str(subject), int(label), [row[3].strip() for row in rows]


def _deaths_within_48h(connection: DuckDBPyConnection) -> dict[str, int]:
    """Count the admissions with notes whose patient died within the 48 h, or on a day that begins within them."""
    query = """SELECT count(DISTINCT hadm_id) FROM chosen JOIN texts USING (hadm_id)
        WHERE label = 1 AND death < intime + INTERVAL 48 HOUR"""
    row = connection.execute(query).fetchone()
    return {"deaths_within_48h": int(row[0]) if row else 0}


def _ranges(connection: DuckDBPyConnection) -> list[tuple[int, int]]:
    """Cut the admissions into ranges of ids whose texts fit into memory: sorting all texts at once would not."""
    query = "SELECT hadm_id, sum(characters) FROM texts JOIN chosen USING (hadm_id) GROUP BY hadm_id ORDER BY hadm_id"
    with explained("the notes"):
        sizes = connection.execute(query).fetchall()
    ranges: list[tuple[int, int]] = []
    held = HELD_CHARACTERS
    for admission, characters in sizes:
        if held + characters > HELD_CHARACTERS:
            ranges.append((admission, admission))
            held = 0
        ranges[-1] = (ranges[-1][0], admission)
        held += characters
    return ranges


def _counts(folder: Path, definition: str, steps: Steps, seed: int, splits: dict[str, Tally]) -> dict[str, Any]:
    """Put together what `counts.json` holds: numbers, no text."""
    inputs = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if _is_input(path, definition)}
    return {
        "definition": definition,
        "seed": seed,
        "input_bytes": inputs,
        "steps": [asdict(step) for step in steps],
        "splits": {
            name: {"admissions": tally.admissions, "patients": len(tally.subjects), "positive": tally.positive}
            for name, tally in splits.items()
        },
    }


def _is_input(path: Path, definition: str) -> bool:
    tables = {"admissions", "noteevents", "patients"} | ({"icustays"} if definition == FIRST_48H else set())
    name = path.name.lower()
    return path.is_file() and name.split(".")[0] in tables and name.endswith((".csv", ".csv.gz"))
