"""What a study is estimated to cost, by hand arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
from plankwise.run.pipeline import Checked
from plankwise.search.dry_run import cost_lines, estimate_study
from plankwise.search.study_plan import read_study

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
    assert cost_lines(cost)[0] == "rates: 2 settings × 3 seeds = 6 trials, about 4 s each"
