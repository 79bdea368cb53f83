"""The command line as a user meets it: verbs, exit codes, one-line errors, nothing half-written, kills, processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

import processes
import tiny

RECIPE = """\
name: tiny
task:
  name: table
  train: {data}
model:
  source: {model}
  max_length: 32
baseline: {{epochs: 4, batch_size: 16, learning_rate: 1.0e-2}}
steps:
  - method: theseus
    modules: 2
    training: {{epochs: 3, batch_size: 16, learning_rate: 5.0e-3, evaluations_per_epoch: 2}}
evaluation: {{bootstrap: 100, rounds: 3, threads: 1, onnx_baseline: false}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    data, model = tiny.write_table(folder, 240), tiny.save_source(folder / "source")
    (folder / "recipe.yaml").write_text(RECIPE.format(data=data, model=model))
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    """Run the recipe in two commands, in this process."""
    out = place / "first"
    with pytest.MonkeyPatch.context() as patch:
        assert tiny.call(patch, "finetune", place / "recipe.yaml", "--out", out) == 0
        (place / "finetuned.json").write_bytes((out / "record.json").read_bytes())
        assert tiny.call(patch, "run", place / "recipe.yaml", "--out", out, "--resume") == 0
    return out


def pairs(place: Path, folder: Path) -> Path:
    """Write the table with a second column of texts."""
    header, *lines = (place / "data.csv").read_text().splitlines()
    path = folder / "pairs.csv"
    path.write_text("\n".join([f"other,{header}", *(f"again,{line}" for line in lines)]))
    return path


def test_the_verbs_work_one_after_the_other(
    place: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, first, second = place / "recipe.yaml", finished, place / "second"
    record = json.loads((place / "finetuned.json").read_text())
    assert record["final"] is None
    assert record["baseline"]["scores_split"] == "development"
    assert tiny.call(monkeypatch, "run", recipe, "--out", first, "--resume") == 0
    assert "retained" in capsys.readouterr().out
    options = ["--baseline", first / "baseline", "--out", second, "--set", "name=other", "--json"]
    assert tiny.call(monkeypatch, "compress", recipe, *options) == 0
    assert json.loads(capsys.readouterr().out)["final"]["compression_ratio"] > 1
    one, other = (load_file(run / "model" / "model.safetensors") for run in (first, second))
    assert all(torch.equal(one[name], other[name]) for name in one)

    assert tiny.call(monkeypatch, "evaluate", first / "model", "--recipe", recipe, "--split", "test", "--json") == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    expected = json.loads((first / "record.json").read_text())["final"]["scores"]
    assert {name: value["value"] for name, value in scores.items()} == pytest.approx(expected)

    options = ["--recipe", recipe, "--rounds", 3, "--no-baselines", "--no-memory", "--json"]
    assert tiny.call(monkeypatch, "bench", first / "baseline", first / "model", *options) == 0
    timing = json.loads(capsys.readouterr().out)
    assert set(timing["latency"]) == {"32"}
    assert set(timing["throughput"]) == {str(first / "baseline"), str(first / "model")}

    assert tiny.call(monkeypatch, "report", first, second, "--out", place / "page.html") == 0
    assert "| other | 1 |" in capsys.readouterr().out
    assert (place / "page.html").read_text().startswith("<!doctype html>")


def test_a_tail_of_steps_is_run_again_by_number_or_name(
    place: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = place / "recipe.yaml", tmp_path / "out"
    shutil.copytree(finished, out)
    two = ["--set", "steps=[{method: layer_subset, layers: 3, training: {epochs: 1}}]", "--json"]
    for refused, message in (
        (["--from", "3"], "--from 3: there is no such step; allowed: 1 to 2, 01-layer_subset, 01-theseus"),
        (["--from", "01-nothing"], "--from 01-nothing: there is no such step"),
        (["--from", "2"], "differs in steps.0"),
        (["--from", "1", "--resume"], "give one of both"),
        (["--from", "1", "--seed", "9"], "differs in seed"),
    ):
        assert tiny.call(monkeypatch, "run", recipe, "--out", out, *two, *refused) == 2
        said = capsys.readouterr().err.strip()
        assert message in said
        assert len(said.splitlines()) == 1
    assert tiny.call(monkeypatch, "run", recipe, "--out", out, *two, "--from", "01-theseus", "--dry-run") == 0
    assert [row["stage"] for row in json.loads(capsys.readouterr().out)] == ["01-layer_subset"]
    assert (out / "steps" / "01-theseus" / "stage.json").exists()
    assert tiny.call(monkeypatch, "run", recipe, "--out", out, *two, "--from", "01-theseus") == 0
    assert [step["name"] for step in json.loads(capsys.readouterr().out)["steps"]] == ["layer_subset"]
    assert [each.name for each in (out / "steps").iterdir()] == ["01-layer_subset"]


def test_dry_run_prints_the_plan_and_writes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert tiny.call(monkeypatch, "run", place / "recipe.yaml", "--out", tmp_path / "run", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert [row["stage"] for row in plan] == ["baseline", "01-theseus"]
    assert [row["steps"] for row in plan] == [11 * 4, 11 * 3]
    assert plan[1]["parameters"] < plan[0]["parameters"]
    assert all(row["seconds"] >= row["steps"] * row["seconds_per_step"] for row in plan)
    assert not (tmp_path / "run").exists()


def test_the_schema_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.call(monkeypatch, "schema") == 0
    assert "Theseus" in json.loads(capsys.readouterr().out)["$defs"]


def break_data(place: Path, tmp_path: Path, content: str) -> list[str]:
    (tmp_path / "bad.csv").write_text(content)
    return ["--set", f"task.train={tmp_path / 'bad.csv'}"]


def decoder(tmp_path: Path) -> Path:
    GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=4, n_layer=1, n_head=1)).save_pretrained(tmp_path / "gpt")
    return tmp_path / "gpt"


def half_a_checkpoint(place: Path, tmp_path: Path) -> Path:
    folder = tiny.save_source(tmp_path / "half")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    return folder


ROWS = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in tiny.rows(60))
UNSEEN = "text,label\na house,ugly\na day,bad\n"
WRONG: dict[str, tuple[Callable[[Path, Path], list[Any]], str]] = {
    "missing recipe": (lambda p, t: [t / "none.yaml"], r"cannot read the recipe .*none\.yaml: No such file"),
    "missing file": (lambda p, t: ["--set", "task.train=gone.csv"], r"cannot read gone\.csv: No such file"),
    "wrong column": (lambda p, t: ["--set", "task.text=txt"], r"no column 'txt'; did you mean 'text'\? Allowed: text"),
    "unseen label": (
        lambda p, t: [
            *break_data(p, t, ROWS),
            "--set",
            f"task.test={write(t, UNSEEN)}",
        ],
        r"test split, row 1: the label 'ugly' is unseen in train",
    ),
    "empty": (lambda p, t: break_data(p, t, "text,label\n"), r"0 rows|is empty"),
    "one class": (lambda p, t: break_data(p, t, ROWS.replace(",bad", ",good")), r"holds only the label 'good'"),
    "more modules than layers": (
        lambda p, t: ["--set", "steps.0.modules=9"],
        r"steps\.0 \(theseus\): 9 modules do not fit a model of 4 layers; allowed: 1 to 4",
    ),
    "decoder": (lambda p, t: ["--set", f"model.source={decoder(t)}"], r"'gpt2' is not a supported encoder"),
    "no such model": (lambda p, t: ["--set", "model.source=./nowhere"], r"no model folder \./nowhere"),
    "damaged model": (lambda p, t: ["--set", f"model.source={half_a_checkpoint(p, t)}"], r"cannot load the weights of"),
    "unknown key": (
        lambda p, t: ["--set", "steps.0.modulse=3"],
        r"--set steps\.0\.modulse: unknown key 'modulse'; did you mean 'modules'\?",
    ),
    "unknown method": (lambda p, t: ["--set", "steps.0.method=thesus"], r"'thesus'; did you mean 'theseus'\?"),
    "too long": (lambda p, t: ["--set", "model.max_length=5000"], r"5000 is more than the model's 72 positions"),
    "a stride as long as its window": (
        lambda p, t: ["--set", "model.windows.stride=30"],
        r"windows\.stride 30 is not less than the 30 tokens of text in a window; allowed: 0 to 29",
    ),
    "windows of pairs": (
        lambda p, t: [
            "--set",
            "model.windows={}",
            "--set",
            "task.text_pair=other",
            "--set",
            f"task.train={pairs(p, t)}",
        ],
        r"windows cannot read pairs of texts",
    ),
    "windows and truncation": (
        lambda p, t: ["--set", "model.windows={}", "--set", "model.truncation=tail"],
        r"truncation 'tail' and windows exclude each other",
    ),
    "windows of a corpus": (
        lambda p, t: ["--set", "model.windows={}", "--set", "task={name: corpus, files: [x]}"],
        r"model\.truncation and model\.windows are for tasks with labels; .*max_length alone",
    ),
    "a label without a name": (
        lambda p, t: ["--set", "task.labels={good: fine}"],
        r"row \d+: the label 'bad' is not named in labels; allowed: good",
    ),
    "batch": (lambda p, t: ["--set", "baseline.gradient_accumulation=3"], r"batch_size 16 does not divide into 3"),
    "seed": (lambda p, t: ["--seed", "-1"], r"--set seed: seed: .*greater than or equal to 0, not -1"),
}


def write(folder: Path, content: str) -> Path:
    path = folder / "other.csv"
    path.write_text(content)
    return path


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gets_one_line_and_exit_code_2(
    case: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = WRONG[case]
    given = make(place, tmp_path)
    recipe = [] if case == "missing recipe" else [place / "recipe.yaml"]
    assert tiny.call(monkeypatch, "run", *recipe, *given, "--out", tmp_path / "run") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, lines[-1]), lines
    assert len([line for line in lines if line.startswith("plankwise:")]) == 1
    assert not any("Traceback" in line for line in lines)
    assert not (tmp_path / "run").exists()


def test_an_unwritable_folder_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert tiny.call(monkeypatch, "run", place / "recipe.yaml", "--out", tmp_path / "file" / "run") == 2
    assert "cannot write to" in capsys.readouterr().err
    assert tiny.call(monkeypatch, "run", place / "recipe.yaml", "--out", tmp_path / "file") == 2
    assert "it is a file" in capsys.readouterr().err


WRITING = {
    "run": ["run", "none.yaml", "--out", "OUT"],
    "finetune": ["finetune", "none.yaml", "--out", "OUT"],
    "compress": ["compress", "none.yaml", "--baseline", "none", "--out", "OUT"],
    "pretrain": ["pretrain", "none.yaml", "--out", "OUT"],
    "domain": ["domain", "none.yaml", "--out", "OUT"],
    "study": ["study", "none.yaml", "--out", "OUT"],
    "export": ["export", "none", "--to", "torch", "--precision", "fp32", "--out", "OUT"],
    "predict": ["predict", "none", "data.csv", "OUT.csv"],
    "report": ["report", "none", "--out", "OUT"],
    "mimic": ["data", "mimic", "--mimic-dir", "none", "--out", "OUT"],
    "synthetic": ["data", "synthetic-mimic", "--out", "OUT"],
}


@pytest.mark.parametrize("verb", WRITING)
def test_a_place_that_cannot_be_is_refused_before_anything_is_read(
    verb: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text("text\na\n")
    Path("file").write_text("")
    for out, reason in (
        ("n" * 300, "File name too long"),
        ("new/" + "n" * 300, "File name too long"),
        ("file/run", "it is a file"),
    ):
        arguments = [each.replace("OUT", out) for each in WRITING[verb]]
        assert tiny.call(monkeypatch, *arguments) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert re.search(f"^plankwise: cannot write to .*{reason}$", lines[0]), lines
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["data.csv", "file"]


def test_inputs_whose_names_cannot_be_get_one_line(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    long = "n" * 300
    for command in (
        ["run", long, "--out", "run"],
        ["run", place / "recipe.yaml", "--out", "run", "--set", f"model.source={long}"],
        ["run", place / "recipe.yaml", "--out", "run", "--set", f"task.train={long}.csv"],
        ["predict", long, place / "data.csv", "out.csv"],
        ["predict", place / "source", f"{long}.csv", "out.csv"],
        ["evaluate", long, "--recipe", place / "recipe.yaml"],
        ["report", long],
    ):
        assert tiny.call(monkeypatch, *command) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert re.search(f"^plankwise: cannot .*{long}.*: File name too long$", line), line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["run\udcff", "a\0b"])
def test_arguments_are_text(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tiny.call(monkeypatch, "run", "none.yaml", "--out", argument) == 2
    assert re.search(r"^plankwise: the argument .* (is not UTF-8 text|holds a zero byte)", capsys.readouterr().err)


def test_pipes_are_no_input_of_any_verb(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, out = place / "recipe.yaml", ["--out", "run"]
    for name in ("r.yaml", "t.csv", "t.jsonl", "t.parquet", "t.txt", "record.json"):
        os.mkfifo(name)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        tiny.save_source(Path(f"m-{name}"))
        Path(f"m-{name}", name).unlink()
        os.mkfifo(Path(f"m-{name}", name))
    commands: list[list[object]] = [
        ["run", "r.yaml", *out],
        ["study", "r.yaml", *out],
        ["domain", "r.yaml", *out],
        *(["run", recipe, *out, "--set", f"task.train=t.{kind}"] for kind in ("csv", "jsonl", "parquet")),
        [
            "run",
            recipe,
            *out,
            "--set",
            "task={name: corpus, files: [t.txt]}",
            "--set",
            "steps=[]",
            "--set",
            "evaluation={}",
        ],
        *(["run", recipe, *out, "--set", f"model.source=./{model}"] for model in sorted(Path().glob("m-*"))),
        *(["predict", f"./{model}", place / "data.csv", "out.csv"] for model in sorted(Path().glob("m-*"))),
        ["predict", place / "source", "t.csv", "out.csv"],
        ["predict", place / "source", "t.parquet", "out.csv"],
        ["export", place / "source", *out, "--texts", "t.txt"],
        ["bench", place / "source", "--texts", "t.txt"],
        ["report", "."],
    ]
    before = sorted(Path().rglob("*"))
    for command in commands:
        assert tiny.call(monkeypatch, *command) == 2, command
        assert "it is a named pipe; allowed: a file" in capsys.readouterr().err.strip().splitlines()[-1], command
    assert sorted(Path().rglob("*")) == before


def test_help_answers_without_the_heavy_libraries() -> None:
    code = "import sys; from plankwise import cli; assert not {'torch', 'transformers', 'pydantic'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_process_killed_outright_resumes_to_the_same_model(
    place: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["run", str(place / "recipe.yaml"), "--out", str(tmp_path / "killed")]
    running = processes.start(["-m", "plankwise", *command], tmp_path)
    until = time.monotonic() + 300  # a busy machine takes a minute to import torch
    work = tmp_path / "killed" / ".work" / "steps" / "01-theseus"
    try:
        while not list(work.glob("checkpoint-*")) and running.is_alive() and time.monotonic() < until:
            time.sleep(0.002)
    finally:
        processes.kill(running)
    assert list(work.glob("checkpoint-*")), "the kill came too early to show anything"
    assert not (tmp_path / "killed" / "steps").exists(), "the kill came too late to show anything"
    assert tiny.call(monkeypatch, *command, "--resume") == 0
    one, other = (load_file(run / "model" / "model.safetensors") for run in (finished, tmp_path / "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_two_processes_draw_alike_and_make_a_sound_model(place: Path, finished: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "plankwise"]
    command = [*launch, "run", str(place / "recipe.yaml"), "--out", str(tmp_path / "run")]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["environment"]["processes"] == 2
    details = record["steps"][0]["details"]
    assert details["training"]["steps"] == 11 * 3
    assert record["final"]["scores"]["macro_f1"] > record["final"]["majority_scores"]["macro_f1"] + 0.2
    alone = json.loads((finished / "record.json").read_text())["steps"][0]["details"]
    assert details["draws_sha256"] == alone["draws_sha256"], "both ranks drew alike, but not what one process draws"


LANGUAGE_MODEL = """\
name: lm
task: {{name: corpus, files: [{corpus}], held_out: 0.1}}
model:
  max_length: 16
  scratch:
    {{layers: 2, width: 16, heads: 2, vocabulary: {{size: 60}}, positions: 16, block: 16, growth: [2], epochs: [1]}}
baseline: null
steps: [{{method: layer_subset, layers: 1, training: {{epochs: 0.5, batch_size: 16}}}}]
"""
DOMAIN = "{name: d, language_model: lm.yaml, tasks: [{name: t, max_length: 16, task: {name: table, train: data.csv}}]}"


@pytest.fixture(scope="module")
def corpus_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "corpus.txt").write_text("\n\n".join(str(row["text"]) for row in tiny.rows(300)))
    (folder / "lm.yaml").write_text(LANGUAGE_MODEL.format(corpus=folder / "corpus.txt"))
    (folder / "domain.yaml").write_text(DOMAIN)
    (folder / "broken.jsonl").write_text('{"text": "geheimnis"')
    return folder


WRONG_CORPUS = {
    "no such file": (["pretrain", "lm.yaml", "--set", "task.files=[gone.txt]"], r"'gone\.txt' matches no file"),
    "broken file": (["pretrain", "lm.yaml", "--set", "task.files=[broken.jsonl]"], r"jsonl, row 1: not a line of JSON"),
    "no source": (["pretrain", "lm.yaml", "--set", "task.files=null"], "give either files or dataset"),
    "no share": (["pretrain", "lm.yaml", "--set", "task.held_out=0.7"], "less than 0.5"),
    "labels": (
        ["pretrain", "lm.yaml", "--set", "steps=[{method: checkpoint, source: x}]"],
        "a corpus has none",
    ),
    "block": (["pretrain", "lm.yaml", "--set", "model.scratch.block=99"], "longer than positions"),
    "rate": (["pretrain", "lm.yaml", "--set", "masking.rate=1"], "less than 1"),
    "no steps": (["domain", "domain.yaml", "--set", "language_model=nolm.yaml"], "cannot read the recipe"),
    "task file": (["domain", "domain.yaml", "--set", "tasks.0.task.train=gone.csv"], r"cannot read gone\.csv"),
}


@pytest.mark.parametrize("case", WRONG_CORPUS)
def test_a_wrong_corpus_gets_one_line_and_exit_code_2(
    case: str,
    corpus_place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(corpus_place)
    given, message = WRONG_CORPUS[case]
    assert tiny.call(monkeypatch, *given, "--out", tmp_path / "run") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, lines[-1]), lines
    assert len([line for line in lines if line.startswith("plankwise:")]) == 1
    assert not any("Traceback" in line or "geheimnis" in line for line in lines)
    assert not (tmp_path / "run").exists()


def test_pretrain_is_for_corpora(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.call(monkeypatch, "pretrain", place / "recipe.yaml", "--out", tmp_path / "run") == 2
    assert "pretrain takes a task of name 'corpus', not 'table'" in capsys.readouterr().err


def test_a_language_model_is_planned_trained_and_found_again(
    corpus_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pretrain", corpus_place / "lm.yaml", "--out", tmp_path / "run"]
    assert tiny.call(monkeypatch, *command, "--dry-run", "--json") == 0
    assert [row["stage"] for row in json.loads(capsys.readouterr().out)] == ["pretraining, 2 layers", "01-layer_subset"]
    assert not (tmp_path / "run").exists()
    assert tiny.call(monkeypatch, *command, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["steps"][0]["scores"]["perplexity"] > 1
    assert tiny.call(monkeypatch, *command, "--resume") == 0
    assert "layer_subset" in capsys.readouterr().out


def test_two_processes_pretrain_one_language_model(
    corpus_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unigram = "model.scratch.vocabulary={kind: unigram, size: 60}"  # which would come out differently in each process
    command = ["pretrain", str(corpus_place / "lm.yaml"), "--out", str(tmp_path / "run"), "--set", unigram]
    monkeypatch.setenv("PLANKWISE_CACHE", str(tmp_path / "cache"))
    for code, said in processes.run_ranks(["-m", "plankwise", *command], tmp_path):
        assert code == 0, said[-3000:]
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["environment"]["processes"] == 2
    assert record["steps"][0]["scores"]["perplexity"] > 1
    assert len([path for path in (tmp_path / "cache" / "blocks").iterdir() if path.is_dir()]) == 2
