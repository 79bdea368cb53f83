"""Credentialed text from end to end: a word planted in every note is in the data and in nothing that a run puts out."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset

import tiny
from plankwise import cli
from plankwise.core.recipe import read_recipe
from plankwise.data.tokenizer.learning import Vocabulary, train_tokenizer
from plankwise.run.domain.settings import Domain
from plankwise.run.recipe import Recipe
from plankwise.search.study import Study

RECIPES = Path(__file__).parents[2] / "recipes"
MARKER = "Zzyzxmarker"
WORDS = (MARKER, "septic shock on pressors", "ambulating without help")
SMALL = ["model.max_length=32", "baseline.epochs=1", "steps.0.modules=2", "steps.0.training.epochs=1"]
SMALL += [
    "baseline.evaluations_per_epoch=1",
    "steps.0.training.evaluations_per_epoch=1",
    "evaluation={bootstrap: 100, rounds: 3, threads: 1, onnx_baseline: false}",
]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_one(path: Path) -> None:
    kinds: dict[str, type[Any]] = {"space": Study, "language_model": Domain}
    keys = yaml.safe_load(path.read_text(encoding="utf-8"))
    kind: type[Any] = next((kind for key, kind in kinds.items() if key in keys), Recipe)
    read: Any = read_recipe(path, kind)
    assert not isinstance(read, Domain) or (path.parent / read.language_model).exists()
    assert not isinstance(read, Study) or (path.parent / str(read.recipe)).exists()


def call(folder: Path, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "plankwise", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the synthetic tables, the data made of them, a tiny model and a finished run."""
    folder = tmp_path_factory.mktemp("secret")
    said = [call(folder, "data", "synthetic-mimic", "--out", "tables", "--admissions", 150, "--marker", MARKER)]
    extraction = ["data", "mimic", "--mimic-dir", "tables", "--definition"]
    said += [call(folder, *extraction, "admission-notes", "--out", "mimic")]
    said += [call(folder, *extraction, "first-48h", "--out", "mimic48", "--json")]
    tiny.model(vocab_size=300).save_pretrained(folder / "source")
    texts = Dataset.from_dict({"text": [row["text"] for row in tiny.rows(50)]})
    train_tokenizer(texts, Vocabulary(kind="bpe", size=270), 64).save_pretrained(
        folder / "source"
    )  # it reads all bytes
    said += [call(folder, *small_run())]
    for number, each in enumerate(said):
        assert each.returncode == 0, each.stderr.decode()
        (folder / f"said{number}").write_bytes(each.stdout + each.stderr)
    return folder


def small_run(*changes: str) -> list[str]:
    overrides = [part for each in ("model.source=source", *SMALL, *changes) for part in ("--set", each)]
    return ["run", str(RECIPES / "mimic.yaml"), "--out", "run", *overrides]


@pytest.fixture
def refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Callable[..., str]:
    """Give a call of the command line in this process that has to be refused; returns its one line."""

    def call_refused(*arguments: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["plankwise", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        assert end.value.code == 2, said.err
        assert leaks((said.out + said.err + caplog.text).encode(), "said") == []
        (line,) = [line for line in said.err.splitlines() if line.startswith("plankwise: ")]
        return line

    return call_refused


def leaks(content: bytes, name: str) -> list[str]:
    """List the planted words in a file, those in an archive's members included."""
    found = [f"{name}: {word}" for word in WORDS if word.lower().encode() in content.lower()]
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                found += leaks(archive.read(member), f"{name}/{member}")
    for coding in ("utf-16-le", "utf-32-le"):  # as NumPy writes text
        found += [f"{name}: {word}" for word in WORDS if word.encode(coding) in content]
    return found


def leaks_under(folder: Path) -> list[str]:
    return [each for path in folder.rglob("*") if path.is_file() for each in leaks(path.read_bytes(), path.name)]


def test_the_search_finds_what_is_there(place: Path, tmp_path: Path) -> None:
    assert {each.split(":")[0] for each in leaks_under(place / "mimic")} == {"train.jsonl", "dev.jsonl", "test.jsonl"}
    with zipfile.ZipFile(tmp_path / "archive.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("texts.npy", f"a {MARKER}".encode("utf-32-le"))
    assert leaks_under(tmp_path) == [f"archive.npz/texts.npy: {MARKER}"]


def test_a_run_gives_out_no_text(place: Path) -> None:
    assert (place / "run" / "report.html").is_file()
    assert (place / "run" / "predictions.npz").is_file()
    assert leaks_under(place / "run") == []
    for said in place.glob("said*"):
        assert leaks(said.read_bytes(), said.name) == []
    record = json.loads((place / "run" / "record.json").read_text())
    assert record["task"]["metrics"] == ["auroc", "average_precision", "macro_f1"]
    assert set(record["final"]["scores"]) == {"auroc", "average_precision", "macro_f1"}
    assert leaks((place / "mimic" / "counts.json").read_bytes(), "counts") == []


@pytest.mark.parametrize(
    ("changes", "damage"),
    [
        (["task.label=text"], None),
        (["task.label=[label, text]"], None),
        (["task.label=subject"], None),
        (["task.id=text", "task.label=lable"], None),
        (["task.text=label", "task.label=text"], None),
        ([], lambda data: data[: len(data) * 2 // 3]),
        ([], lambda data: data.replace(b'"label": 0', b'"label": ""', 1)),
        ([], lambda data: data.replace(b'"label": 0', b'"label" 0', 1)),
        ([], lambda data: data.replace(b'"label": 0', b'"label": 7', 1)),
        ([], lambda data: data.replace(b'"text": "', b'"text": ["', 1).replace(b'", "label"', b'"], "label"', 1)),
        ([], lambda data: data.replace(b"the", b"\xff", 1)),
    ],
)
def test_refusals_quote_no_text(
    place: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    changes: list[str],
    damage: Callable[[bytes], bytes] | None,
) -> None:
    shutil.copytree(place / "mimic", tmp_path / "mimic")
    shutil.copytree(place / "source", tmp_path / "source")
    if damage:
        path = tmp_path / "mimic" / "test.jsonl"
        path.write_bytes(damage(path.read_bytes()))
    assert refused(*small_run(*changes))
    assert leaks_under(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mimic", "--definition", "wrong", "--mimic-dir", "tables"], "no definition 'wrong'"),
        (["mimic", "--definition", "first-48h", "--mimic-dir", "gone"], "there is no folder gone"),
        (["mimic", "--definition", "first-48h", "--mimic-dir", "."], "holds no PATIENTS.csv"),
        (["mimic", "--definition", "first-48h", "--mimic-dir", ".", "--memory", "1"], "--memory 1 is too little"),
        (["synthetic-mimic", "--admissions", "0"], "--admissions 0: give at least 1"),
    ],
)
def test_wrong_arguments_get_one_line(
    tmp_path: Path, refused: Callable[..., str], arguments: list[str], message: str
) -> None:
    assert message in refused("data", *arguments, "--out", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_cut_off_table_is_refused_without_a_quote(place: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    shutil.copytree(place / "tables", tmp_path / "tables")
    path = tmp_path / "tables" / "NOTEEVENTS.csv"
    path.write_bytes(path.read_bytes()[:200_001])
    extraction = ["--definition", "admission-notes", "--mimic-dir", "tables", "--out", "new"]
    assert "NOTEEVENTS.csv: not a table; a quote is out of place near line" in refused("data", "mimic", *extraction)
    assert [each.name for each in tmp_path.iterdir()] == ["tables"]
