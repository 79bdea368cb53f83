"""Tables in and out: every kind, faults by number and never by text, kills at any moment, refusals."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny
from deployables import FakeRuntime, fake_model
from plankwise.core.errors import CheckpointError, DataError, OutputError
from plankwise.data.batching.inputs import Encoded, Text
from plankwise.data.text_files import TextFormat
from plankwise.data.truncation import Truncation, Windows
from plankwise.deploy.predictor import Predictor
from plankwise.deploy.tables.prediction import predict_table
from plankwise.deploy.tables.screening import FaultPolicy, InputColumns, ScreenedBlock

SECRET = "geheimnis"
SKIP = FaultPolicy(on_error="skip")
PAIRS = [  # each ending once as input and once as output, and those that keep the types of cells
    (".csv", ".parquet"),
    (".tsv", ".jsonl"),
    (".jsonl", ".csv.gz"),
    (".parquet", ".tsv"),
    (".csv.gz", ".jsonl.zst"),
    (".jsonl.zst", ".tsv.xz"),
    (".tsv.xz", ".csv"),
    (".parquet", ".parquet"),
    (".parquet", ".jsonl"),
    (".jsonl", ".jsonl"),
]
UNPACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".xz": lzma.decompress}
PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress}
AWKWARD = ['a "quoted" day, fine', "two\nlines", "grüße", "the\rday", "under\tthe tree"]


def rows(count: int) -> list[dict[str, Any]]:
    made = [{"name": f"n{number}", "text": each["text"], "n": number} for number, each in enumerate(tiny.rows(count))]
    return (
        made[: count // 2]
        + [{"name": f"é{i}", "text": each, "n": i} for i, each in enumerate(AWKWARD)]
        + made[count // 2 :]
    )


def write(path: Path, given: list[dict[str, Any]]) -> Path:
    inner = path.with_suffix("") if path.suffix in (".gz", ".xz", ".zst") else path
    plain = path.parent / f"plain{inner.suffix}"
    if inner.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(given), plain, row_group_size=50)
    elif inner.suffix == ".jsonl":
        plain.write_text("".join(json.dumps(row) + "\n\n" for row in given), encoding="utf-8")
    else:
        with plain.open("w", newline="", encoding="utf-8-sig") as file:
            table = csv.DictWriter(file, given[0].keys(), delimiter="," if inner.suffix == ".csv" else "\t")
            table.writeheader()
            table.writerows(given)
    data = plain.read_bytes()
    plain.unlink()
    packed = (
        pa.Codec("zstd").compress(data, asbytes=True) if path.suffix == ".zst" else PACK.get(path.suffix, bytes)(data)
    )
    path.write_bytes(packed)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        table: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return table
    if path.suffix == ".zst":
        data = pa.input_stream(str(path), compression="zstd").read()
    else:
        data = UNPACK.get(path.suffix, bytes)(path.read_bytes())
    text = data.decode()
    if ".jsonl" in path.name:
        return [json.loads(line) for line in text.split("\n") if line]
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="," if ".csv" in path.name else "\t"))


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(fake_model(), buffer_size=40, tokens_per_batch=64)


@pytest.mark.parametrize(("given", "ending"), PAIRS)
def test_every_kind_in_and_out(predictor: Predictor, tmp_path: Path, given: str, ending: str) -> None:
    source, out = write(tmp_path / f"in{given}", rows(90)), tmp_path / f"out{ending}"
    document = predict_table(predictor, source, out, InputColumns(id="name", keep=("text", "n")))
    shares = predictor.probabilities([row["text"] for row in rows(90)])
    found = read(out)
    assert [row["name"] for row in found] == [row["name"] for row in rows(90)]
    assert [row["text"] for row in found] == [row["text"] for row in rows(90)]
    typed = given[:4] in (".jso", ".par") and (ending[:4] == ".jso" or given == ending)
    assert [row["n"] for row in found] == [row["n"] if typed else str(row["n"]) for row in rows(90)]
    columns = [[float(row[f"probability_{label}"]) for row in found] for label in predictor.labels]
    assert np.allclose(np.array(columns).T, shares, atol=1e-6)
    assert [row["predicted_label"] for row in found] == [predictor.labels[index] for index in shares.argmax(axis=1)]
    assert document["rows"] == document["predicted"] == 95
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([source.name, out.name])


class TestFaults:
    ROWS = (
        ["the day", None, 7, "", " \t ", f"{SECRET} " * 70, "never", "half \ud800 a pair", ["a"], "often"],
        [None, "missing", "not text", "empty", "empty", "over-long", None, "not text", "not text", None],
    )

    def write(self, folder: Path) -> Path:
        lines = [json.dumps({"text": text, "name": SECRET}) for text in self.ROWS[0]]
        lines.insert(2, f'{{"text": "{SECRET}')
        lines.append(json.dumps({"name": "the text is missing"}))
        (folder / "in.jsonl").write_text("\n".join(lines) + "\n")
        return folder / "in.jsonl"

    def expected(self) -> list[tuple[int, str]]:
        faults = [*self.ROWS[1], "missing"]
        faults.insert(2, "malformed")
        return [(number, fault) for number, fault in enumerate(faults, 1) if fault]

    @pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
    def test_what_utf_8_cannot_hold_is_a_fault_in_copied_columns_too(self, tmp_path: Path, ending: str) -> None:
        kept = ["a", "half \ud800", ["a", "\udfff"], "b"]
        source = tmp_path / "in.jsonl"
        source.write_text(
            "".join(json.dumps({"text": "the \0 day" if n == 3 else "a", "k": k}) + "\n" for n, k in enumerate(kept))
        )
        document = predict_table(
            Predictor(fake_model()), source, tmp_path / f"out{ending}", InputColumns(keep=("k",)), policy=SKIP
        )
        assert (document["predicted"], document["skipped"]) == (1, {"not text": 3})

    @pytest.mark.parametrize("buffer_size", [1, 4, 100])
    def test_skipped_rows_are_left_out_and_listed_by_number(self, tmp_path: Path, buffer_size: int) -> None:
        predictor = Predictor(fake_model(), buffer_size=buffer_size)
        document = predict_table(predictor, self.write(tmp_path), tmp_path / "out.csv", policy=SKIP)
        listed = [json.loads(line) for line in (tmp_path / "out.csv.errors.jsonl").read_text().splitlines()]
        assert [(each["row"], each["fault"]) for each in listed] == self.expected()
        assert [each.get("tokens") for each in listed if each["fault"] == "over-long"] == [72]
        assert [row["row"] for row in read(tmp_path / "out.csv")] == ["1", "8", "11"]
        assert document["skipped"] == {"missing": 2, "malformed": 1, "not text": 3, "empty": 2, "over-long": 1}
        assert (document["rows"], document["predicted"]) == (12, 3)
        written = "".join(each.read_text() for each in tmp_path.iterdir() if each.name != "in.jsonl")
        assert SECRET not in written

    def test_failing_names_the_first_row_and_keeps_what_is_done(self, tmp_path: Path) -> None:
        source, out, given = tmp_path / "in.jsonl", tmp_path / "out.csv", rows(90)
        write(source, [*given, {"text": "", "name": "x"}, {"text": None, "name": "x"}, *given])
        predictor = Predictor(fake_model(), buffer_size=40)
        with pytest.raises(
            DataError, match=r"in.jsonl, row 96: empty; .* skip .*; 80 rows are done, --resume continues$"
        ):
            predict_table(predictor, source, out)
        assert not out.exists()
        with pytest.raises(OutputError, match=r"was begun; --resume continues"):
            predict_table(predictor, source, out, policy=SKIP)
        document = predict_table(predictor, source, out, policy=SKIP, resume=True)
        assert [document[name] for name in ("predicted", "resumed_at", "skipped")] == [
            190,
            80,
            {"empty": 1, "missing": 1},
        ]
        predict_table(predictor, source, tmp_path / "at-once.csv", policy=SKIP)
        assert out.read_bytes() == (tmp_path / "at-once.csv").read_bytes()

    def test_failing_in_the_first_block_leaves_nothing(self, predictor: Predictor, tmp_path: Path) -> None:
        source = self.write(tmp_path)
        with pytest.raises(
            DataError, match=r"in.jsonl, row 2: missing; allowed: text, --on-error skip leaves such rows out$"
        ):
            predict_table(predictor, source, tmp_path / "out.csv")
        assert list(tmp_path.iterdir()) == [source]

    def test_over_long_texts_are_cut_on_request_and_windows_read_them_whole(self, tmp_path: Path) -> None:
        texts = ["the day", "the fine house under the awful tree " * 3, "never"]
        source = write(tmp_path / "in.parquet", [{"text": text} for text in texts])
        with pytest.raises(DataError, match=r"row 2: over-long, 23 tokens where the model reads 8; --truncate cuts"):
            predict_table(Predictor(fake_model(), max_length=8), source, tmp_path / "a.jsonl")
        readings = [Truncation(max_length=8), Truncation(max_length=8, windows=Windows(max_windows=2))]
        for number, (truncation, truncate) in enumerate(zip(readings, (True, False), strict=True)):
            predictor, out = Predictor(fake_model(truncation=truncation)), tmp_path / f"{number}.jsonl"
            document = predict_table(predictor, source, out, policy=FaultPolicy(truncate=truncate))
            assert document["truncated"] == int(truncate)
            assert np.allclose(
                [row["probability_bad"] for row in read(out)], predictor.probabilities(texts)[:, 1], atol=1e-6
            )

    def test_several_labels_are_joined_or_listed(self, tmp_path: Path) -> None:
        source = write(tmp_path / "in.csv", rows(20))
        predictor = Predictor(fake_model(kind="multi_label"))
        for ending, expected in ((".csv", "good|bad"), (".jsonl", ["good", "bad"]), (".parquet", ["good", "bad"])):
            predict_table(predictor, source, tmp_path / f"out{ending}")
            assert {str(row["predicted_labels"]) for row in read(tmp_path / f"out{ending}")} == {str(expected)}


class TestResuming:
    """Runs are real processes, killed for good at moments drawn at random."""

    def run(self, source: Path, out: Path, seconds: float = 0.03) -> int:
        process = os.fork()
        if process == 0:
            try:
                predictor = Predictor(fake_model(FakeRuntime(seconds=seconds)), buffer_size=50, tokens_per_batch=200)
                predict_table(predictor, source, out, InputColumns(id="name"), policy=SKIP, resume=True)
            except BaseException:
                os._exit(1)
            os._exit(0)
        return process

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    @pytest.mark.parametrize("ending", [".csv", ".jsonl.zst", ".parquet"])
    def test_killed_again_and_again_it_writes_the_same_bytes(self, tmp_path: Path, ending: str) -> None:
        given = rows(900)
        for number in range(7, 900, 101):
            given[number]["text"] = ""
        source, out, whole = write(tmp_path / "in.csv", given), tmp_path / f"out{ending}", tmp_path / f"whole{ending}"
        assert os.waitpid(self.run(source, whole, 0), 0)[1] == 0
        draw, killed = random.Random(ending), 0
        for _ in range(5):
            process = self.run(source, out)
            time.sleep(draw.uniform(0.02, 0.25))
            os.kill(process, signal.SIGKILL)
            killed += os.waitpid(process, 0)[1] == signal.SIGKILL
        assert killed >= 2
        assert os.waitpid(self.run(source, out), 0)[1] == 0
        assert out.read_bytes() == whole.read_bytes()
        faults = [path.with_name(f"{path.name}.errors.jsonl").read_bytes() for path in (out, whole)]
        assert faults[0] == faults[1]
        assert len(read(out)) == 905 - 9
        assert not [each for each in tmp_path.iterdir() if each.name.endswith(".partial")]

    def test_a_finished_run_is_left_alone(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        runtime = FakeRuntime()
        predictor = Predictor(fake_model(runtime), buffer_size=40)
        source, out = write(tmp_path / "in.csv", rows(90)), tmp_path / "out.csv"
        first = predict_table(predictor, source, out)
        caplog.set_level("INFO")
        before, runs = out.stat(), len(runtime.shapes)
        again = predict_table(predictor, source, out, resume=True)
        assert "complete already; nothing was done" in caplog.text
        assert (out.stat().st_mtime_ns, len(runtime.shapes)) == (before.st_mtime_ns, runs)
        assert (again["rows"], again["predicted"]) == (first["rows"], first["predicted"])
        with pytest.raises(OutputError, match=r"out.csv exists already"):
            predict_table(predictor, source, out)

    def test_another_model_input_or_option_is_refused_by_name(self, tmp_path: Path) -> None:
        source, out = write(tmp_path / "in.csv", rows(90)), tmp_path / "out.csv"
        write(source, [*rows(90), {"name": "x", "text": "", "n": 1}])
        with pytest.raises(DataError, match="row 96"):
            predict_table(Predictor(fake_model(), buffer_size=40), source, out)
        predictor = Predictor(fake_model(), buffer_size=40)
        with pytest.raises(
            CheckpointError, match=r"keep was \[\] and is \[\"n\"\]; remove .*out.csv.partial to start again"
        ):
            predict_table(predictor, source, out, InputColumns(keep=("n",)), resume=True)
        with pytest.raises(CheckpointError, match=r"out.csv: max_length was 64 and is 32; remove"):
            predict_table(Predictor(fake_model(), buffer_size=40, max_length=32), source, out, resume=True)
        with pytest.raises(CheckpointError, match=r"out.csv: the model differs; remove"):
            predict_table(Predictor(fake_model(kind="multi_label"), buffer_size=40), source, out, resume=True)
        write(source, rows(91))
        with pytest.raises(CheckpointError, match=r"out.csv: the input differs; remove"):
            predict_table(predictor, source, out, resume=True)


class CountingPredictor(Predictor):
    """Counts the texts that are tokenized ahead of those that are predicted."""

    tokenized, ahead = 0, list[int]()

    def encode(self, texts: list[Text], truncate: bool = True) -> Encoded:
        self.tokenized += len(texts)
        return super().encode(texts, truncate)

    def run(self, blocks: Iterable[tuple[Encoded, Any]], on_progress: Any = None) -> Iterator[tuple[Any, Any]]:
        done, self.ahead = 0, []
        for block, shares in super().run(blocks, on_progress):
            assert isinstance(block, ScreenedBlock)
            done += block.rows
            self.ahead.append(self.tokenized - done)
            yield block, shares


def test_a_long_table_is_read_a_few_blocks_ahead(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows(2000))
    predictor = CountingPredictor(fake_model(FakeRuntime(seconds=0.001)), buffer_size=50)
    predict_table(predictor, source, tmp_path / "out.csv")
    assert len(predictor.ahead) == 41  # 2,005 rows
    assert max(predictor.ahead) <= 3 * 50


def test_a_run_that_an_earlier_version_began_is_resumed(tmp_path: Path) -> None:
    """It had other names for the size of a block and for the number of windows."""
    source, out = write(tmp_path / "in.csv", [*rows(90), {"name": "x", "text": "", "n": 1}]), tmp_path / "out.csv"
    windows = Truncation(max_length=12, windows=Windows(max_windows=2))
    predictor = Predictor(fake_model(truncation=windows), buffer_size=40)
    with pytest.raises(DataError, match="row 96"):
        predict_table(predictor, source, out)
    at = tmp_path / ".out.csv.partial" / "progress.json"
    stored = json.loads(at.read_text())
    stored["made_of"]["look_ahead"] = stored["made_of"].pop("buffer_size")
    stored["made_of"]["windows"]["most"] = stored["made_of"]["windows"].pop("max_windows")
    at.write_text(json.dumps(stored))
    assert predict_table(predictor, source, out, policy=SKIP, resume=True)["resumed_at"] == 80


def test_an_encoding_and_a_delimiter_are_read_and_remembered(predictor: Predictor, tmp_path: Path) -> None:
    texts = ["the größer day", "a lovely tree", "often grim; cruel"]
    lines = ["text;n", *(f'"{text}";{n}' for n, text in enumerate(texts))]
    for encoding in ("cp1252", "utf-16", "utf-16-le"):
        source, out = tmp_path / f"{encoding}.csv.gz", tmp_path / f"{encoding}.jsonl"
        source.write_bytes(gzip.compress("\r\n".join(lines).encode(encoding)))
        form = TextFormat(encoding, ";")
        predict_table(predictor, source, out, InputColumns(keep=("text", "n")), text_format=form)
        found = read(out)
        assert [row["text"] for row in found] == texts
        shares = predictor.probabilities(texts)
        columns = [[row[f"probability_{label}"] for row in found] for label in predictor.labels]
        assert np.allclose(np.array(columns).T, shares, atol=1e-6)
    with pytest.raises(DataError, match="not UTF-8, most likely utf-16; give encoding: utf-16"):
        predict_table(predictor, tmp_path / "utf-16.csv.gz", tmp_path / "out.csv")


class TestRefusals:
    def check(
        self, predictor: Predictor, source: Path, out: Path, error: type[Exception], message: str, **options: Any
    ) -> None:
        before = sorted(each.name for each in out.parent.iterdir()) if out.parent.is_dir() else []
        with pytest.raises(error, match=message) as raised:
            predict_table(predictor, source, out, **options)
        assert "\n" not in str(raised.value)
        assert SECRET not in str(raised.value)
        assert (sorted(each.name for each in out.parent.iterdir()) if out.parent.is_dir() else []) == before

    def test_places(self, predictor: Predictor, tmp_path: Path) -> None:
        source, out = write(tmp_path / "in.csv", rows(9)), tmp_path / "out.csv"
        self.check(predictor, tmp_path / "no.csv", out, DataError, "there is no file .*no.csv")
        self.check(
            predictor,
            source,
            tmp_path / "out.xlsx",
            DataError,
            "no reader for '.xlsx' files; allowed: .csv, .tsv, .jsonl, .parquet, plain or .gz",
        )
        self.check(predictor, source, tmp_path / "out.parquet.gz", OutputError, "allowed: out.parquet$")
        self.check(
            predictor, source, tmp_path / "no" / "out.csv", OutputError, "there is no folder .*no to write out.csv"
        )
        self.check(predictor, source, source, OutputError, "in.csv is the input itself")
        out.write_text("mine")
        self.check(predictor, source, out, OutputError, "out.csv exists already", resume=True)
        (tmp_path / "odd.csv").mkdir()
        self.check(predictor, source, tmp_path / "odd.csv", OutputError, "odd.csv is a folder")

    def test_a_row_out_of_shape_is_named_with_the_reason(self, predictor: Predictor, tmp_path: Path) -> None:
        for name, content, said in (
            ("in.csv", f"text,n\na,1\n{SECRET},2,3\n", "3 cells, the header has 2 (near line 3)"),
            ("in.jsonl", f'{{"text": "a"}}\n{{"text": "{SECRET}", "text": "b"}}\n', "a key is there twice"),
        ):
            (tmp_path / name).write_text(content)
            message = re.escape(f"{name}, row 2: malformed, {said}, --on-error skip leaves such rows out")
            self.check(predictor, tmp_path / name, tmp_path / "out.csv", DataError, message)

    def test_columns(self, predictor: Predictor, tmp_path: Path) -> None:
        source, out = write(tmp_path / "in.csv", rows(9)), tmp_path / "out.csv"
        for wrong in (
            InputColumns("txt"),
            InputColumns(text_pair="txt"),
            InputColumns(id="txt"),
            InputColumns(keep=("txt",)),
        ):
            self.check(predictor, source, out, DataError, "no column 'txt'; .*Allowed: name, text, n", columns=wrong)
        self.check(predictor, source, out, OutputError, "two columns 'n'", columns=InputColumns(id="n", keep=("n",)))
        with pytest.raises(DataError, match="no policy on_error 'stop'"):
            FaultPolicy(on_error="stop")
        with pytest.raises(DataError, match="'text' is given for both texts of a pair"):
            InputColumns(text_pair="text")

    def test_broken_files(self, predictor: Predictor, tmp_path: Path) -> None:
        out, packed = tmp_path / "out.csv", gzip.compress(f"text\n{SECRET}\n".encode() * 9)
        broken = {
            "cut.csv.gz": (packed[:-9], "cannot read .*cut.csv.gz: the gzip stream is damaged or cut off"),
            "no.csv.gz": (SECRET.encode(), "cannot read .*no.csv.gz"),
            "latin.csv": (
                f"text\n{SECRET}\xfc\n".encode("latin-1"),
                "cannot read .*latin.csv: it is not UTF-8, most likely cp1252; give encoding: cp1252",
            ),
            "quote.csv": (f'text\n"{SECRET}" day\n'.encode(), "quote is out of place near line 2"),
            "quote.tsv": (f'text\tn\n"{SECRET}\t1\nday\t"2"\n'.encode(), "quote"),
            "no.parquet": (SECRET.encode(), "cannot read .*no.parquet: it is no Parquet file, or damaged"),
            "empty.csv": (b"", "no column 'text'"),
            "twice.csv": (f"text,n,text\n{SECRET},1,a\n".encode(), "there are 2 columns 'text'; allowed: one"),
            "twice.tsv": (f"text\ttext\n{SECRET}\ta\n".encode(), "there are 2 columns 'text'"),
            "semicolons.csv": (f"text;n\n{SECRET};1\n".encode(), "its header is one column that holds ';'; give deli"),
            "tabs.csv": (f"text\tn\n{SECRET}\t1\n".encode(), r'holds tabs; give delimiter: "\\t"'),
            "wide.csv": (f"text\n{SECRET}".encode("utf-16-le"), "not UTF-8, most likely utf-16-le; give encoding"),
            "sheet.csv": (b"PK\x03\x04\x14\0\0\0\xff", "it is not text but a ZIP or Excel file; save it as CSV"),
        }
        for name, (data, message) in broken.items():
            (tmp_path / name).write_bytes(data)
            self.check(predictor, tmp_path / name, out, DataError, message)

    def test_a_fault_of_the_file_behind_many_rows_is_no_half_output(self, predictor: Predictor, tmp_path: Path) -> None:
        lines = "".join(f"the day {number}\n" for number in range(3000))
        (tmp_path / "in.csv").write_bytes(b"text\n" + lines.encode() + b"\xfc\n")
        with pytest.raises(DataError, match=r"is not UTF-8, .*; [0-9]+ rows are done, --resume continues"):
            predict_table(predictor, tmp_path / "in.csv", tmp_path / "out.csv")
        assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("ending", [".csv", ".jsonl.zst", ".parquet"])
def test_no_rows_make_a_table_without_rows(predictor: Predictor, tmp_path: Path, ending: str) -> None:
    (tmp_path / "in.csv").write_text("text,name\n")
    document = predict_table(predictor, tmp_path / "in.csv", tmp_path / f"out{ending}")
    assert (document["rows"], read(tmp_path / f"out{ending}")) == (0, [])
