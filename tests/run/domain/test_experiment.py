"""The domain experiment in small: one language model, compressed in several ways, each fine-tuned for a task."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import tiny
from plankwise.core.errors import OutputError
from plankwise.run.domain import experiment
from plankwise.run.domain.experiment import run_domain
from plankwise.run.domain.plan import DomainPlan, check_domain, estimate_domain
from plankwise.run.domain.settings import read_domain
from plankwise.run.dry_run import StageCost


def planned(path: Path, *overrides: str) -> DomainPlan:
    return check_domain(path, read_domain(path, overrides))


def record_of(run: Path) -> Any:
    return json.loads((run / "record.json").read_text())


@pytest.fixture(scope="module")
def untimed() -> Any:
    """Artefacts are not made: that is what the tests of `speed` are for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "time_runtimes", lambda models, task, truncation: {name: {} for name in models})
        yield


@pytest.fixture(scope="module")
def finished(place: Path, untimed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "domain"
    run_domain(planned(place / "domain.yaml"), out)
    return out


@pytest.fixture(scope="module")
def compared(place: Path, untimed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "variants"
    run_domain(planned(place / "variants.yaml"), out)
    return out


def test_the_experiment_leaves_its_runs_and_one_table(finished: Path) -> None:
    runs = {"language-model", "language-model-compressed", "mood-compressed-1", "mood-compressed-2"}
    assert {path.name for path in finished.iterdir()} == runs | {
        *("domain.json", "domain.md", "mood.svg", "runtimes-mood.json")
    }
    document = json.loads((finished / "domain.json").read_text())
    assert document["name"] == "small"
    assert document["seeds"] == 2
    model = document["language_models"]["compressed"]
    assert model["parameters"]["large"] > model["parameters"]["small"]
    assert model["step_cost"] == pytest.approx(
        model["seconds_per_step"]["compression"] / model["seconds_per_step"]["plain_training"]
    )
    task = document["tasks"]["mood"]
    assert task["metric"] == "macro_f1"
    row = task["variants"]["compressed"]
    assert all(row[name]["low"] <= row[name]["median"] <= row[name]["high"] for name in row if name.endswith("speedup"))
    assert row["parameters"] < task["large"]["parameters"]
    page = (finished / "domain.md").read_text()
    assert page.startswith("| mood, macro_f1 | score | retained |")
    assert "\n| compressed | " in page
    assert "2 seeds" in page
    picture = (finished / "mood.svg").read_text()
    assert ">compressed</text>" in picture
    assert 'xmlns="http://www.w3.org/2000/svg"' in picture


def test_the_plan_counts_the_steps_that_are_taken_of_language_models_and_tasks_alike(
    place: Path, finished: Path
) -> None:
    estimated = estimate_domain(planned(place / "domain.yaml"))
    steps = {row["stage"]: row["steps"] for row in estimated}
    names = ["mood, large, 2 seeds", "mood, compressed, 2 seeds"]
    assert list(steps) == ["baseline", "compressed, 01-theseus", *names]
    record = record_of(finished / "mood-compressed-1")
    taken = [entry["details"]["training"]["steps"] for entry in (record["baseline"], record["steps"][0])]
    assert [steps[name] for name in names] == [2 * each for each in taken]
    assert all(row["seconds"] > 0 for row in estimated)


def test_the_plan_begins_with_what_is_prepared(place: Path) -> None:
    stages = [row["stage"] for row in estimate_domain(planned(place / "variants.yaml"))]
    assert stages[:3] == ["prepare, 01-vocabulary", "baseline", "halved, 01-theseus"]


def test_the_small_model_is_fine_tuned_from_the_compressed_one(finished: Path) -> None:
    for seed in (1, 2):
        record = record_of(finished / f"mood-compressed-{seed}")
        assert record["recipe"]["model"]["source"] == str(finished / "language-model" / "baseline")
        assert record["steps"][0]["settings"]["source"] == str(finished / "language-model-compressed" / "model")
        assert record["seed"] == seed


def test_resuming_trains_nothing_again(finished: Path, place: Path, untimed: None) -> None:
    trained = {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")}
    before = json.loads((finished / "domain.json").read_text())
    assert json.loads(json.dumps(run_domain(planned(place / "domain.yaml"), finished, resume=True))) == before
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")} == trained


def test_every_variant_starts_where_it_says(compared: Path) -> None:
    runs = {name: record_of(compared / f"mood-{name}-1") for name in ("halved", "plain", "plain-shallow", "shallow")}
    steps = {name: [step["name"] for step in record["steps"]] for name, record in runs.items()}
    assert steps == {
        "halved": ["checkpoint"],
        "plain": ["checkpoint"],
        "plain-shallow": ["checkpoint", "layer_subset"],
        "shallow": ["layer_subset"],
    }
    sources = {name: runs[name]["steps"][0]["settings"].get("source") for name in runs}
    assert sources["halved"] == str(compared / "language-model-halved" / "model")
    assert sources["plain"] == sources["plain-shallow"] == str(compared / "prepared")
    large = {json.dumps(record["baseline"]["scores"]) for record in runs.values()}
    assert len(large) == 1  # fine-tuned once, for all of them
    weights = [compared / f"mood-{name}-1" / "baseline" / "model.safetensors" for name in runs]
    assert len({path.stat().st_ino for path in weights}) == 1
    same = [
        compared / f"mood-{name}-1" / "steps/01-checkpoint/model.safetensors" for name in ("plain", "plain-shallow")
    ]
    assert same[0].stat().st_ino == same[1].stat().st_ino
    depths = {name: record["steps"][-1]["cost"]["parameters"] for name, record in runs.items()}
    assert depths["plain"] > depths["halved"] > depths["shallow"] == depths["plain-shallow"]


def test_the_vocabulary_is_trimmed_once_to_corpus_and_tasks(compared: Path, place: Path) -> None:
    log = json.loads((compared / "prepared.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(compared / "prepared")
    (step,) = log["steps"]
    assert step["tokens"]["before"] == 48 > step["tokens"]["kept"] == len(tokenizer)
    assert log["parameters"]["before"] > log["parameters"]["after"]
    assert json.loads((compared / "domain.json").read_text())["preparation"] == log
    for name in ("language-model/baseline", "language-model-halved/model", "mood-plain-1/model"):
        assert json.loads((compared / name / "config.json").read_text())["vocab_size"] == len(tokenizer)
    corpus = planned(place / "variants.yaml").corpus.splits["train"]
    task = planned(place / "variants.yaml").tasks[0].splits["train"]
    words = {word for split in (corpus, task) for text in split["text"] for word in text.lower().split()}
    assert words & set(tiny.tokenizer().get_vocab()) <= set(tokenizer.get_vocab()) | {"[UNK]"}


def test_the_table_has_a_line_for_each_variant(compared: Path) -> None:
    document = json.loads((compared / "domain.json").read_text())
    task = document["tasks"]["mood"]
    assert list(task["variants"]) == ["halved", "plain", "plain-shallow", "shallow"]
    assert list(document["language_models"]) == ["halved"]
    seconds = {name: row["fine_tuning_seconds"]["small"] for name, row in task["variants"].items()}
    assert seconds["plain-shallow"] > seconds["plain"]
    assert seconds["shallow"] > task["variants"]["shallow"]["fine_tuning_seconds"]["large"]  # it is fine-tuned first


def test_another_vocabulary_or_budget_in_the_folder_is_refused(compared: Path, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(compared, out)
    with pytest.raises(OutputError, match=r"holds another experiment \(it differs in steps\)"):
        run_domain(planned(place / "variants.yaml", "prepare.0.minimum_count=3"), out, resume=True)
    (out / "budget.json").write_text(json.dumps({"minutes": 5, "factors": {}}))
    with pytest.raises(OutputError, match=r"holds another experiment \(it differs in minutes\)"):
        run_domain(planned(place / "variants.yaml", "minutes=6"), out, resume=True)


def test_minutes_scale_the_epochs_and_are_kept_when_resumed(
    place: Path, untimed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rehearsed(checked: Any, *_: Any) -> Any:
        steps = checked.recipe.steps
        return (
            [StageCost("baseline", 1, 10, 9, 10.0, 90.0)] if not steps else [StageCost("x", 1, 10, 9, 5.0, 60.0)]
        ), None

    monkeypatch.setattr(experiment, "rehearse", rehearsed)
    out, overrides = tmp_path / "out", ("minutes=1", "seeds=[1]")
    run_domain(planned(place / "domain.yaml", *overrides), out)
    known = json.loads((out / "budget.json").read_text())
    # 60 of 90 s of training; 60 s less 15 beside, of 45 s of training
    assert known == {"minutes": 1.0, "factors": {"large": pytest.approx(60 / 90), "compressed": 1.0}}
    large = record_of(out / "language-model")
    assert large["recipe"]["baseline"]["epochs"] == 0.3333
    monkeypatch.setattr(experiment, "rehearse", lambda *_: pytest.fail("rehearsed again"))
    run_domain(planned(place / "domain.yaml", *overrides), out, resume=True)
