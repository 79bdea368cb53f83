"""What a study is estimated to cost, by hand arithmetic."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

import tiny
from plankwise.core.errors import RecipeError
from plankwise.run.pipeline import Checked
from plankwise.search.dry_run import check_budget, cost_lines, estimate_study
from plankwise.search.power import smallest_effects
from plankwise.search.study_plan import StudyPlan, read_study

RECIPE = """
name: corpus
task: {{name: corpus, files: [{corpus}], held_out: 0.3}}
model: {{source: {model}, max_length: 16}}
baseline: null
steps:
  - {{method: theseus, modules: 2, training: {{epochs: 1, batch_size: 8}}}}
"""
STUDY = "name: rates\nrecipe: recipe.yaml\nspace: {steps.0.training.epochs: [1, 2]}\nseeds: [1, 2, 3]\n"


def test_trials_of_a_corpus_count_blocks_and_not_documents(tmp_path: Path) -> None:
    corpus, model = tmp_path / "corpus.txt", tiny.save_source(tmp_path / "source")
    corpus.write_text("\n\n".join(str(row["text"]) for row in tiny.rows(200)))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(corpus=corpus, model=model))
    (tmp_path / "study.yaml").write_text(STUDY)
    asked: list[Checked] = []

    def rehearse(checked: Checked) -> list[dict[str, Any]]:
        asked.append(checked)
        return [{"stage": "01-theseus", "examples": 40, "seconds_per_step": 0.5, "seconds": 2.5}]

    cost = estimate_study(read_study(tmp_path / "study.yaml"), rehearse)
    assert len(asked[0].task.splits["train"]) > 100, "documents, which fill 40 blocks"
    # 40 blocks are 5 steps of 8 an epoch: 2.5 s with one epoch and 5 s with two, three seeds each.
    assert cost["seconds_per_trial"] == (2.5 + 5.0) / 2
    assert cost["seconds"] == 3 * (2.5 + 5.0)
    assert (cost["trials"], cost["settings"], cost["seconds_per_baseline"]) == (6, 2, 0)
    assert cost["smallest_effects"] == {}
    assert cost_lines(cost)[0] == "rates: 2 settings × 3 seeds = 6 trials, about 4 s each"


PLAIN = """
name: plain
task: {{name: table, train: {data}}}
model: {{source: {model}, max_length: 32}}
baseline: {{epochs: 1}}
steps: [{{method: theseus, modules: 2, training: {{epochs: 1}}}}]
"""
GRID = """
name: grid
recipe: recipe.yaml
space: {steps.0.start: [0.1, 0.3, 0.5, 0.7], steps.0.full_at: [0.5, 1.0]}
seeds: [1, 2, 3]
noise: 0.01
minutes: 5
"""


@pytest.fixture
def grid(tmp_path: Path) -> StudyPlan:
    data, model = tiny.write_table(tmp_path), tiny.save_source(tmp_path / "source")
    (tmp_path / "recipe.yaml").write_text(PLAIN.format(data=data, model=model))
    (tmp_path / "study.yaml").write_text(GRID)
    return read_study(tmp_path / "study.yaml")


def test_the_smallest_effect_equals_hand_arithmetic(grid: StudyPlan) -> None:
    found = smallest_effects(grid)
    # 2 of 8 settings have one of four starts, 4 of 8 one of two ends; three seeds each.
    assert found["steps.0.start"] == pytest.approx(2.8016 * 0.01 * math.sqrt(1 / 6 + 1 / 18), rel=1e-4)
    assert found["steps.0.full_at"] == pytest.approx(2.8016 * 0.01 * math.sqrt(1 / 12 + 1 / 12), rel=1e-4)
    cost = {"name": "g", "settings": 8, "seeds": 3, "trials": 24, "baselines": 3, "seconds_per_baseline": 1.0}
    lines = cost_lines({**cost, "seconds_per_trial": 1.0, "seconds": 27.0, "smallest_effects": found})
    assert lines[-1].endswith("at least: start 0.0132, full_at 0.0114")
    assert smallest_effects(dataclasses.replace(grid, study=dataclasses.replace(grid.study, noise=None))) == {}


def test_a_budget_of_less_than_two_trials_a_setting_is_refused(grid: StudyPlan) -> None:
    check_budget(grid, {"seeds": 3, "seconds": 449.0})  # two of three seeds take 5 min less a bit
    with pytest.raises(RecipeError, match=r"study\.yaml:7: 5 min do not hold two trials .* take about 6 min"):
        check_budget(grid, {"seeds": 3, "seconds": 540.0})
    check_budget(dataclasses.replace(grid, study=dataclasses.replace(grid.study, minutes=None)), {"seconds": 1e9})
