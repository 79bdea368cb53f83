"""The synthetic tables: their schema, their traps, and a label that shows in the words and in nothing else."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from plankwise.core.errors import DataError, OutputError
from plankwise.data.mimic.extraction import extract
from plankwise.data.mimic.leaks import FILTERS
from plankwise.data.mimic.sections import sections_of
from plankwise.data.mimic.synthetic import COLUMNS, TRAPS, write_synthetic
from plankwise.data.mimic.synthetic_notes import LEAKS, RELATIVES

MARKER = "Zzyzxmarker"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "tables"
    write_synthetic(folder, 1500, seed=1, marker=MARKER)
    return folder


def read(folder: Path, table: str) -> list[dict[str, str]]:
    with (folder / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def has_leak(text: str, version: str = "2") -> bool:
    return any(FILTERS[version].leaks(text, False, ""))


def test_the_schema_and_keys(tables: Path) -> None:
    rows = {table: read(tables, table) for table in COLUMNS}
    for table, columns in COLUMNS.items():
        assert list(rows[table][0]) == columns.split(",")
        assert [row["ROW_ID"] for row in rows[table]] == [str(n) for n in range(1, len(rows[table]) + 1)]
    admissions = {row["HADM_ID"]: row["SUBJECT_ID"] for row in rows["ADMISSIONS"]}
    assert len(admissions) == len(rows["ADMISSIONS"]) == 1500
    assert set(admissions.values()) == {row["SUBJECT_ID"] for row in rows["PATIENTS"]}
    assert max(Counter(admissions.values()).values()) in (3, 4)
    for row in rows["ICUSTAYS"]:
        assert admissions[row["HADM_ID"]] == row["SUBJECT_ID"]
    died = np.mean([int(row["HOSPITAL_EXPIRE_FLAG"]) for row in rows["ADMISSIONS"]])
    assert 0.1 < died < 0.4


def test_every_trap_is_planted(tables: Path) -> None:
    notes, stays = read(tables, "NOTEEVENTS"), read(tables, "ICUSTAYS")
    summaries = [row for row in notes if row["CATEGORY"] == "Discharge summary" and row["DESCRIPTION"] == "Report"]
    texts = [row["TEXT"] for row in summaries if row["TEXT"].strip()]
    assert {row["DESCRIPTION"] for row in notes} == {"Report", "Addendum"}
    assert max(Counter(texts).values()) == 2
    assert [row for row in notes if not row["HADM_ID"]]
    assert [row for row in notes if not row["TEXT"].strip()]
    assert [row for row in notes if row["ISERROR"] == "1"]
    assert [row for row in summaries if row["CHARTTIME"]]
    assert [text for text in texts if re.search("[a-z][A-Z]+[a-z]+ C[a-z]*O", text)]
    assert sum("\n" in text and '"' in text for text in texts) > 0.9 * len(texts)
    for name in ("physical exam", "medications on admission", "present illness", "social history"):
        assert [text for text in texts if has_leak(sections_of(text).get(name, ""))], name
    assert all(has_leak(leak) for leak in LEAKS)
    assert all(has_leak(leak, "published") for leak in LEAKS[:8])
    assert not any(has_leak(leak, "published") for leak in LEAKS[8:])
    assert not any(has_leak(each) for each in RELATIVES)
    assert [row for row in stays if row["FIRST_CAREUNIT"] != row["LAST_CAREUNIT"]]
    assert [row for row in stays if row["FIRST_WARDID"] != row["LAST_WARDID"]]
    assert max(Counter(row["HADM_ID"] for row in stays).values()) == 2
    born = sorted(row["DOB"] for row in read(tables, "PATIENTS"))
    assert born[0] < "1900"
    assert born[-1] > "2120"
    assert "NEWBORN" in {row["ADMISSION_TYPE"] for row in read(tables, "ADMISSIONS")}


def test_the_same_seed_gives_the_same_bytes_and_each_trap_comes_early(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        write_synthetic(tmp_path / name, 2 * len(TRAPS), seed=seed)
    for table in COLUMNS:
        one, two, three = ((tmp_path / name / f"{table}.csv").read_bytes() for name in ("one", "two", "three"))
        assert one == two != three


@pytest.mark.parametrize("definition", ["admission-notes", "first-48h"])
def test_the_label_shows_in_the_words_and_not_in_the_traps(tables: Path, tmp_path: Path, definition: str) -> None:
    extract(tables, tmp_path / "out", definition)
    splits = {}
    for part in ("train", "test"):
        rows = [json.loads(line) for line in (tmp_path / "out" / f"{part}.jsonl").read_text().splitlines()]
        splits[part] = ([row["text"] for row in rows], [row["label"] for row in rows])
    assert all(MARKER in text for text in splits["train"][0])
    assert not any(has_leak(text) for text in splits["train"][0] if definition == "admission-notes")

    def auroc(vectorizer: CountVectorizer) -> float:
        train = vectorizer.fit_transform(splits["train"][0])
        model = LogisticRegression(C=0.1, max_iter=1000).fit(train, splits["train"][1])
        scores = model.decision_function(vectorizer.transform(splits["test"][0]))
        return float(roc_auc_score(splits["test"][1], scores))

    assert auroc(CountVectorizer(binary=True, max_features=500)) > 0.75
    oddities = ["warm", "skin", "04", "10", "she", "was", "partial", "echo", "dr", "addendum", "changed"]
    assert abs(auroc(CountVectorizer(vocabulary=oddities)) - 0.5) < 0.1


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--admissions 0: give at least 1"):
        write_synthetic(tmp_path / "out", 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="holds files"):
        write_synthetic(tmp_path, 5)
    with pytest.raises(OutputError, match="it is a file"):
        write_synthetic(tmp_path / "file", 5)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
