from __future__ import annotations

import gzip
import json
import lzma
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plankwise.core.errors import DataError, RecipeError
from plankwise.core.recipe import to_plain, validate
from plankwise.data.table_io import KINDS
from plankwise.data.task import TEST, TRAIN, Task
from plankwise.data.tasks.tables import HubDataset, TableFiles
from tiny import rows, write_table

TRICKY = [
    "one, two",
    'she said "no"',
    "tab\there",
    "first line\nsecond line",
    "größer 好",
    "NA",
    "1e5",
    "007",
    "2024-01-01",
    " spaced ",
]
SECRET = "patient deceased"
Columns = dict[str, list[Any]]


def write(path: Path, columns: Columns) -> Path:
    frame = pd.DataFrame(columns)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        records = frame.to_dict("records")
        path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records), encoding="utf-8")
    else:
        frame.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    return path


def many(columns: Columns, times: int = 4) -> Columns:
    return {name: values * times for name, values in columns.items()}


def content(task: Task) -> Any:
    return {part: [tuple(row.values()) for row in split.to_list()] for part, split in task.splits.items()}


def source_of(**settings: Any) -> TableFiles:
    return TableFiles(**settings)


def refusal(source: Any) -> str:
    with pytest.raises(DataError) as caught:
        source.load()
    return str(caught.value)


class TestFormats:
    @pytest.mark.parametrize(
        "labels", [["a", "b"] * 5, [0, 1] * 5, ["none", "yes "] * 5], ids=["words", "ints", "spaces"]
    )
    def test_every_format_gives_the_same_task(self, tmp_path: Path, labels: Any) -> None:
        columns = many({"text": TRICKY, "label": labels, "key": [f"k{n}" for n in range(10)]})
        paths = [write(tmp_path / f"data{ending}", columns) for ending in KINDS]
        tasks = [TableFiles(train=path, id="key").load() for path in paths]
        assert len(paths) == 4
        assert all(task.hashes == tasks[0].hashes for task in tasks)
        assert {text for split in tasks[0].splits.values() for text in split["text"]} == set(TRICKY)
        assert tasks[0].labels == tuple(sorted({str(label).strip() for label in labels}))

    @pytest.mark.parametrize("ending", KINDS)
    def test_several_labels_in_one_column_are_the_same_in_every_format(self, tmp_path: Path, ending: str) -> None:
        columns = many({"text": TRICKY[:4], "label": ["b; a", "", "c", "a"]})
        task = TableFiles(train=write(tmp_path / f"data{ending}", columns), label_separator=";").load()
        assert task.kind == "multi_label"
        assert task.labels == ("a", "b", "c")
        flags = {row["text"]: row["label"] for split in task.splits.values() for row in split}
        assert flags == {TRICKY[0]: [1, 1, 0], TRICKY[1]: [0, 0, 0], TRICKY[2]: [0, 0, 1], TRICKY[3]: [1, 0, 0]}

    @pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
    def test_lists_of_labels_need_no_splitting(self, tmp_path: Path, ending: str) -> None:
        columns = many({"text": TRICKY[:3], "label": [["b", "a"], [], ["c"]]}, 20)
        task = TableFiles(train=write(tmp_path / f"data{ending}", columns), label_separator=";").load()
        assert task.labels == ("a", "b", "c")

    @pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
    def test_a_null_is_no_label(self, tmp_path: Path, ending: str) -> None:
        columns = many({"text": TRICKY[:4], "label": ["a;b", None, "b", "a"]})
        path = write(tmp_path / f"data{ending}", columns)
        assert TableFiles(train=path, label_separator=";").load().labels == ("a", "b")
        assert refusal(TableFiles(train=path)).endswith("row 2: the column 'label' is empty")

    @pytest.mark.parametrize("ending", KINDS)
    @pytest.mark.parametrize("flags", [(0, 1), (False, True), (0.0, 1.0)], ids=["int", "bool", "float"])
    def test_columns_of_flags(self, tmp_path: Path, ending: str, flags: Any) -> None:
        no, yes = flags
        columns = many({"text": TRICKY[:4], "rude": [yes, no, yes, no], "odd": [no, no, yes, yes]})
        task = TableFiles(train=write(tmp_path / f"data{ending}", columns), label=["rude", "odd"]).load()
        assert (task.kind, task.labels) == ("multi_label", ("odd", "rude"))
        found = {row["text"]: row["label"] for split in task.splits.values() for row in split}
        assert found == {TRICKY[0]: [0, 1], TRICKY[1]: [0, 0], TRICKY[2]: [1, 1], TRICKY[3]: [1, 0]}

    def test_a_byte_order_mark_is_no_part_of_a_name(self, tmp_path: Path) -> None:
        path = write_table(tmp_path)
        plain = TableFiles(train=path).load()
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert TableFiles(train=path).load().hashes == plain.hashes


class TestColumns:
    def test_pairs_ids_and_titles(self, tmp_path: Path) -> None:
        columns = many({"q": ["who", "why"], "a": ["me", "because"], "y": ["x", "z"]}, 10) | {
            "k": list(range(100, 120))
        }
        task = TableFiles(
            train=write(tmp_path / "pairs.csv", columns), text="q", text_pair="a", label="y", id="k"
        ).load()
        assert task.name == "pairs"
        by_id = {row["id"]: row for split in task.splits.values() for row in split}
        assert set(by_id) == {str(number) for number in range(100, 120)}
        assert {(row["text"], row["text_pair"]) for row in by_id.values()} == {("who", "me"), ("why", "because")}
        assert TableFiles(train=tmp_path / "pairs.csv", text="q", label="y", title="Fragen").load().name == "Fragen"

    def test_rows_are_numbered_where_there_is_no_id(self, tmp_path: Path) -> None:
        task = TableFiles(train=write_table(tmp_path, 50)).load()
        texts = {str(number): row["text"] for number, row in enumerate(rows(50), 1)}
        assert {row["id"]: row["text"] for split in task.splits.values() for row in split} == texts

    def test_given_files_become_the_splits(self, tmp_path: Path) -> None:
        paths = {}
        for number, part in enumerate(("train", "development", "test")):
            made = rows(20 + number, number)
            columns = {"text": [row["text"] for row in made], "label": [row["label"] for row in made]}
            paths[part] = write(tmp_path / f"{part}.tsv", columns)
        assert dict(source_of(**paths).load().splits.num_rows) == {"train": 20, "development": 21, "test": 22}

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"text": "txet"}, "no column 'txet'; did you mean 'text'? Allowed: text, label"),
            ({"label": "lable"}, "no column 'lable'; did you mean 'label'?"),
            ({"text_pair": "zzz"}, "no column 'zzz'; Allowed: text, label"),
            ({"id": "txt"}, "no column 'txt'; did you mean 'text'?"),
            ({"label": ["label", "lbel"]}, "no column 'lbel'; did you mean 'label'?"),
        ],
    )
    def test_a_wrong_one_is_refused_with_the_nearest(self, tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
        path = write_table(tmp_path)
        assert refusal(TableFiles(train=path, **wrong)).startswith(f"{path}: there is {message}")


class TestPackedAndEncoded:
    PACK: ClassVar[dict[str, Callable[[bytes], bytes]]] = {
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
    }

    @pytest.mark.parametrize("ending", KINDS)
    @pytest.mark.parametrize("packing", PACK)
    def test_a_packed_file_gives_the_same_task(self, tmp_path: Path, ending: str, packing: str) -> None:
        path = write(tmp_path / f"data{ending}", many({"text": TRICKY, "label": ["a", "b"] * 5}))
        plain = TableFiles(train=path).load()
        packed = tmp_path / f"data{ending}{packing}"
        packed.write_bytes(self.PACK[packing](path.read_bytes()))
        task = TableFiles(train=packed).load()
        assert (task.hashes, task.name) == (plain.hashes, plain.name)

    @pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
    @pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
    def test_an_encoding_that_is_named_gives_the_same_task(self, tmp_path: Path, ending: str, encoding: str) -> None:
        path = write(
            tmp_path / f"data{ending}", many({"text": [f"größer {n} –" for n in range(10)], "label": ["ä", "b"] * 5})
        )
        plain, text = TableFiles(train=path).load(), path.read_text(encoding="utf-8")
        mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""  # as Excel writes it
        path.write_bytes((mark + text).encode(encoding))
        assert TableFiles(train=path, encoding=encoding).load().hashes == plain.hashes
        if encoding == "utf-8-sig":
            assert TableFiles(train=path).load().hashes == plain.hashes
            return
        likely = encoding if encoding == "cp1252" else "utf-16"
        said = (
            f"cannot read {path}: it is not UTF-8, most likely {likely}; give encoding: {likely} (--encoding {likely}"
        )
        assert refusal(TableFiles(train=path)).startswith(said)

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    def test_utf_16_without_a_mark_is_told_by_its_nuls(self, tmp_path: Path, encoding: str) -> None:
        path = tmp_path / "data.csv"
        path.write_text("text,label\n" + "a day,good\n" * 20, encoding=encoding)
        assert refusal(TableFiles(train=path)).startswith(
            f"cannot read {path}: it is not UTF-8, most likely {encoding}; give"
        )

    def test_a_wrong_encoding_is_told_as_well(self, tmp_path: Path) -> None:
        path = tmp_path / "data.csv"
        path.write_text("text,label\n" + "größer,good\n" * 20, encoding="utf-8")
        for encoding in ("utf-16", "cp1252", "latin-1", "cp1250"):
            message = f"is not {encoding.upper()}, most likely utf-8; give encoding: utf-8"
            assert message in refusal(TableFiles(train=path, encoding=encoding))
        path.write_text("text,label\n" + "".join(f"a day {n},{'ab'[n % 2]}\n" for n in range(30)))
        assert TableFiles(train=path, encoding="cp1252").load().hashes == TableFiles(train=path).load().hashes

    def test_a_damaged_place_is_no_other_encoding(self, tmp_path: Path) -> None:
        path = tmp_path / "data.csv"
        path.write_bytes(b"text,label\n" + "größer,good\n".encode() * 90_000 + b"\xff,good\n")
        assert "it is not UTF-8 throughout; part of it is damaged" in refusal(TableFiles(train=path))

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (gzip.compress(b"text", mtime=0), "packed by gzip; let its name end in .gz"),
            (b"\0\1\2\0\xff\0\0\3", "text in UTF-8"),
        ],
    )
    def test_what_is_not_text_at_all_is_named(self, tmp_path: Path, content: Any, kind: str) -> None:
        (path := tmp_path / "data.csv").write_bytes(content)
        assert f"cannot read {path}: it is not text" in (message := refusal(TableFiles(train=path)))
        assert kind in message

    @pytest.mark.parametrize("ending", [".xlsx", ".xls", ".ods"])
    def test_spreadsheets_are_refused_with_the_command_that_converts_them(self, tmp_path: Path, ending: str) -> None:
        (path := tmp_path / f"my data{ending}").write_bytes(b"PK")
        message = refusal(TableFiles(train=path))
        assert f"no reader for '{ending}' files" in message
        assert message.endswith(f"index=False)\" '{path}' '{path.with_suffix('.csv')}'")

    def test_json_lines_by_another_name_are_to_be_renamed(self, tmp_path: Path) -> None:
        (path := tmp_path / "d.json").write_text('{"text": "a"}\n{"text": "b"}\n')
        assert refusal(TableFiles(train=path)).endswith(f"to convert it: mv {path} {path}l")

    def test_the_command_for_json_works(self, tmp_path: Path) -> None:
        (path := tmp_path / "my data.json").write_text(
            json.dumps([{"text": f"ä {n}", "label": "ab"[n % 2]} for n in range(20)])
        )
        command = refusal(TableFiles(train=path)).partition("to convert it: ")[2]
        subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
        assert sum(TableFiles(train=path.with_suffix(".jsonl")).load().splits.num_rows.values()) == 20


class TestShape:
    """A table whose columns or rows cannot mean what they say is refused before anything is trained."""

    @pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
    def test_two_columns_of_one_name(self, tmp_path: Path, ending: str) -> None:
        path, names = tmp_path / f"d{ending}", ["text", "label", "label"]
        if ending == ".parquet":
            pq.write_table(pa.table([["a", "b"] * 9] * 3, names=names), path)
        else:
            mark = "," if ending == ".csv" else "\t"
            path.write_text("".join(mark.join(row) + "\n" for row in [names, *[["a", "x", "y"]] * 9]))
        assert refusal(TableFiles(train=path)) == f"{path}: there are 2 columns 'label'; allowed: one"

    def test_two_columns_of_a_name_that_is_not_asked_for_are_no_fault(self, tmp_path: Path) -> None:
        path = tmp_path / "d.csv"
        path.write_text("text,label,,\n" + "".join(f"text {n},{'ab'[n % 2]},,\n" for n in range(30)))
        assert TableFiles(train=path).load().labels == ("a", "b")

    def test_two_keys_of_one_name(self, tmp_path: Path) -> None:
        path = tmp_path / "d.jsonl"
        path.write_text('{"text": "a", "label": "b"}\n{"text": "a", "label": "b", "label": "c"}\n')
        assert refusal(TableFiles(train=path)) == f"{path}, row 2: a key is there twice"

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("d.csv", "text;label\na;b\n", """: its header is one column that holds ';'; give delimiter: ";\""""),
            ("d.csv", "text\tlabel\na\tb\n", r': its header is one column that holds tabs; give delimiter: "\t"'),
            ("d.tsv", "text,label\na,b\n", ": its header is one column that holds ','; name the file .csv"),
            (
                "d.csv",
                'text,label\na,b\n"c,d\ne,f\n',
                ": not a table; a quote is out of place near line 3, or the file is cut off",
            ),
            ("d.csv", "text,label\na,b\n\nc\n", ", row 2: 1 cells, the header has 2 (near line 4)"),
            ("d.csv", "text,label\na,b,\n", ", row 1: 3 cells, the header has 2 (near line 2)"),
            ("d.jsonl", '{"text": "a", "label": "b"}\n[1]\n', ", row 2: not a JSON object"),
        ],
    )
    def test_a_bad_shape_is_named_by_place(self, tmp_path: Path, name: str, content: Any, message: str) -> None:
        (tmp_path / name).write_text(content)
        assert refusal(TableFiles(train=tmp_path / name)) == f"{tmp_path / name}{message}"

    def test_blank_lines_are_no_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "d.csv"
        path.write_text("text,label\n\n  \n" + "".join(f"text {n},{'ab'[n % 2]}\n\n" for n in range(30)) + " \n")
        assert sum(TableFiles(train=path).load().splits.num_rows.values()) == 30

    def test_a_key_may_be_missing_from_the_first_row(self, tmp_path: Path) -> None:
        path = tmp_path / "d.jsonl"
        lines = ['{"text": "not yet"}', *(f'{{"text": "text {n}", "label": "{"ab"[n % 2]}"}}' for n in range(30))]
        path.write_text("\n".join(lines))
        task = TableFiles(train=path, labels={"a": "a", "b": "b", "": None}).load()
        assert sum(task.splits.num_rows.values()) == 30


class TestUnreadable:
    @pytest.mark.parametrize("ending", KINDS)
    def test_a_missing_file_is_named(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"none{ending}"
        assert refusal(TableFiles(train=path)).startswith(f"cannot read {path}: ")

    def test_another_kind_of_file_is_refused(self, tmp_path: Path) -> None:
        message = refusal(TableFiles(train=tmp_path / "data.docx"))
        assert message.endswith(
            "no reader for '.docx' files; allowed: .csv, .tsv, .jsonl, .parquet, plain or .gz, .xz, .zst"
        )

    @pytest.mark.parametrize("ending", KINDS)
    @pytest.mark.parametrize("garbage", [b"", b"\xff\xfe\x00{"], ids=["empty", "binary"])
    def test_garbage_is_named(self, tmp_path: Path, ending: str, garbage: bytes) -> None:
        path = tmp_path / f"data{ending}"
        path.write_bytes(garbage)
        assert str(path) in refusal(TableFiles(train=path))

    def test_only_a_header(self, tmp_path: Path) -> None:
        (tmp_path / "data.csv").write_text("text,label\n")
        assert "0 rows" in refusal(TableFiles(train=tmp_path / "data.csv"))


class TestSecrets:
    """No message about a bad row quotes its text; those of credentialed tasks quote no cell at all."""

    @pytest.mark.parametrize(
        ("name", "bad", "where"),
        [
            ("d.csv", f"{SECRET},\n", "row 21: the column 'label' is empty"),
            ("d.csv", f"{SECRET}\n", "row 21: 1 cells, the header has 2"),
            ("d.csv", "  ,a\n", "row 21: the column 'text' holds no text"),
            ("d.csv", f"{SECRET}, {SECRET},a\n", "row 21: 3 cells, the header has 2 (near line 22)"),
            ("d.csv", f'"{SECRET},a\n', "a quote is out of place near line 22"),
            ("d.jsonl", f'{{"text": "{SECRET}", "label" "a"}}\n', "row 21: not a line of JSON"),
            ("d.jsonl", f'{{"text": ["{SECRET}"], "label": "a"}}\n', "row 21: the column 'text' holds no text"),
        ],
    )
    def test_a_bad_row_is_named_by_number(self, tmp_path: Path, name: str, bad: str, where: str) -> None:
        if name == "d.csv":
            good = "text,label\n" + "".join(f"{SECRET} {n},{'ab'[n % 2]}\n" for n in range(20))
        else:
            good = "".join(json.dumps({"text": f"{SECRET} {n}", "label": "ab"[n % 2]}) + "\n" for n in range(20))
        (tmp_path / name).write_text(good + bad)
        message = refusal(TableFiles(train=tmp_path / name, access="credentialed"))
        assert where in message
        assert SECRET not in message

    def test_a_comma_too_many_in_every_row_does_not_shift_the_columns(self, tmp_path: Path) -> None:
        lines = ["text,label", *(f"so {number}, he said,{'ab'[number % 2]}" for number in range(20))]
        (tmp_path / "data.csv").write_text("\n".join(lines))
        assert str(tmp_path / "data.csv") in refusal(TableFiles(train=tmp_path / "data.csv"))

    @pytest.mark.parametrize("label", [["flag", "note"], "note"], ids=["as a flag", "as the label"])
    def test_a_text_column_named_by_mistake_is_not_quoted(self, tmp_path: Path, label: Any) -> Any:
        def columns(kind: str) -> Any:
            return {name: [f"{SECRET} {kind} {number}" for number in range(20)] for name in ("text", "note")}

        paths = {
            part: write(tmp_path / f"{part}.csv", {**columns(part), "flag": [0, 1] * 10}) for part in ("train", "test")
        }
        assert SECRET not in refusal(source_of(**paths, label=label, access="credentialed"))

    def test_a_flag_that_is_none_is_named_in_an_open_task(self, tmp_path: Path) -> None:
        path = write(tmp_path / "d.csv", many({"text": TRICKY[:2], "x": ["0", "1"], "y": ["1", "maybe"]}))
        message = "row 2: the column 'y' holds 'maybe'; allowed: 0, 1, true, false"
        assert refusal(TableFiles(train=path, label=["x", "y"])).endswith(message)


class TestHubDataset:
    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        datasets.disable_progress_bars()
        yield
        datasets.enable_progress_bars()

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Any:
        folder = tmp_path / "data"
        folder.mkdir()
        for number, split in enumerate(("train", "validation", "test")):
            made = rows(30 + number, number)
            columns = {"text": [row["text"] for row in made], "label": [row["label"] for row in made]}
            write(folder / f"{split}.csv", columns)
        return folder

    def test_a_local_folder_of_csv_files_equals_the_tables(self, folder: Path) -> None:
        task = HubDataset(id=str(folder), development="validation", test="test", title="x").load()
        files = {"train": "train", "development": "validation", "test": "test"}
        table = source_of(**{part: folder / f"{name}.csv" for part, name in files.items()}, title="x").load()
        assert task.hashes == table.hashes
        assert (task.name, task.labels) == ("x", ("bad", "good"))

    def test_missing_splits_are_cut(self, folder: Path) -> None:
        task = HubDataset(id=str(folder), test_share=0.5).load()
        assert task.name == str(folder)
        assert dict(task.splits.num_rows) == {"train": 13, "development": 2, "test": 15}

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"test": "tset"}, r"cannot load the dataset .*\[tset\]: .*tset"),
            ({"text": "txt"}, r"\[train\]: .*did you mean 'text'"),
        ],
    )
    def test_a_wrong_name_is_refused(self, folder: Path, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            HubDataset(id=str(folder), **wrong).load()

    @staticmethod
    def named(path: Path, labels: Any, label: Any = None) -> Any:
        label = label or datasets.ClassLabel(names=["pos", "neg"])
        features = datasets.Features({"text": datasets.Value("string"), "label": label})
        columns = {"text": [f"text {number}" for number in range(len(labels))], "label": labels}
        path.parent.mkdir(exist_ok=True)
        datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
        return str(path.parent)

    def test_class_numbers_become_their_names(self, tmp_path: Path) -> None:
        task = HubDataset(id=self.named(tmp_path / "named" / "train.parquet", [0, 1, 1] * 10)).load()
        assert task.labels == ("neg", "pos")
        every = {row["id"]: task.labels[row["label"]] for split in task.splits.values() for row in split}
        assert [every[str(number)] for number in (1, 2, 3)] == ["pos", "neg", "neg"]

    def test_an_unlabelled_split_is_refused(self, tmp_path: Path) -> None:
        self.named(tmp_path / "named" / "train.parquet", [0, 1] * 10)
        folder = self.named(tmp_path / "named" / "test.parquet", [-1] * 20)  # as GLUE's test splits are
        assert f"{folder}[test]" in refusal(HubDataset(id=folder, test="test"))

    def test_lists_of_labels(self, tmp_path: Path) -> None:
        label = datasets.List(datasets.Value("string"))
        folder = self.named(tmp_path / "lists" / "train.parquet", [["a", "b"], [], ["c"]] * 10, label)
        task = HubDataset(id=folder, label_separator=",").load()
        assert task.labels == ("a", "b", "c")
        assert {tuple(row) for split in task.splits.values() for row in split["label"]} == {
            (1, 1, 0),
            (0, 0, 0),
            (0, 0, 1),
        }


def test_cuts_are_stratified_and_cover_the_table(tmp_path: Path) -> None:
    task = TableFiles(train=write_table(tmp_path, 200), split_seed=3).load()
    every = [each for split in task.splits.values() for each in split["id"]]
    assert sorted(every, key=int) == [str(number) for number in range(1, 201)]
    good = sum(row["label"] == "good" for row in rows(200)) / 200
    assert task.splits[TEST].num_rows == 40
    for part in (TRAIN, TEST):
        labels = task.splits[part]["label"][:]
        assert abs(sum(labels) / len(labels) - good) < 1 / len(labels) + 0.01


@pytest.mark.parametrize("source", [{"name": "table", "train": "a.csv"}, {"name": "dataset", "id": "glue"}])
def test_the_old_name_of_a_metric_is_read_as_the_new_one(
    source: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    schema: Any = TableFiles if source["name"] == "table" else HubDataset
    assert validate({**source, "metrics": ["accuracy", "official_f"]}, schema).metrics == ("accuracy", "germeval_f1")
    assert caplog.messages == ["the metric official_f is now called germeval_f1"]
    assert to_plain(validate({**source, "metrics": ["germeval_f1"]}, schema))["metrics"] == ["germeval_f1"]


class TestClasses:
    TABLE: ClassVar[Columns] = {"text": [f"text {number}" for number in range(40)], "label": ["1", "0", "1", "NA"] * 10}

    def load(self, folder: Path, **settings: Any) -> Task:
        path = write(folder / "t.csv", self.TABLE)
        return validate({"train": str(path), **settings}, TableFiles).load()

    def test_have_the_order_given_and_may_lack_rows(self, tmp_path: Path) -> None:
        """Numbers are names, and a spelling of a missing value is a class where it is named."""
        task = self.load(tmp_path, classes=[1, "rare", "NA", 0])
        assert task.labels == ("1", "rare", "NA", "0")
        counted = {part: set(split["label"]) for part, split in task.splits.items()}
        assert all(each == {0, 2, 3} for each in counted.values())

    def test_several_labels_have_a_flag_for_each(self, tmp_path: Path) -> None:
        task = self.load(tmp_path, classes=["never", 0, 1, "NA"], label_separator=",")
        assert set(map(tuple, task.splits[TRAIN]["label"])) == {(0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)}

    @pytest.mark.parametrize(
        ("access", "message"),
        [("open", "the label 'NA' is not in classes; .*0, 1, N"), ("credentialed", "its label is not in classes")],
    )
    def test_refuse_a_row_of_another(self, tmp_path: Path, access: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            self.load(tmp_path, classes=[0, 1, "N"], labels={0: 0, 1: 1, "NA": "NA"}, access=access)

    @pytest.mark.parametrize(
        ("classes", "message"),
        [([0, "0"], "the label '0' is named twice"), ([], "at least 1"), ([True], "string"), ([""], "at least 1")],
    )
    def test_that_cannot_be_are_refused(self, tmp_path: Path, classes: list[Any], message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            self.load(tmp_path, classes=classes)


def test_a_split_of_several_files_joins_them_and_names_the_file_in_each_id(tmp_path: Path) -> None:
    columns: Columns = {"text": ["a b", "c d"], "label": ["x", "y"], "key": [1, 2]}
    files = [write(tmp_path / name, columns) for name in ("one.csv", "other.jsonl")]
    write(tmp_path / "train.csv", many(columns, 20))
    task = TableFiles(train=tmp_path / "train.csv", test=tuple(files), id="key").load()
    assert task.splits[TEST]["id"][:] == ["one.csv/1", "one.csv/2", "other.jsonl/1", "other.jsonl/2"]
    assert task.splits[TEST]["text"][:] == ["a b", "c d"] * 2
    single = TableFiles(train=(tmp_path / "train.csv",), test=files[0]).load()
    assert single.splits[TEST]["id"][:] == ["1", "2"]
    assert single.name == task.name == "train"


@pytest.mark.parametrize("given", [[], 3, "", ["a.csv", 3], {"a": "b"}])
def test_what_is_neither_a_file_nor_files_is_refused(given: Any) -> None:
    with pytest.raises(RecipeError, match=r"test: allowed: a file, or a list of files"):
        validate({"train": "a.csv", "test": given}, TableFiles)


def test_several_files_survive_the_recipe() -> None:
    source = validate({"train": ["a.csv", "b.csv"]}, TableFiles)
    assert to_plain(source)["train"] == ["a.csv", "b.csv"]
    assert validate(to_plain(source), TableFiles) == source
