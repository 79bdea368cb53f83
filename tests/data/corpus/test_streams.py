"""One stream of documents out of files of every kind and packing, and what is refused on the way."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plankwise.core.errors import DataError
from plankwise.data.corpus.streams import KINDS, MAX_LINES, documents_of, find_files
from plankwise.data.text_files import COMPRESSED

DOCUMENTS = [["Grüße aus Köln", "zweite Zeile, mit „Zitat“"], ["only\tone line"], ['a "quoted" word', "x", "y"]]
SECRET = "geheimnis"
DAMAGED = "the {} stream is damaged or cut off"


def zstandard(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(data)
    return bytes(sink.getvalue())


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard,
}


def content(kind: str, documents: list[list[str]] = DOCUMENTS) -> bytes:
    """Write documents the way each kind holds them."""
    texts = ["\n".join(lines) for lines in documents]
    if kind == ".txt":
        return "\n\n".join(texts).encode()
    if kind == ".jsonl":
        return "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts).encode()
    if kind == ".parquet":
        sink = io.BytesIO()
        pq.write_table(pa.table({"n": list(range(len(texts))), "text": texts}), sink)
        return sink.getvalue()
    table = io.StringIO(newline="")
    csv.writer(table, delimiter="," if kind == ".csv" else "\t").writerows(
        [["n", "text"], *([1, each] for each in texts)]
    )
    return table.getvalue().encode()


def read(path: Path, text: str = "text") -> list[list[str]]:
    return list(documents_of([path], text))


def save(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_every_packing_is_under_test() -> None:
    assert set(PACK) == {"", *COMPRESSED}


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_documents_come_out_of_every_kind_and_packing(kind: str, packing: str, tmp_path: Path) -> None:
    assert read(save(tmp_path, f"some.thing{kind}{packing}", PACK[packing](content(kind)))) == DOCUMENTS
    assert read(save(tmp_path, f"LOUD{kind}{packing}".upper(), PACK[packing](content(kind)))) == DOCUMENTS


@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".csv", ".tsv"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(kind: str, tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + content(kind).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert read(save(tmp_path, f"a{kind}", data)) == DOCUMENTS


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".csv", ".tsv"])
def test_an_encoding_that_is_named_gives_the_same_documents(kind: str, encoding: str, tmp_path: Path) -> None:
    path = save(tmp_path, f"a{kind}", content(kind).decode().encode(encoding))
    assert list(documents_of([path], "text", encoding)) == DOCUMENTS


@pytest.mark.parametrize("packing", [".gz", ".xz", ".zst"])
def test_packed_pieces_in_one_file_are_read_to_the_last(packing: str, tmp_path: Path) -> None:
    data = PACK[packing](b"one\n\n") + PACK[packing](b"two\n")
    assert read(save(tmp_path, f"a.txt{packing}", data)) == [["one"], ["two"]]


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_row_or_document_gives_nothing(kind: str, tmp_path: Path) -> None:
    documents = [[""], ["a"], ["", " ", "\t"], ["b", "", "c"] if kind != ".txt" else ["b", "c"], [""]]
    assert read(save(tmp_path, f"a{kind}", content(kind, documents))) == [["a"], ["b", "c"]]


def test_a_row_without_text_gives_nothing(tmp_path: Path) -> None:
    assert read(save(tmp_path, "a.jsonl", b'{"text": null}\n\n{"text": "a"}\n')) == [["a"]]
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array([None, "a"])}), sink)
    assert read(save(tmp_path, "a.parquet", sink.getvalue())) == [["a"]]
    assert read(save(tmp_path, "empty.txt", b"")) == []
    assert read(save(tmp_path, "empty.txt.zst", b"")) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_document_is_cut(kind: str, tmp_path: Path) -> None:
    lines = [str(number) for number in range(2 * MAX_LINES + 5)]
    cut = read(save(tmp_path, f"a{kind}", content(kind, [lines])))
    assert [len(each) for each in cut] == [MAX_LINES, MAX_LINES, 5]
    assert [line for each in cut for line in each] == lines


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_line_is_cut(kind: str, tmp_path: Path) -> None:
    path = save(tmp_path, f"a{kind}", content(kind, [["ä" * 24, "b"]]))
    assert list(documents_of([path], "text", max_characters=10)) == [["ä" * 10, "ä" * 10, "ä" * 4, "b"]]


def test_half_a_surrogate_pair_is_replaced(tmp_path: Path) -> None:
    (document,) = read(save(tmp_path, "a.jsonl", b'{"text": "a \\ud83d b \\ud83d\\ude00"}\n'))
    assert document == ["a \N{REPLACEMENT CHARACTER} b \N{GRINNING FACE}"]


def parquet_of(**columns: list[object]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def twice() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table([[SECRET], ["a"]], names=["text", "text"]), sink)
    return sink.getvalue()


LONG = (SECRET + " and more of it\n").encode() * 20_000
BAD: dict[str, tuple[str, bytes, str]] = {
    "cut gz": (
        "a.txt.gz",
        gzip.compress(os.urandom(5000).hex().encode())[:-300],
        DAMAGED.format("gzip"),
    ),
    "cut xz": (
        "a.txt.xz",
        lzma.compress(os.urandom(5000).hex().encode())[:-300],
        DAMAGED.format("xz"),
    ),
    "cut zst": ("a.txt.zst", PACK[".zst"](LONG)[:-4], DAMAGED.format("zstd")),
    "damaged gz": ("a.txt.gz", gzip.compress(LONG)[:20] + b"\0" * 200, DAMAGED.format("gzip")),
    "damaged xz": ("a.txt.xz", b"no xz", DAMAGED.format("xz")),
    "damaged zst": ("a.txt.zst", b"no zst at all", DAMAGED.format("zstd")),
    "gz that is none": ("a.txt.gz", SECRET.encode(), DAMAGED.format("gzip")),
    "no UTF-8": (
        "a.txt",
        LONG + f"{SECRET} ".encode() + b"\xff\xfe",
        "is not UTF-8, most likely cp1252; give encoding: cp1252",
    ),
    "no UTF-8, jsonl": ("a.jsonl", f'{{"text": "{SECRET}'.encode() + b'\xff"}', "is not UTF-8, most likely cp1252"),
    "no UTF-8, csv": ("a.csv", f"text\n{SECRET}".encode() + b"\xff\n", "is not UTF-8, most likely cp1252"),
    "no JSON": ("a.jsonl", f'{{"text": "a"}}\n{{"text": "{SECRET}"'.encode(), r"a\.jsonl, row 2: not a line of JSON"),
    "deep JSON": ("a.jsonl", b"[" * 100_000, r"a\.jsonl, row 1: not a line of JSON"),
    "missing key": (
        "a.jsonl",
        f'{{"txt": "{SECRET}"}}'.encode(),
        r"row 1: .*no column 'text'; did you mean 'txt'\?",
    ),
    "no object": ("a.jsonl", f'["{SECRET}"]'.encode(), "row 1: not a JSON object"),
    "number": ("a.jsonl", b'{"text": "a"}\n{"text": 17}', r"row 2: its text is int, not a string"),
    "list": ("a.jsonl", f'{{"text": ["{SECRET}"]}}'.encode(), r"row 1: its text is list, not a string"),
    "no parquet": ("a.parquet", LONG, "it is no Parquet file, or damaged"),
    "cut parquet": ("a.parquet", parquet_of(text=[SECRET] * 99)[:-20], "it is no Parquet file, or damaged"),
    "cut parquet.gz": (
        "a.parquet.gz",
        gzip.compress(parquet_of(text=[SECRET] * 99))[:-20],
        DAMAGED.format("gzip"),
    ),
    "parquet column twice": ("a.parquet", twice(), "there are 2 columns 'text'; allowed: one"),
    "parquet column": ("a.parquet", parquet_of(txt=[SECRET]), r"no column 'text'; did you mean 'txt'\?"),
    "parquet numbers": ("a.parquet", parquet_of(text=[1, 2]), r"row 1: its text is int, not a string"),
    "parquet bytes": ("a.parquet", parquet_of(text=[SECRET.encode()]), r"row 1: its text is bytes, not a string"),
    "csv column": ("a.csv", f"txt\n{SECRET}\n".encode(), r"no column 'text'; did you mean 'txt'\?"),
    "ragged csv": ("a.csv", f"n,text\n1,{SECRET}\n2,{SECRET},{SECRET}\n".encode(), "row 2: 3 cells, the header has 2"),
    "open quote": (
        "a.csv",
        f'text\n"{SECRET}\n'.encode(),
        "a quote is out of place near line 2, or the file",
    ),
    "tsv as csv": ("a.tsv", f"n,text\n1,{SECRET}\n".encode(), "its header is one column that holds ','; name"),
    "column twice": ("a.csv", f"text,text\n{SECRET},a\n".encode(), "there are 2 columns 'text'; allowed: one"),
    "key twice": ("a.jsonl", f'{{"text": "a", "text": "{SECRET}"}}'.encode(), "row 1: a key is there twice"),
    "UTF-16": ("a.txt", SECRET.encode("utf-16-le"), "not UTF-8, most likely utf-16-le"),
    "empty csv": ("a.csv", b"", "there is no column 'text'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_in_one_line_that_quotes_nothing(case: str, tmp_path: Path) -> None:
    name, data, message = BAD[case]
    path = save(tmp_path, name, data)
    with pytest.raises(DataError, match=message) as error:
        read(path)
    said = str(error.value)
    assert name in said
    assert "\n" not in said
    assert SECRET not in said
    assert error.value.exit_code == 2


def names(found: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found]


def test_folders_are_searched_and_hidden_and_other_files_passed_over(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.jsonl.gz", "a/d/e.PARQUET", "note.md", "x.gz", ".hidden.txt", ".git/f.txt", "a/._c.txt"):
        save(tmp_path, f"top/{name}", b"x")
    assert names(find_files([str(tmp_path / "top")]), tmp_path / "top") == ["a/c.jsonl.gz", "a/d/e.PARQUET", "b.txt"]
    save(tmp_path, ".cache/in/g.txt", b"x")  # only what is hidden below the folder named counts
    assert len(find_files([str(tmp_path / ".cache" / "in")])) == 1


def test_globs_relative_absolute_and_nested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.txt", "a/c.txt", "a/d/e.txt", "a/d/f.csv"):
        save(tmp_path, name, b"x")
    assert names(find_files([str(tmp_path / "**" / "*.txt")]), tmp_path) == ["a/c.txt", "a/d/e.txt", "b.txt"]
    assert names(find_files([str(tmp_path / "a" / "?" / "[ef].*")]), tmp_path) == ["a/d/e.txt", "a/d/f.csv"]
    monkeypatch.chdir(tmp_path)
    assert [str(path) for path in find_files(["a/**/*.txt", "b.txt"])] == ["a/c.txt", "a/d/e.txt", "b.txt"]
    save(tmp_path, "odd[1].txt", b"x")
    assert [str(path) for path in find_files(["odd[1].txt"])] == ["odd[1].txt"], "a file of that very name comes first"


def test_a_file_named_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "in/a.txt", b"x")
    (tmp_path / "in" / "link.txt").symlink_to("a.txt")
    monkeypatch.chdir(tmp_path)
    assert find_files(["in/a.txt", "in", str(tmp_path / "in" / "*.txt"), "in/../in/a.txt"]) == [Path("in/a.txt")]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("gone.txt", r"'gone\.txt' matches no file; allowed: \.txt, \.jsonl"),
        ("*.txt", r"'\*\.txt' matches no file"),
        ("empty", "'empty' matches no file"),
        ("a.md", r"a\.md: no reader for '\.md' files"),
        ("b.gz", r"b\.gz: no reader for '' files"),
        ("x" * 5000, "File name too long|matches no file"),
        ("~nobody-of-this-name/a.txt", "home"),
        ("a\0b", "null byte|matches no file"),
    ],
)
def test_a_pattern_that_finds_nothing_to_read_is_refused(
    pattern: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    save(tmp_path, "a.md", b"x")
    save(tmp_path, "b.gz", b"x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        find_files([pattern])
