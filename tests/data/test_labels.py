"""Labels that a recipe renames, merges or drops, whatever kind of file they come from."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from plankwise.core.errors import DataError, RecipeError
from plankwise.core.recipe import read_recipe, to_plain, validate
from plankwise.data.labels import plain
from plankwise.data.table_rows import KINDS
from plankwise.data.tables import HubDataset, Table


def write(path: Path, columns: dict[str, list]) -> Path:
    frame = pd.DataFrame(columns)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text(
            "".join(
                json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in zip(*columns.values(), strict=True)
            )
        )
    else:
        frame.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    return path


def columns(labels: list, times: int = 24) -> dict[str, list]:
    every = labels * times
    return {"text": [f"comment {number}" for number in range(len(every))], "label": every}


def by_id(task) -> dict[str, object]:
    def names(label):
        return (
            [task.labels[n] for n, flag in enumerate(label) if flag] if isinstance(label, list) else task.labels[label]
        )

    return {row["id"]: names(row["label"]) for split in task.splits.values() for row in split}


def recipe(tmp_path: Path, text: str) -> Table:
    (tmp_path / "task.yaml").write_text(text)
    return read_recipe(tmp_path / "task.yaml", Table)


def refusal(source) -> str:
    with pytest.raises(DataError) as caught:
        source.load()
    return str(caught.value)


class TestEveryFormat:
    @pytest.mark.parametrize("ending", KINDS)
    @pytest.mark.parametrize(
        ("raw", "given"),
        [
            ([1, 0], "{1: hate, 0: none}"),
            ([1, 0], "{'1': hate, '0': none}"),
            ([1.0, 0.0], "{1: hate, 0: none}"),
            ([True, False], "{true: hate, false: none}"),
            ([True, False], "{'True': hate, FALSE: none}"),
            (["yes", "no"], "{yes: hate, no: none}"),
            (["on", "off"], "{on: hate, off: none}"),
            (["HATE ", "nothing"], "{HATE: hate, nothing: none}"),
            ([-1, 2], "{-1: hate, 2: none}"),
        ],
        ids=str,
    )
    def test_labels_are_compared_as_they_read(self, tmp_path, ending, raw, given):
        path = write(tmp_path / f"d{ending}", columns(raw))
        task = recipe(tmp_path, f"train: {path}\nlabels: {given}\n").load()
        assert task.labels == ("hate", "none")
        assert by_id(task) == {str(n): ("hate", "none")[(n - 1) % 2] for n in range(1, 49)}

    @pytest.mark.parametrize("ending", KINDS)
    def test_a_column_with_gaps_and_numbers(self, tmp_path, ending):
        path = write(tmp_path / f"d{ending}", columns([1, 0, None]))
        task = Table(train=path, labels={1: "hate", 0: "none", None: None}).load()
        assert by_id(task) == {str(n): ("hate", "none")[(n - 1) % 3] for n in range(1, 73) if n % 3}
        assert refusal(Table(train=path, labels={1: "hate", 0: "none"})).endswith("row 3: the column 'label' is empty")

    def test_names_may_be_yes_and_no(self, tmp_path):
        path = write(tmp_path / "d.csv", columns([1, 0]))
        assert recipe(tmp_path, f"train: {path}\nlabels: {{1: yes, 0: no}}\n").load().labels == ("no", "yes")

    def test_nullable_integers(self, tmp_path):
        frame = pd.DataFrame(columns([1, 0, None]))
        frame["label"] = frame["label"].astype("Int64")
        frame.to_parquet(tmp_path / "d.parquet")
        assert "row 3: the column 'label' is empty" in refusal(Table(train=tmp_path / "d.parquet"))
        task = Table(train=tmp_path / "d.parquet", labels={1: "a", 0: "b", "": "c"}).load()
        assert task.labels == ("a", "b", "c")

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (1, "1"),
            (1.0, "1"),
            ("1.00", "1"),
            (" x ", "x"),
            (True, "true"),
            ("TRUE", "true"),
            (None, ""),
            (np.nan, ""),
            (pd.NA, ""),
            (1.5, "1.5"),
            ("1.0.0", "1.0.0"),
            ("yes", "yes"),
        ],
    )
    def test_how_a_label_reads(self, value, expected):
        assert plain(value) == expected


class TestMapping:
    def test_merges_and_drops_and_says_how_many(self, tmp_path, caplog):
        path = write(tmp_path / "d.csv", columns(["rude", "cruel", "kind", "spam"]))
        names = {"rude": "hate", "cruel": "hate", "kind": "none", "spam": None}
        with caplog.at_level(logging.INFO):
            task = Table(train=path, labels=names).load()
        assert task.labels == ("hate", "none")
        assert by_id(task) == {str(n): ("hate", "hate", "none")[(n - 1) % 4] for n in range(1, 97) if n % 4}
        assert f"{path}: 24 of 96 rows dropped" in caplog.text

    def test_a_dropped_row_needs_no_text(self, tmp_path):
        table = columns(["a", "b", "gone"])
        table["text"][2] = ""
        path = write(tmp_path / "d.csv", table)
        assert "1" in by_id(Table(train=path, labels={"a": "x", "b": "y", "gone": None}).load())
        assert "row 3: the column 'text' holds no text" in refusal(Table(train=path))

    def test_several_labels(self, tmp_path):
        path = write(tmp_path / "d.jsonl", columns(["a;b", "b; c", "", "a; odd"]))
        names = {"a": "x", "b": "x", "c": "y", "odd": None}
        task = Table(train=path, label_separator=";", labels=names).load()
        assert (task.kind, task.labels) == ("multi_label", ("x", "y"))
        expected = {0: ["x"], 1: ["x", "y"], 2: []}
        assert by_id(task) == {str(n): expected[(n - 1) % 4] for n in range(1, 97) if n % 4}
        dropped = Table(train=path, label_separator=";", labels={**names, "": None}).load()
        assert set(by_id(dropped)) == {str(n) for n in range(1, 97) if n % 4 in (1, 2)}

    def test_columns_of_flags(self, tmp_path):
        table = columns([0]) | {"h": [1, 0, 1, 0] * 6, "i": [0, 1, 1, 0] * 6}
        path = write(tmp_path / "d.csv", table)
        task = Table(train=path, label=["h", "i"], labels={"h": "hate", "i": "insult"}).load()
        assert task.labels == ("hate", "insult")
        assert by_id(task)["3"] == ["hate", "insult"]

    def test_of_a_dataset(self, tmp_path, monkeypatch):
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        (tmp_path / "data").mkdir()
        write(tmp_path / "data" / "train.csv", columns([1, 0, 2]))
        task = HubDataset(id=str(tmp_path / "data"), labels={1: "hate", 0: "none", 2: None}).load()
        assert by_id(task) == {str(n): ("hate", "none")[(n - 1) % 3] for n in range(1, 73) if n % 3}


class TestRefused:
    def test_a_label_without_a_name(self, tmp_path):
        path = write(tmp_path / "d.csv", columns(["1", "0", "9 patients"]))
        message = refusal(Table(train=path, labels={1: "hate", 0: "none"}))
        assert message == f"{path}, row 3: the label '9 patients' is not named in labels; allowed: 1, 0"
        secret = refusal(Table(train=path, labels={1: "hate", 0: "none"}, access="credentialed"))
        assert secret == f"{path}, row 3: a label is not named in labels; allowed: 1, 0"

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("labels: {1: hate, '1': none}", "task.yaml:2: the key '1' stands twice"),
            ("labels: {1: hate, 1.0: none}", "the label '1' is mapped twice, to 'hate' and 'none'"),
            ("labels: {1: ''}", "the label '1' is mapped to an empty name; allowed: a name, or null"),
            ("labels: {1: [a]}", "allowed: a name, or null"),
            ("labels: {}", "labels: .*at least 1 item"),
            ("labels: [a]", "labels: input should be a valid dictionary"),
            ("label: [h, i]\nlabels: {h: hate}", "labels has to name every column .*unlike 'i'; allowed: h, i"),
            ("label: [h]\nlabels: {h: hate, j: x}", "unlike 'j'; allowed: h"),
            ("delimiter: ':'", "delimiter: input should be ',', ';'"),
            ("test: d.jsonl\ndelimiter: ';'", r"delimiter is for \.csv files, not d\.jsonl"),
        ],
    )
    def test_before_any_file_is_read(self, tmp_path, given, message):
        with pytest.raises(RecipeError, match=message):
            recipe(tmp_path, f"train: none.csv\n{given}\n")


def test_a_german_export(tmp_path):
    path = tmp_path / "kommentare.csv"
    lines = [f'"Kommentar {n}; mit ""Zitat"", Komma";{n % 2};{n}' for n in range(20)]
    path.write_text("\n".join(["Text;Hass;Nr", *lines]), encoding="utf-8-sig")
    task = Table(train=path, delimiter=";", text="Text", label="Hass", id="Nr", labels={1: "hate", 0: "none"}).load()
    assert by_id(task) == {str(n): ("none", "hate")[n % 2] for n in range(20)}
    assert all(text.endswith('mit "Zitat", Komma') for split in task.splits.values() for text in split["text"])


def test_settings_round_trip_through_the_saved_recipe(tmp_path):
    source = recipe(tmp_path, "train: d.csv\nlabels: {1: hate, true: yes, no: null, '': off, 2.0: 3}\n")
    assert source.labels == {"1": "hate", "true": "yes", "no": None, "": "off", "2": "3"}
    assert validate(to_plain(source), Table) == source
    saved = yaml.safe_dump(to_plain(source), sort_keys=False)
    assert yaml.safe_load(saved) == to_plain(source)
    assert recipe(tmp_path, saved) == source
    assert Table(train=Path("d.csv")).labels is None
