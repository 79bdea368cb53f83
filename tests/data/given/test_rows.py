"""The user's files: guessed columns, rows with and without labels, and refusals that quote no text."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plankwise.core.errors import DataError
from plankwise.data.given.columns import ColumnOptions
from plankwise.data.given.rows import GivenRows, read_given
from plankwise.data.text_files import TextFormat

LABELS = ("hate", "none")
LONG = "a sentence of several words, number"


def csv(folder: Path, header: str, *lines: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def read(*files: Path, labels: tuple[str, ...] = LABELS, several: bool = False, **options: Any) -> GivenRows:
    how = {key: options.pop(key) for key in ("names", "form") if key in options}
    return read_given(
        files,
        model_labels=labels,
        kind="multi_label" if several else "single_label",
        options=ColumnOptions(**options) if options else None,
        **how,
    )


def columns(rows: GivenRows) -> list[tuple[str, str | None, str | None]]:
    return [(each.text, each.pair, each.label) for each in rows.columns.values()]


@pytest.mark.parametrize(
    ("header", "line", "expected"),
    [
        ("text,label", "x,hate", ("text", None, "label")),
        ("id,Tweet,CLASS", "1,x,hate", ("Tweet", None, "CLASS")),
        ("premise,hypothesis,label", "x,y,none", ("premise", "hypothesis", "label")),
        ("sentence1,sentence2,idx", "x,y,1", ("sentence1", "sentence2", None)),
        ("text,text_pair", "x,y", ("text", "text_pair", None)),
        ("text,comment,label", "x,,hate", ("text", None, "label")),  # no comment anywhere
        ("utt_id,words,kind", f"1,{LONG!r},y".replace("'", '"'), ("words", None, None)),
        ("anything", "x", ("anything", None, None)),
        ("text,label,label_text", "x,0,none", ("text", None, "label_text")),  # the one that fits
        ("text,label,target", "x,,hate", ("text", None, "target")),  # a column without a value is no candidate
    ],
)
def test_columns_are_guessed(
    tmp_path: Path, header: str, line: str, expected: tuple[str, str | None, str | None]
) -> None:
    assert columns(read(csv(tmp_path, header, line))) == [expected]


@pytest.mark.parametrize(
    ("header", "line", "said"),
    [
        ("text,comment", "x,y", "its text may be in text, comment; give --text"),
        ("premise,hypothesis,text", "x,y,z", r"its text may be in premise \+ hypothesis, text; give --text"),
        ("one,two", f'"{LONG}","{LONG}"', "its text may be in one, two; give --text"),
        ("one,two", "x,y", "no column is known to hold texts; give --text with one of one, two"),
        ("text,label,target", "x,hate,none", "its label may be in label, target; give --label"),
        ("text;label", "x;y", 'its header is one column that holds .;.; give delimiter: ";"'),
        ("a sentence of several words and more,y", "secret,none", "its first row is no header but a row of texts"),
        ("A plane flies.,A plane flies.,5.0", "a,secret,4.75", "its first row is no header but a row of texts"),
        ("A plane flies.,The plane", f'"{LONG}","{LONG}"', "its first row is no header but a row of texts"),
        ("a sentence of several,hate", "secret words,none", "its first row is no header but a row of texts"),
        ("", "", "it has no columns"),
    ],
)
def test_an_ambiguous_table_is_refused(tmp_path: Path, header: str, line: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as refused:
        read(csv(tmp_path, header, line))
    assert "sentence of several" not in str(refused.value)


def test_given_columns_are_taken(tmp_path: Path) -> None:
    path = csv(tmp_path, "text,comment,label,other", "x,y,hate,none")
    assert columns(read(path, text="comment")) == [("comment", None, "label")]
    assert columns(read(path, text="text", pair="comment", label="other")) == [("text", "comment", "other")]
    assert columns(read(path, pair="comment")) == [("text", "comment", "label")]
    unlabelled = read(path, text="text", label="")
    assert [row["label"] for row in unlabelled.rows] == [None]
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"text": "txt"}, "there is no column 'txt'; did you mean 'text'"),
        ({"text": "text", "label": "labl"}, "--label labl: no file has this column; did you mean 'label'"),
        ({"pair": "other column"}, "there is no column 'other column'"),
        ({"text": "text", "label": "text"}, "name one column twice"),
    )
    for options, said in refused:
        with pytest.raises(DataError, match=said):
            read(path, **options)


def test_files_of_all_kinds_are_pooled_and_say_what_they_hold(tmp_path: Path) -> None:
    table = csv(tmp_path, "tweet,class", "x,Hate", "y,", "z,none")
    lines = tmp_path / "u.jsonl"
    lines.write_text('{"text": "v"}\n{"text": "w", "label": "hate"}\n{"text": "w", "label": null}\n')
    plain = tmp_path / "v.txt.gz"
    plain.write_bytes(gzip.compress(b"one\n\ntwo\n"))
    parquet = tmp_path / "w.parquet"
    pq.write_table(pa.table({"review": ["r"], "stars": [4]}), parquet)
    rows = read(table, lines, plain, parquet)
    assert [(row["id"], row["text"], row["label"]) for row in rows.rows] == [
        ("t.csv:1", "x", "hate"),
        ("t.csv:2", "y", None),
        ("t.csv:3", "z", "none"),
        ("u.jsonl:1", "v", None),
        ("u.jsonl:2", "w", "hate"),
        ("u.jsonl:3", "w", None),
        ("v.txt.gz:1", "one", None),
        ("v.txt.gz:3", "two", None),
        ("w.parquet:1", "r", None),
    ]
    assert rows.said == (
        "t.csv: text in 'tweet' (guessed), label in 'class' (guessed), 2 of 3 rows labelled",
        "u.jsonl: text in 'text' (guessed), label in 'label' (guessed), 1 of 3 rows labelled",
        "v.txt.gz: one text a line, 2 rows without labels",
        "w.parquet: text in 'review' (guessed), no labels, 1 row",
    )
    assert (len(rows.labelled), len(rows.unlabelled)) == (3, 6)
    assert [row["text"] for row in rows.only([parquet]).rows] == ["r"]


def test_files_of_one_name_have_ids_of_their_own(tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths.append(csv(tmp_path / name, "text", "x"))
    assert [row["id"] for row in read(*paths).rows] == [f"{path}:1" for path in paths]


def test_a_table_that_is_named_like_plain_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("a secret\tOTHER\tOTHER\nanother\tOFFENSE\tINSULT\nlast\n")
    with pytest.raises(DataError, match=r"t.txt: most of its lines hold tabs; name it .tsv, with a first"):
        read(path)


def test_a_column_without_a_name_is_no_label(tmp_path: Path) -> None:
    rows = read(csv(tmp_path, ",text,class", "0,x,7"), label="")
    assert columns(rows) == [("text", None, None)]


def test_encoding_and_delimiter_go_to_the_files_that_have_them(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes("text;label\nschön;none\n".encode("cp1252"))
    parquet = tmp_path / "w.parquet"
    pq.write_table(pa.table({"text": ["r"]}), parquet)
    rows = read(table, parquet, form=TextFormat("cp1252", ";")).rows
    assert [row["text"] for row in rows] == ["schön", "r"]
    with pytest.raises(DataError, match=r"delimiter is for \.csv files"):
        read(parquet, form=TextFormat(None, ";"))


def test_a_label_named_in_no_table_is_refused_but_one_file_may_lack_it(tmp_path: Path) -> None:
    one = csv(tmp_path, "text,gold", "x,hate", name="a.csv")
    two = csv(tmp_path, "text", "y", name="b.csv")
    assert [row["label"] for row in read(one, two, label="gold").rows] == ["hate", None]
    with pytest.raises(DataError, match="--label gold: no file has this column"):
        read(two, label="gold")


def test_a_column_that_holds_labels_under_another_name_is_hinted_at(tmp_path: Path) -> None:
    rows = read(csv(tmp_path, "text,annotation", "x,hate", "y,none"))
    assert (
        rows.said[1] == "t.csv: give --label annotation if its column 'annotation', with names of labels, is the label"
    )
    assert not rows.labelled


def test_labels_that_do_not_fit_are_refused_with_both_lists_unless_mapped(tmp_path: Path) -> None:
    path = csv(tmp_path, "text,class", "secret,0", "y,1", "z,1", "w,none")
    with pytest.raises(
        DataError, match=r"'1' \(2\), '0' \(1\); the model's are hate, none.*--map '0=LABEL'"
    ) as refused:
        read(path)
    assert "secret" not in str(refused.value)
    rows = read(path, names={"0": "none", "1": "hate"}).rows
    assert [row["label"] for row in rows] == ["none", "hate", "hate", "none"]
    with pytest.raises(DataError, match="--map 2=hate: no row has the label '2'"):
        read(path, names={"0": "none", "1": "hate", "2": "hate"})


def test_a_label_that_reads_as_missing_is_refused_by_its_row(tmp_path: Path) -> None:
    path = csv(tmp_path, "text,label", "x,hate", "y,NaN")
    with pytest.raises(DataError, match=r"t.csv, row 2: the column 'label' holds 'NaN', which reads as a missing"):
        read(path)
    assert read(path, names={"NaN": "none"}).rows[1]["label"] == "none"


@pytest.mark.parametrize("line", ['"  ",hate', ",hate"])
def test_a_row_without_text_is_refused_by_its_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"t.csv, row 2: the column 'text' holds no text; leave the row out"):
        read(csv(tmp_path, "text,label", "x,hate", line))


def test_pairs_in_some_files_only_are_refused(tmp_path: Path) -> None:
    one = csv(tmp_path, "text_a,text_b", "x,y", name="a.csv")
    two = csv(tmp_path, "text", "y", name="b.csv")
    assert read(one).pairs
    assert read(one).rows[0]["text_pair"] == "y"
    with pytest.raises(DataError, match=r"b.csv has one text a row and .*a.csv has pairs"):
        read(one, two)


@pytest.mark.parametrize(
    ("name", "said"), [("t.xlsx", "no reader for '.xlsx' files; allowed: .csv"), ("absent.csv", "cannot read .*absent")]
)
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path / name)
    path = csv(tmp_path, "text", "x")
    with pytest.raises(DataError, match="is given twice"):
        read(path, path)
    with pytest.raises(DataError, match="no files are given"):
        read()
    with pytest.raises(DataError, match="it has no rows"):
        read(csv(tmp_path, "text", name="empty.csv"), text="text")


def test_several_labels_are_separated_or_listed(tmp_path: Path) -> None:
    table = csv(tmp_path, "text,labels", "x,hate|NONE|hate", "y,", "z,none")
    lines = tmp_path / "u.jsonl"
    lines.write_text("\n".join(json.dumps({"text": "t", "labels": each}) for each in (["hate"], [])) + "\n")
    rows = read(table, lines, several=True)
    assert [row["label"] for row in rows.rows] == [["hate", "none"], None, ["none"], ["hate"], []]
    assert "label in 'labels' separated by '|' (guessed), 2 of 3 rows labelled" in rows.said[0]
    given = read(csv(tmp_path, "text,labels", "x,hate/none"), several=True, separator="/")
    assert given.rows[0]["label"] == ["hate", "none"]
    with pytest.raises(DataError, match=r"the model does not have: 'x' \(1\)"):
        read(csv(tmp_path, "text,labels", "x,hate;x"), several=True)
