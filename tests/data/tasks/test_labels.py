"""Labels that a recipe renames, merges or drops, whatever kind of file they come from."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from plankwise.core.errors import DataError, RecipeError
from plankwise.core.recipe import read_recipe, to_plain, validate
from plankwise.data.table_io import KINDS
from plankwise.data.task import Task
from plankwise.data.tasks.labels import plain
from plankwise.data.tasks.tables import HubDataset, TableFiles


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
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


def columns(labels: list[Any], times: int = 24) -> dict[str, list[Any]]:
    every = labels * times
    return {"text": [f"comment {number}" for number in range(len(every))], "label": every}


def by_id(task: Task) -> dict[str, object]:
    def names(label: Any) -> Any:
        return (
            [task.labels[n] for n, flag in enumerate(label) if flag] if isinstance(label, list) else task.labels[label]
        )

    return {row["id"]: names(row["label"]) for split in task.splits.values() for row in split}


def recipe(tmp_path: Path, text: str) -> TableFiles:
    (tmp_path / "task.yaml").write_text(text)
    return read_recipe(tmp_path / "task.yaml", TableFiles)


def source_of(**settings: Any) -> TableFiles:
    """Make settings whose labels are not strings yet, as YAML gives them."""
    return TableFiles(**settings)


def refusal(source: Any) -> str:
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
    def test_labels_are_compared_as_they_read(self, tmp_path: Path, ending: str, raw: Any, given: Any) -> None:
        path = write(tmp_path / f"d{ending}", columns(raw))
        task = recipe(tmp_path, f"train: {path}\nlabels: {given}\n").load()
        assert task.labels == ("hate", "none")
        assert by_id(task) == {str(n): ("hate", "none")[(n - 1) % 2] for n in range(1, 49)}

    @pytest.mark.parametrize("ending", KINDS)
    def test_a_column_with_gaps_and_numbers(self, tmp_path: Path, ending: str) -> None:
        path = write(tmp_path / f"d{ending}", columns([1, 0, None]))
        task = source_of(train=path, labels={1: "hate", 0: "none", None: None}).load()
        assert by_id(task) == {str(n): ("hate", "none")[(n - 1) % 3] for n in range(1, 73) if n % 3}
        assert refusal(source_of(train=path, labels={1: "hate", 0: "none"})).endswith(
            "row 3: the column 'label' is empty"
        )

    def test_names_may_be_yes_and_no(self, tmp_path: Path) -> None:
        path = write(tmp_path / "d.csv", columns([1, 0]))
        assert recipe(tmp_path, f"train: {path}\nlabels: {{1: yes, 0: no}}\n").load().labels == ("no", "yes")

    def test_nullable_integers(self, tmp_path: Path) -> None:
        frame = pd.DataFrame(columns([1, 0, None]))
        frame["label"] = frame["label"].astype("Int64")
        frame.to_parquet(tmp_path / "d.parquet")
        assert "row 3: the column 'label' is empty" in refusal(source_of(train=tmp_path / "d.parquet"))
        task = source_of(train=tmp_path / "d.parquet", labels={1: "a", 0: "b", "": "c"}).load()
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
    def test_how_a_label_reads(self, value: Any, expected: Any) -> None:
        assert plain(value) == expected


class TestMapping:
    def test_merges_and_drops_and_says_how_many(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = write(tmp_path / "d.csv", columns(["rude", "cruel", "kind", "spam"]))
        names = {"rude": "hate", "cruel": "hate", "kind": "none", "spam": None}
        with caplog.at_level(logging.INFO):
            task = source_of(train=path, labels=names).load()
        assert task.labels == ("hate", "none")
        assert by_id(task) == {str(n): ("hate", "hate", "none")[(n - 1) % 4] for n in range(1, 97) if n % 4}
        assert f"{path}: 24 of 96 rows dropped" in caplog.text

    def test_a_dropped_row_needs_no_text(self, tmp_path: Path) -> None:
        table = columns(["a", "b", "gone"])
        table["text"][2] = ""
        path = write(tmp_path / "d.csv", table)
        assert "1" in by_id(source_of(train=path, labels={"a": "x", "b": "y", "gone": None}).load())
        assert "row 3: the column 'text' holds no text" in refusal(source_of(train=path))

    def test_several_labels(self, tmp_path: Path) -> None:
        path = write(tmp_path / "d.jsonl", columns(["a;b", "b; c", "", "a; odd"]))
        names = {"a": "x", "b": "x", "c": "y", "odd": None}
        task = source_of(train=path, label_separator=";", labels=names).load()
        assert (task.kind, task.labels) == ("multi_label", ("x", "y"))
        expected = {0: ["x"], 1: ["x", "y"], 2: []}
        assert by_id(task) == {str(n): expected[(n - 1) % 4] for n in range(1, 97) if n % 4}
        dropped = source_of(train=path, label_separator=";", labels={**names, "": None}).load()
        assert set(by_id(dropped)) == {str(n) for n in range(1, 97) if n % 4 in (1, 2)}

    def test_columns_of_flags(self, tmp_path: Path) -> None:
        table = columns([0]) | {"h": [1, 0, 1, 0] * 6, "i": [0, 1, 1, 0] * 6}
        path = write(tmp_path / "d.csv", table)
        task = source_of(train=path, label=["h", "i"], labels={"h": "hate", "i": "insult"}).load()
        assert task.labels == ("hate", "insult")
        assert by_id(task)["3"] == ["hate", "insult"]

    def test_of_a_dataset(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        (tmp_path / "data").mkdir()
        write(tmp_path / "data" / "train.csv", columns([1, 0, 2]))
        task = HubDataset(id=str(tmp_path / "data"), labels={"1": "hate", "0": "none", "2": None}).load()
        assert by_id(task) == {str(n): ("hate", "none")[(n - 1) % 3] for n in range(1, 73) if n % 3}


class TestMissing:
    """One rule: what reads as missing, or as a number that is not whole, is a label only where `labels` names it."""

    @pytest.mark.parametrize("ending", KINDS)
    @pytest.mark.parametrize("spelling", ["NaN", "nan", "NA", "n/a", " null ", "None", "<NA>"])
    def test_spellings_are_refused_by_row_unless_named(self, tmp_path: Path, ending: str, spelling: str) -> None:
        path = write(tmp_path / f"d{ending}", columns(["a", "b", spelling]))
        message = f"{path}, row 3: the column 'label' holds '{spelling.strip()}', which reads as a missing value; "
        assert refusal(source_of(train=path)).startswith(message)
        assert refusal(source_of(train=path, labels={"a": "a", "b": "b"})).startswith(message)
        assert source_of(train=path, labels={"a": "a", "b": "b", spelling: "c"}).load().labels == ("a", "b", "c")

    def test_words_that_name_classes_are_none(self, tmp_path: Path) -> None:
        path = write(tmp_path / "d.csv", columns(["none", "no", "nil"]))
        assert source_of(train=path).load().labels == ("nil", "no", "none")
        assert source_of(train=write(tmp_path / "e.csv", columns(["NONE", "HATE"]))).load().labels == ("HATE", "NONE")

    def test_several_labels_follow_it_too(self, tmp_path: Path) -> None:
        path = write(tmp_path / "d.jsonl", columns(["a;b", "b;NaN", "a"]))
        assert "row 2: the column 'label' holds 'NaN', which reads" in refusal(
            source_of(train=path, label_separator=";")
        )
        path = write(tmp_path / "e.jsonl", columns([["a", "b"], ["b", {"c": 1}], ["a"]]))
        assert "row 2: the column 'label' holds an object; allowed" in refusal(
            source_of(train=path, label_separator=";")
        )

    @pytest.mark.parametrize("ending", KINDS)
    def test_fractions_are_refused_unless_named(self, tmp_path: Path, ending: str) -> None:
        path = write(tmp_path / f"d{ending}", columns([1.0, 2.5]))
        assert f"{path}, row 2: the column 'label' holds a number that is not whole; if" in refusal(
            source_of(train=path)
        )
        assert source_of(train=path, labels={1: "low", 2.5: "high"}).load().labels == ("high", "low")

    @pytest.mark.parametrize(
        ("label", "kind"), [(["a"], "a list"), ({"a": 1}, "an object"), ([], "a list"), (0.25, "a number that is not")]
    )
    @pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
    def test_what_is_not_one_label_is_refused(self, tmp_path: Path, ending: str, label: Any, kind: str) -> None:
        path = write(tmp_path / f"d{ending}", columns([label, label]))
        assert refusal(source_of(train=path)).startswith(f"{path}, row 1: the column 'label' holds {kind}")

    @pytest.mark.parametrize("bad", ["a\ud83d", "a\0"])
    def test_what_is_not_text_is_refused(self, tmp_path: Path, bad: str) -> None:
        for column, where in (("label", "label"), ("text", "text"), ("key", "key")):
            table = {**columns(["a", "b"]), "key": [f"k{n}" for n in range(48)]}
            table[column] = [*table[column][:4], bad, *table[column][5:]]
            path = tmp_path / "d.jsonl"
            lines = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            message = f"{path}, row 5: the column '{where}' holds a NUL or half of a surrogate pair; allowed: text"
            assert refusal(source_of(train=path, id="key")) == message


class TestLookAlikes:
    @pytest.mark.parametrize(
        "other",
        ["Hate", "ha te", "hate\u200b", "ｈate", "HATE"],
        ids=["case", "space", "invisible", "width", "capitals"],
    )
    @pytest.mark.parametrize("several", [False, True])
    def test_are_refused_with_both_spellings_and_counts(self, tmp_path: Path, other: str, several: bool) -> None:
        path = write(tmp_path / "d.csv", columns(["hate", "none", other, "hate"], 6))
        source = source_of(train=path, label_separator=";" if several else None)
        assert refusal(source).startswith(
            f"{path}: the labels 'hate' (12), {other!r} (6) differ in case, spaces or Unico"
        )
        secret = refusal(source_of(train=path, access="credentialed"))
        assert secret.startswith(f"{path}: labels in 12 and 6 rows differ in case, spaces or Unicode form alone; name")

    def test_composed_letters_and_numbers_too(self, tmp_path: Path) -> None:
        path = write(tmp_path / "d.csv", columns(["gr\u00fcn", "rot", "gru\u0308n"], 6))
        message = r"the labels 'gr\xfcn' (6), 'gru\u0308n' (6) differ in case, spaces or Unicode form alone"
        assert message in refusal(source_of(train=path))
        path = write(tmp_path / "e.csv", columns(["1", "0", "1.0"], 6))
        assert "the labels '1' (6), '1.0' (6) differ in" in refusal(source_of(train=path))

    def test_are_taken_where_labels_names_them(self, tmp_path: Path) -> None:
        path = write(tmp_path / "d.csv", columns(["US", "us", "none"]))
        assert source_of(train=path, labels={"US": "US", "us": "us", "none": "none"}).load().labels == (
            "US",
            "none",
            "us",
        )
        assert source_of(train=path, labels={"US": "us", "us": "us", "none": "none"}).load().labels == ("none", "us")

    def test_spaces_around_a_label_are_dropped_and_logged(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = write(tmp_path / "d.jsonl", columns(["hate", "none", " hate", "hate"], 6))
        assert source_of(train=path).load().labels == ("hate", "none")
        assert f"{path}: 'hate' (12), ' hate' (6) are read as the one label 'hate'" in caplog.messages
        caplog.clear()
        source_of(train=path, access="credentialed").load()
        assert f"{path}: 2 spellings are read as the one label" in caplog.messages


class TestRefused:
    def test_a_label_without_a_name(self, tmp_path: Path) -> None:
        path = write(tmp_path / "d.csv", columns(["1", "0", "9 patients"]))
        message = refusal(source_of(train=path, labels={1: "hate", 0: "none"}))
        assert message == f"{path}, row 3: the label '9 patients' is not named in labels; allowed: 1, 0"
        secret = refusal(source_of(train=path, labels={1: "hate", 0: "none"}, access="credentialed"))
        assert secret == f"{path}, row 3: a label is not named in labels; allowed: 1, 0"

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("labels: {1: hate, '1': none}", "task.yaml:2: the key '1' appears twice"),
            ("labels: {1: hate, 1.0: none}", "the label '1' is mapped twice, to 'hate' and 'none'"),
            ("labels: {1: ''}", "the label '1' is mapped to an empty name; allowed: a name, or null"),
            ("labels: {1: [a]}", "allowed: a name, or null"),
            ("labels: {}", "labels: .*at least 1 item"),
            ("labels: [a]", "labels: input should be a valid dictionary"),
            ("label: [h, i]\nlabels: {h: hate}", "labels has to name every column .*unlike 'i'; allowed: h, i"),
            ("label: [h]\nlabels: {h: hate, j: x}", "unlike 'j'; allowed: h"),
            ("label: [a, b, a]", "the column 'a' is named twice in label; allowed: each column once"),
            ("label: text", "the column 'text' is named by label and by text"),
            ("label: [a, t]\ntext: t", "the column 't' is named by label and by text"),
            ("text_pair: text", "the column 'text' is named by text and by text_pair"),
            ("id: label", "the column 'label' is named by label and by id"),
            ("encoding: cp9999", "encoding: no encoding 'cp9999'; allowed: utf-8, cp1252, utf-16"),
            ("encoding: hex", "encoding: no encoding 'hex'; allowed"),
            ("test: d.parquet\nencoding: cp1252", r"encoding is for text files, not d\.parquet"),
            ("delimiter: ':'", "delimiter: input should be ',', ';'"),
            ("test: d.jsonl\ndelimiter: ';'", r"delimiter is for \.csv files, not d\.jsonl"),
        ],
    )
    def test_before_any_file_is_read(self, tmp_path: Path, given: Any, message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            recipe(tmp_path, f"train: none.csv\n{given}\n")


def test_a_german_export(tmp_path: Path) -> None:
    path = tmp_path / "kommentare.csv"
    lines = [f'"Kommentar {n}; mit ""Zitat"", Komma";{n % 2};{n}' for n in range(20)]
    path.write_text("\n".join(["Text;Hass;Nr", *lines]), encoding="utf-8-sig")
    task = source_of(
        train=path, delimiter=";", text="Text", label="Hass", id="Nr", labels={1: "hate", 0: "none"}
    ).load()
    assert by_id(task) == {str(n): ("none", "hate")[n % 2] for n in range(20)}
    assert all(text.endswith('mit "Zitat", Komma') for split in task.splits.values() for text in split["text"])


def test_settings_round_trip_through_the_saved_recipe(tmp_path: Path) -> None:
    source = recipe(tmp_path, "train: d.csv\nlabels: {1: hate, true: yes, no: null, '': off, 2.0: 3}\n")
    assert source.labels == {"1": "hate", "true": "yes", "no": None, "": "off", "2": "3"}
    assert validate(to_plain(source), TableFiles) == source
    saved = yaml.safe_dump(to_plain(source), sort_keys=False)
    assert yaml.safe_load(saved) == to_plain(source)
    assert recipe(tmp_path, saved) == source
    assert source_of(train=Path("d.csv")).labels is None
