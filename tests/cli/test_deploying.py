"""`plankwise predict` as a user meets it: one line for what is wrong, one document for what was done, kills."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest

import processes
import tiny
from plankwise.deploy.predictor import Predictor


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_source(tmp_path_factory.mktemp("model") / "source", layers=1)


def table(folder: Path, count: int) -> Path:
    with (folder / "in.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["id", "text", "label", "word"])
        rows.writeheader()
        rows.writerows({**row, "word": row["text"].split()[0]} for row in tiny.rows(count))
    return folder / "in.csv"


def test_a_table_is_predicted_with_options(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = table(tmp_path, 60), tmp_path / "out.jsonl.gz"
    options = ["--id", "id", "--keep", "word", "--threads", 1, "--max-length", 9, "--truncate"]
    assert tiny.call(monkeypatch, "predict", model, source, out, *options, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    lengths = [len(row["text"].split()) + 2 for row in tiny.rows(60)]
    assert (document["predicted"], document["truncated"]) == (60, sum(length > 9 for length in lengths))
    assert tiny.call(monkeypatch, "predict", model, out, tmp_path / "o.csv", "--text", "word", "--threads", 1) == 0
    assert "o.csv: 60 of 60 rows in" in capsys.readouterr().out
    shares = Predictor(model, threads=1).probabilities([row["text"].split()[0] for row in tiny.rows(60)])
    with (tmp_path / "o.csv").open() as file:
        found = [[float(row["probability_bad"]), float(row["probability_good"])] for row in csv.DictReader(file)]
    assert found == pytest.approx(shares.round(6), abs=2e-6)


def test_an_export_says_the_size_of_all_its_files(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert tiny.call(monkeypatch, "export", model, "--to", "onnx", "--precision", "fp32", "--out", out) == 0
    size = sum(each.stat().st_size for each in out.rglob("*") if each.is_file())
    assert f"onnx fp32, {size:,} bytes" in capsys.readouterr().out
    assert size > (out / "onnx/model.onnx").stat().st_size


def test_it_says_beforehand_roughly_what_it_costs(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert tiny.call(monkeypatch, "predict", model, table(tmp_path, 70), tmp_path / "o.csv", "--threads", 1) == 0
    assert "about 70 rows, roughly " in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text", "body"], "there is no column 'body'; Allowed: id, text, label, word"),
        (["--mode", "fast"], "no mode 'fast'; Allowed: latency, throughput"),
        (["--on-error", "stop"], "no policy on_error 'stop'; Allowed: fail, skip"),
        (["--max-length", 100], "max_length is 100; allowed: at most the model's 72 positions"),
        (["--max-length", 4], "row 1: over-long, "),
        (["--mode", "latency", "--tokens-per-batch", 9], "tokens_per_batch is for throughput mode"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[object],
    message: str,
) -> None:
    source = table(tmp_path, 9)
    assert tiny.call(monkeypatch, "predict", model, source, tmp_path / "o.csv", "--json", *options) == 2
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("plankwise:")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == [source]


def test_a_killed_run_goes_on_to_the_same_bytes(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out, whole = table(tmp_path, 5_000), tmp_path / "out.csv", tmp_path / "whole.csv"
    command = ["predict", str(model), str(source), str(out), "--threads", "1", "--json"]
    process = processes.start(["-m", "plankwise", *command], tmp_path)
    at, deadline = tmp_path / ".out.csv.partial" / "progress.json", time.monotonic() + 120
    while (not at.exists() or not json.loads(at.read_bytes())["rows"]) and time.monotonic() < deadline:
        assert process.is_alive()
        time.sleep(0.01)
    processes.kill(process)
    assert not out.exists()
    assert tiny.call(monkeypatch, *command, "--resume") == 0
    assert tiny.call(monkeypatch, "predict", model, source, whole, "--threads", 1, "--json") == 0
    assert out.read_bytes() == whole.read_bytes()
