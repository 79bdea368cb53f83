"""The main experiment in small: one language model, compressed once, both fine-tuned for a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM

import tiny
from plankwise.core.errors import PlankwiseError
from plankwise.core.records import Cost, Entry, Record
from plankwise.core.step_log import StepLog, TrainingLog
from plankwise.report import domain_table
from plankwise.report.domain_table import compression, downstream_row, markdown
from plankwise.run.domain import check_domain, estimate_domain, read_domain, run_domain

LANGUAGE_MODEL = """
name: lm
task: {{name: corpus, files: [{corpus}], held_out: 0.1}}
model: {{source: {model}, max_length: 16}}
baseline: {{epochs: 0.5, batch_size: 16, learning_rate: 1.0e-2}}
steps: [{{method: theseus, modules: 2, training: {{epochs: 0.5, batch_size: 16, learning_rate: 5.0e-3}}}}]
"""
DOMAIN = """
name: small
language_model: lm.yaml
tasks:
  - name: mood
    task: {{name: table, train: {data}}}
    max_length: 32
    fine_tuning: {{epochs: 1, batch_size: 16, learning_rate: 1.0e-2, evaluations_per_epoch: 2}}
seeds: [1, 2]
evaluation: {{bootstrap: 100, rounds: 3, threads: 1, onnx_baseline: false}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("domain")
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(tiny.model().config).save_pretrained(folder / "source")
    tiny.tokenizer().save_pretrained(folder / "source")
    corpus = folder / "corpus.txt"
    corpus.write_text("\n\n".join(str(row["text"]) for row in tiny.rows(300)))
    (folder / "lm.yaml").write_text(LANGUAGE_MODEL.format(corpus=corpus, model=folder / "source"))
    (folder / "domain.yaml").write_text(DOMAIN.format(data=tiny.write_table(folder, 120)))
    return folder


@pytest.fixture(scope="module")
def finished(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "domain"
    run_domain(check_domain(place / "domain.yaml", read_domain(place / "domain.yaml")), out)
    return out


def test_the_experiment_leaves_its_runs_and_one_table(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "language-model",
        "mood-1",
        "mood-2",
        "domain.json",
        "domain.md",
    }
    document = json.loads((finished / "domain.json").read_text())
    assert document["name"] == "small"
    assert document["seeds"] == 2
    model = document["language_model"]
    assert model["parameters"]["large"] > model["parameters"]["small"]
    assert model["step_cost"] == pytest.approx(
        model["seconds_per_step"]["compression"] / model["seconds_per_step"]["plain_training"]
    )
    row = document["tasks"]["mood"]
    assert row["metric"] == "macro_f1"
    assert all(row[name]["low"] <= row[name]["median"] <= row[name]["high"] for name in row if name.endswith("speedup"))
    page = (finished / "domain.md").read_text()
    assert page.startswith("| task | large | compressed |")
    assert "| mood, macro_f1 |" in page
    assert "2 seeds" in page


def test_the_plan_counts_the_steps_that_are_taken_of_language_models_and_tasks_alike(
    place: Path, finished: Path
) -> None:
    planned = estimate_domain(check_domain(place / "domain.yaml", read_domain(place / "domain.yaml")))
    steps = {row["stage"]: row["steps"] for row in planned}
    assert list(steps) == ["baseline", "01-theseus", "mood, large, 2 seeds", "mood, small, 2 seeds"]
    record = json.loads((finished / "mood-1" / "record.json").read_text())
    taken = [entry["details"]["training"]["steps"] for entry in (record["baseline"], record["steps"][0])]
    assert [steps[f"mood, {size}, 2 seeds"] for size in ("large", "small")] == [2 * each for each in taken]
    assert all(row["seconds"] > 0 for row in planned)


def test_the_small_model_is_fine_tuned_from_the_compressed_one(finished: Path) -> None:
    for seed in (1, 2):
        record = json.loads((finished / f"mood-{seed}" / "record.json").read_text())
        assert record["recipe"]["model"]["source"] == str(finished / "language-model" / "baseline")
        assert record["steps"][0]["settings"]["source"] == str(finished / "language-model" / "model")
        assert record["seed"] == seed


def test_resuming_trains_nothing_again(finished: Path, place: Path) -> None:
    trained = {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")}
    before = json.loads((finished / "domain.json").read_text())
    plan = check_domain(place / "domain.yaml", read_domain(place / "domain.yaml"))
    assert json.loads(json.dumps(run_domain(plan, finished, resume=True))) == before
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")} == trained


def entry(name: str, seconds: float, steps: int | None, best: int = 0, parameters: int = 100) -> Entry:
    trained: dict[str, Any] = (
        {} if steps is None else {"steps": steps, "planned_steps": steps, "best_step": best, "train_seconds": 0.0}
    )
    return Entry(
        name=name,
        settings={"training": {"batch_size": 10}},
        scores={},
        scores_split="development",
        cost=Cost(parameters=parameters, size_bytes=4 * parameters, train_seconds=seconds),
        train_seconds=seconds,
        development_scores={"perplexity": 10.0},
        details=StepLog(training=TrainingLog(**trained) if trained else None),
    )


def record(baseline: Entry, *steps: Entry) -> Record:
    task = {"metrics": ["macro_f1"], "rows": {"train": 95}}
    return Record(
        name="r",
        task=task,
        baseline=baseline,
        steps=list(steps),
        environment={},
        data_hashes={},
        seed=0,
        recipe={},
    )


def test_the_cost_of_a_step_equals_hand_arithmetic() -> None:
    two_steps = record(entry("baseline", 100.0, 50), entry("theseus", 30.0, 20), entry("theseus", 10.0, 20, 0, 60))
    found = compression(two_steps)
    assert found["seconds_per_step"] == {"plain_training": 2.0, "compression": 1.0}
    assert found["step_cost"] == 0.5
    assert found["compression_seconds"] == 40.0
    assert found["compression_steps"] == 40
    assert found["parameters"] == {"large": 100, "small": 60}
    assert compression(record(entry("baseline", 0.0, None), entry("theseus", 30.0, 20)))["step_cost"] is None


class Stub:
    """Stands for an interval, a row or a final: whatever is asked for is there."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    def model_dump(self) -> dict[str, float]:
        return {"value": 0.5, "low": 0.4, "high": 0.6}


def test_speedups_equal_hand_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    records = {
        Path("a"): record(entry("baseline", 40.0, 20, best=10), entry("checkpoint", 10.0, 20, best=20)),
        Path("b"): record(entry("baseline", 60.0, 20, best=20), entry("checkpoint", 20.0, 20, best=5)),
        Path("c"): record(entry("baseline", 80.0, 20, best=20), entry("checkpoint", 10.0, 20, best=20)),
    }
    finals = {
        id(each): Stub(speedup=speed, majority_scores={"macro_f1": 0.3}, benchmark={"device": "cpu"})
        for each, speed in zip(records.values(), (2.0, 4.0, 3.0), strict=True)
    }
    monkeypatch.setattr(domain_table, "finished", records.__getitem__)
    monkeypatch.setattr(domain_table, "_final", lambda each: finals[id(each)])
    pooled = Stub(baseline_score=Stub(), score=Stub(), retained=None)
    monkeypatch.setattr(domain_table, "table", lambda runs: [pooled])
    row = downstream_row(list(records))
    assert row["fine_tuning_speedup"] == {"median": 4.0, "low": 3.0, "high": 8.0}
    assert row["to_best_speedup"] == {"median": 8.0, "low": 2.0, "high": 12.0}
    assert row["prediction_speedup"] == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert row["seconds_per_epoch"] == {"large": 30.0, "small": 5.0}
    assert row["majority"] == 0.3
    model = {**compression(record(entry("baseline", 0.0, None), entry("theseus", 30.0, 20)))}
    page = markdown({"name": "x", "seeds": 3, "language_model": model, "tasks": {"mood": row}})
    expected = "| mood, macro_f1 | 0.500 [0.400, 0.600] | 0.500 [0.400, 0.600] | – | 4.00× | 8.00× | 3.00× |"
    assert expected in page
    assert page.endswith("compressing took 20 steps and 0 min.")


@pytest.mark.parametrize(
    ("language_model", "domain", "message"),
    [
        ([], ["language_model=gone.yaml"], r"cannot read the recipe .*gone\.yaml: No such file"),
        (["steps=[]"], [], r"lm\.yaml: steps is empty; the experiment needs a compressed language model"),
        (["task={name: table, train: data.csv}"], [], r"a language model is trained on a task of name 'corpus'"),
        ([], ["tasks.0.task={name: corpus, files: [a.txt]}"], r"mood: a corpus has no labels to fine-tune for"),
        ([], ["tasks.0.task.train=gone.csv"], r"cannot read gone\.csv"),
        ([], ["tasks.0.max_length=500"], r"mood: max_length 500 is more than the model.s 72 positions"),
        ([], ["tasks.0.fine_tuning.gradient_accumulation=3"], r"batch_size 16 does not divide into 3"),
        ([], ["seeds=[1, 2, 1]"], r"seeds \[1, 2, 1\] name one twice"),
        ([], ["seeds=[]"], r"seeds"),
        ([], ["tasks=[]"], r"tasks"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(
    language_model: list[str], domain: list[str], message: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place / "domain.yaml"
    with pytest.raises(PlankwiseError, match=message) as error:
        check_domain(path, read_domain(path, domain), language_model)
    assert "\n" not in str(error.value)


def test_two_tasks_of_one_name_are_refused(place: Path, tmp_path: Path) -> None:
    text = (place / "domain.yaml").read_text()
    start, end = text.index("  - name"), text.index("seeds:")
    (tmp_path / "twice.yaml").write_text(text[:end] + text[start:end] + text[end:])
    with pytest.raises(PlankwiseError, match=r"twice\.yaml: two tasks are named 'mood'"):
        read_domain(tmp_path / "twice.yaml")
