"""The whole of `shrink` on a tiny fine-tuned model, with times that are made up: verdict, files, resuming, refusals."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer

import plankwise
import tiny
from browsing import chromium, needs_chromium, violations
from plankwise.cli.search_tables import print_outcome
from plankwise.core.errors import DataError, ModelError, OutputError, PlankwiseError, RecipeError
from plankwise.core.recipe import read_recipe
from plankwise.core.records import Interval
from plankwise.data.batching.inputs import Text
from plankwise.data.task import build_task
from plankwise.deploy.export.export import export
from plankwise.deploy.manifest import read_manifest, write_manifest
from plankwise.evaluation.benchmark.paired_timing import PairedTiming
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe
from plankwise.search.budget.candidate import Outcome
from plankwise.search.budget.evaluation import Evaluator
from plankwise.search.shrink.climb import Progress
from plankwise.search.shrink.document import lines_of
from plankwise.search.shrink.plan import plan
from plankwise.search.shrink.request import ShrinkRequest
from plankwise.search.shrink.shrink import shrink
from plankwise.training.fit import Training
from plankwise.training.objectives.regression import Regression
from plankwise.training.on_task import train_on_task
from tiny_search import copying_export

SPEEDS: dict[str, float] = {"int8": 3.0, "fp32": 1.0}


def made_up(folders: Mapping[str, Path], texts: Sequence[Text]) -> Mapping[str, PairedTiming]:
    """Artefacts are as fast as their precision and the size of their model say."""
    found, seconds = {}, {name: _seconds(Path(folder)) for name, folder in folders.items()}
    first = next(iter(seconds.values()))
    for name, each in seconds.items():
        speed = first / each
        interval = Interval(value=speed, low=0.98 * speed, high=1.02 * speed)
        found[name] = PairedTiming(1000 * each, interval, 8, (each,) * 3)
    return found


def _seconds(folder: Path) -> float:
    if len(folder.name.split("-")) != 3:  # a model, not one of the evaluator's artefacts
        return 2e-3
    _, runtime, precision = folder.name.split("-")
    heavier = 1.0 if runtime == "openvino" else 1.1
    weights = max(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    return heavier * 1e-9 * weights / SPEEDS[precision]


real = partial(Evaluator, timer=made_up)
quick: Any = partial(Evaluator, timer=made_up, exporter=copying_export)


@pytest.fixture(autouse=True)
def guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the order of the runtimes be the same on every machine."""
    monkeypatch.setattr("plankwise.search.shrink.request.this_processor", lambda: "vnni")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that has learned its task, as users bring one."""
    folder = tmp_path_factory.mktemp("original")
    model, job = tiny.model(layers=4), tiny.job(folder / "work", task=tiny.task(400).without_test())
    train_on_task(model, job, Training(epochs=6, learning_rate=3e-3, batch_size=16), "original")
    model.config.id2label = dict(enumerate(tiny.LABELS))
    model.config.label2id = {name: at for at, name in enumerate(tiny.LABELS)}
    model.save_pretrained(folder / "model")
    job.tokenizer.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rows")
    return {
        "data": _write(folder / "data.csv", tiny.rows(200, 11)),
        "test": _write(folder / "test.csv", tiny.rows(600, 12)),
        "texts": _write(folder / "texts.csv", tiny.rows(600, 13), labelled=False),
    }


def _write(path: Path, rows: Sequence[Mapping[str, Any]], labelled: bool = True) -> Path:
    lines = [f"{row['text']},{row['label']}" if labelled else str(row["text"]) for row in rows]
    path.write_text("\n".join(["text,label" if labelled else "text", *lines]) + "\n", encoding="utf-8")
    return path


def request(original: Path, rows: Mapping[str, Path], out: Path, **changes: Any) -> ShrinkRequest:
    given: dict[str, Any] = {"data": (rows["data"],), "test": (rows["test"],), "retain": 0.9, "speedup": 2.5}
    return ShrinkRequest(**{"model": str(original), "out": out, **given, **changes})


def test_int8_that_is_enough_ends_the_search(original: Path, rows: dict[str, Path], tmp_path: Path) -> None:
    seen: list[Progress] = []
    out = tmp_path / "out"
    document = shrink(request(original, rows, out), make_evaluator=real, on_progress=seen.append)
    assert document["verdict"]["met"], document["verdict"]["text"]
    assert document["verdict"]["text"].startswith("goal met (keep 90 %, 2.5× as fast): original, openvino int8: ")
    assert [each["candidate"]["precision"] for each in document["candidates"]] == ["int8"]
    assert document["held_back"]["rows"] == 300
    assert document["held_back"]["speedup"]["ONNX Runtime fp32"]["value"] > 2.5
    assert document["measured"] == "score of the labels"
    assert [each.current is None for each in seen] == [False, True]
    assert lines_of(document, out)[0] == document["verdict"]["text"]
    model = plankwise.load(out / "model")
    assert model.num_labels == 2
    predicted = [
        each.label for each in plankwise.Predictor(str(out / "artefact")).predict(["a lovely day", "the grim house"])
    ]
    assert predicted == ["good", "bad"]
    assert {"report.html", "front.png", "recipe.yaml", "shrink.json", "data"} <= {each.name for each in out.iterdir()}
    again = shrink(request(original, rows, out), make_evaluator=real, resume=True)
    assert again == document  # it is over: nothing is measured again


def test_it_climbs_to_pruning_and_the_recipe_makes_the_same_model(
    original: Path, rows: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    document = shrink(request(original, rows, out, speedup=4.0, retain=0.8, processor="vnni"), make_evaluator=quick)
    chosen = Outcome.model_validate(document["chosen"])
    assert [step["method"] for step in chosen.candidate.steps] == ["pruning"]
    assert document["verdict"]["met"], document["verdict"]["text"]
    assert any("not the one that it is for" in note for note in document["notes"])
    recipe = read_recipe(out / "recipe.yaml", Recipe)
    assert recipe.baseline is None
    again = run(check(recipe), tmp_path / "again")
    found = plankwise.load(tmp_path / "again" / "model").state_dict()
    assert all(value.equal(found[name]) for name, value in plankwise.load(out / "model").state_dict().items())
    assert again.final is not None


def test_what_falls_short_is_saved_and_goes_on_with_more_time(
    original: Path, rows: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    short = request(original, rows, out, speedup=1000.0, seconds=200.0, processor="vnni")
    first = shrink(short, make_evaluator=quick)
    assert not first["verdict"]["met"]
    assert first["verdict"]["text"].startswith("goal not met (keep 90 %, 1000× as fast), nearest is ")
    assert (out / "artefact" / "tokenizer.json").exists()
    assert first["verdict"]["missed"] == ["speed"]
    assert shrink(short, make_evaluator=quick, resume=True)["test_evaluations"] == 1
    longer = request(original, rows, out, speedup=1000.0, seconds=400.0, processor="vnni")
    second = shrink(longer, make_evaluator=quick, resume=True)
    assert second["test_evaluations"] == 2
    assert second["candidates"][: len(first["candidates"])] == first["candidates"]


class Stop(BaseException):
    """Ends the process where a kill would."""


def test_killed_and_continued_it_loses_nothing(original: Path, rows: dict[str, Path], tmp_path: Path) -> None:
    asked = {"speedup": 4.0, "retain": 0.8, "processor": "vnni"}
    whole = shrink(request(original, rows, tmp_path / "whole", **asked), make_evaluator=quick)
    calls: list[int] = []

    def killed(folders: Mapping[str, Path], texts: Sequence[Text]) -> Mapping[str, PairedTiming]:
        calls.append(1)
        if len(calls) == 3:
            raise Stop
        return made_up(folders, texts)

    out = tmp_path / "killed"
    with pytest.raises(Stop):
        shrink(request(original, rows, out, **asked), make_evaluator=partial(quick, timer=killed))
    with pytest.raises(OutputError, match="add --resume"):
        shrink(request(original, rows, out, **asked), make_evaluator=quick)
    with pytest.raises(OutputError, match=r"another search \(it differs in goal\)"):
        shrink(request(original, rows, out, **{**asked, "speedup": 5.0}), make_evaluator=quick, resume=True)
    again = shrink(request(original, rows, out, **asked), make_evaluator=quick, resume=True)

    def figures(document: dict[str, Any]) -> list[Any]:
        kept = ("candidate", "scores", "retained", "agreement", "speedup", "parameters")
        return [{key: each[key] for key in kept} for each in document["candidates"]]

    assert figures(again) == figures(whole)


def test_rows_without_labels_measure_agreement(original: Path, rows: dict[str, Path], tmp_path: Path) -> None:
    asked = request(original, rows, tmp_path / "out", data=(rows["texts"],), test=())
    document = shrink(asked, make_evaluator=quick)
    assert document["measured"] == "agreement with the original"
    assert document["metric"] == "accuracy"
    assert document["original"]["scores"]["accuracy"] == 1.0
    assert document["held_back"]["rows"] == 120
    if document["held_back"]["behaviour"]["label_loyalty"] == 1.0:  # 120 rows cannot prove 100 %
        assert document["held_back"]["retained"]["accuracy"]["low"] == pytest.approx(0.025 ** (1 / 120), abs=1e-6)


def test_a_model_that_scores_is_judged_by_ranks_with_and_without_given_scores(scorer: Path, tmp_path: Path) -> None:
    rows = {"data": scores(tmp_path / "data.csv", 200, 11), "test": scores(tmp_path / "test.csv", 300, 12)}
    document = shrink(request(scorer, rows, tmp_path / "out", retain=0.8, speedup=4.0), make_evaluator=quick)
    assert document["metric"] == "spearman"
    assert document["original"]["scores"]["spearman"] > 0.6
    assert document["held_back"]["behaviour"]["rank_correlation"] > 0.5
    assert document["verdict"]["met"], document["verdict"]["text"]
    model = plankwise.load(tmp_path / "out" / "model")
    assert (model.config.problem_type, model.config.num_labels) == ("regression", 1)
    texts = _write(tmp_path / "texts.csv", tiny.rows(600, 13), labelled=False)
    asked = request(scorer, rows, tmp_path / "unlabelled", data=(texts,), test=(), retain=0.8, speedup=4.0)
    unlabelled = shrink(asked, make_evaluator=quick)
    assert unlabelled["measured"] == "agreement with the original"
    assert unlabelled["original"]["scores"]["spearman"] == pytest.approx(1.0)


def scores(path: Path, count: int, seed: int) -> Path:
    lines = [f"{row['text']},{kindness(row)}" for row in tiny.rows(count, seed)]
    path.write_text("\n".join(["text,score", *lines]) + "\n", encoding="utf-8")
    return path


def kindness(row: Mapping[str, Any]) -> float:
    words = str(row["text"]).split()
    return float(sum(word in tiny.GOOD for word in words) - sum(word in tiny.BAD for word in words))


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regressor that has learned how kind a text is."""
    folder = tmp_path_factory.mktemp("scorer")
    parts = {"train": tiny.rows(300, 1), "development": tiny.rows(32, 2), "test": tiny.rows(32, 3)}
    scored: Any = {name: [{**row, "label": kindness(row)} for row in part] for name, part in parts.items()}
    job = tiny.job(folder / "work", task=build_task("kindness", scored, ("spearman",), "regression").without_test())
    model = Regression().new_model(tiny.model(layers=4).config, ("score",))
    train_on_task(model, job, Training(epochs=8, learning_rate=5e-3, batch_size=16), "original")
    plankwise.save(model, job.tokenizer, folder / "model")
    return folder / "model"


def test_a_reranker_is_refused(rows: dict[str, Path], tmp_path: Path) -> None:
    made = tiny.model(layers=1, labels=1)
    made.config.problem_type = None
    plankwise.save(made, tiny.tokenizer(), tmp_path / "reranker")
    with pytest.raises(ModelError, match="reads its scores through a sigmoid; allowed: a classifier, or a regressor"):
        shrink(request(tmp_path / "reranker", rows, tmp_path / "out"), make_evaluator=quick)
    assert not (tmp_path / "out").exists()


@needs_chromium
def test_its_page_can_be_read(original: Path, rows: dict[str, Path], tmp_path: Path) -> None:
    shrink(request(original, rows, tmp_path / "out", retain=0.5), make_evaluator=quick)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.goto((tmp_path / "out" / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert violations(page) == []


def leaning_export(model: str, out: Path, *, to: str, precision: str, **options: Any) -> Any:
    """Make int8 artefacts whose answers change with the other texts of their batch, as far as the export has seen."""
    if precision != "int8":
        return copying_export(model, out)
    shutil.copytree(_torch_program(model, tuple(options["texts"])), out)
    manifest = read_manifest(out)
    assert manifest.parity is not None
    parity = manifest.parity.model_copy(update={"neighbour_change": 0.3})
    write_manifest(out, manifest.model_copy(update={"precision": "int8", "parity": parity}))
    return None


@functools.cache
def _torch_program(model: str, texts: tuple[Text, ...]) -> Path:
    out = Path(tempfile.mkdtemp(prefix="plankwise-tests-")) / "program"
    export(model, out, to="torch", precision="fp32", texts=texts)
    return out


def test_answers_that_depend_on_their_batch_certify_nothing(
    original: Path, rows: dict[str, Path], tmp_path: Path
) -> None:
    asked = request(original, rows, tmp_path / "out", retain=0.5, speedup=1.0)
    document = shrink(asked, make_evaluator=partial(Evaluator, timer=made_up, exporter=leaning_export))
    int8 = [each for each in document["candidates"] if each["candidate"]["precision"] == "int8"]
    assert int8  # as fast as is asked for, and as good
    assert not any(each["certifies"] for each in int8)
    assert document["chosen"]["candidate"]["precision"] == "fp32"


def test_an_original_no_better_than_the_majority_proves_nothing(rows: dict[str, Path], tmp_path: Path) -> None:
    untrained = tiny.save_source(tmp_path / "untrained", layers=2)
    document = shrink(request(untrained, rows, tmp_path / "out", retain=0.1, speedup=1.0), make_evaluator=quick)
    assert not document["verdict"]["met"]
    assert "original" in document["verdict"]["missed"]
    assert "does not beat the majority class" in document["verdict"]["text"]


def test_a_plan_writes_nothing(original: Path, rows: dict[str, Path], tmp_path: Path) -> None:
    found = plan(request(original, rows, tmp_path / "out", speedup=12.0))
    names = [row["stage"] for row in found]
    assert names[0] == "the original in every runtime"
    assert any("pruning" in name for name in names)
    assert any("2 layers" in name for name in names)
    assert all(row["seconds"] > 0 for row in found)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"retain": 1.2}, RecipeError, r"--retain 1\.2"),
        ({"speedup": float("nan")}, RecipeError, "--speedup nan"),
        ({"seconds": 10.0}, RecipeError, "too short for a single measurement"),
        ({"processor": "riscv"}, ModelError, "no processor 'riscv'"),
        ({"recipe": "quick"}, ModelError, "no ready recipe 'quick'"),
        ({"device": "tpu"}, ModelError, "no device 'tpu'"),
        ({"device": "cuda"}, ModelError, "--on cuda"),
        ({"text": "sentence"}, DataError, "sentence"),
        ({"metric": "bleu"}, RecipeError, "no metric 'bleu'"),
        ({"metric": "pearson"}, RecipeError, "--metric: the metric 'pearson' is for scores, and the task has classes"),
        ({"names": {"good": "splendid"}}, PlankwiseError, "splendid"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    changes: dict[str, Any], error: type[Exception], said: str, original: Path, rows: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        shrink(request(original, rows, tmp_path / "out", **changes), make_evaluator=quick)
    assert not (tmp_path / "out").exists()


def test_models_that_are_no_classifiers_and_rows_that_do_not_fit_are_refused(
    original: Path, rows: dict[str, Path], tmp_path: Path
) -> None:
    encoder = tmp_path / "encoder"
    tiny.model(layers=2).base_model.save_pretrained(encoder)
    tiny.tokenizer().save_pretrained(encoder)
    with pytest.raises(ModelError, match="not a classifier of texts"):
        shrink(request(encoder, rows, tmp_path / "out"), make_evaluator=quick)
    few = _write(tmp_path / "few.csv", tiny.rows(20, 1))
    with pytest.raises(DataError, match="no rows held back possible"):
        shrink(request(original, rows, tmp_path / "out", data=(few,), test=()), make_evaluator=quick)
    other = tmp_path / "other.csv"
    other.write_text("text,label\n" + "\n".join(f"a day {n},{n % 2}" for n in range(300)), encoding="utf-8")
    with pytest.raises(DataError, match="--map"):
        shrink(request(original, rows, tmp_path / "out", data=(other,), test=()), make_evaluator=quick)
    assert not (tmp_path / "out").exists()


def test_the_verb_refuses_in_one_line(
    original: Path,
    rows: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = ["--data", rows["data"], "--test", rows["test"], "--out", tmp_path / "out"]
    assert tiny.call(monkeypatch, "shrink", original, *files, "--retain", "1.2") == 2
    assert capsys.readouterr().err == "plankwise: --retain 1.2: a share of the score; allowed: above 0, up to 1\n"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recipe.yaml").write_text("not: a search\n", encoding="utf-8")
    assert tiny.call(monkeypatch, "shrink", original, *files) == 2
    assert "not of a search" in capsys.readouterr().err


def test_the_verb_exits_with_3_where_the_goal_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    print_outcome({"verdict": {"met": True}}, [], as_json=True)
    with pytest.raises(typer.Exit) as end:
        print_outcome({"verdict": {"met": False}}, [], as_json=True)
    assert end.value.exit_code == 3
    assert [json.loads(line)["verdict"]["met"] for line in capsys.readouterr().out.splitlines()] == [True, False]
