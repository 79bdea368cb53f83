"""A tiny recipe that a search varies, and candidates that are measured by arithmetic instead of training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tiny
from plankwise.core.records import Interval
from plankwise.search.budget.candidate import Candidate, Outcome

RECIPE = """\
name: tiny
task: {{name: table, train: {data}}}
model: {{source: {model}, max_length: 32}}
baseline: {{epochs: 4, batch_size: 16, learning_rate: 1.0e-2}}
steps:
  - method: theseus
    modules: 2
    training: {{epochs: 2, batch_size: 16, learning_rate: 5.0e-3}}
  - method: pruning
    target: 1.5
    neuron_step: 1
    examples: 24
seed: 3
"""
SEARCH = """\
recipe: recipe.yaml
space:
  steps.0.modules: [1, 2]
  steps.1.target: {low: 1.2, high: 2.0}
drop: [steps.1]
runtimes: [onnx fp32, onnx int8]
"""
FINITE = """\
recipe: recipe.yaml
space:
  steps.0.modules: [1, 2]
drop: [steps.0, steps.1]
runtimes: [onnx fp32]
"""


def write(folder: Path) -> Path:
    """Write the recipe, its data and its model, and two search files; return the folder."""
    data, model = tiny.write_table(folder, 160), tiny.save_source(folder / "source")
    (folder / "recipe.yaml").write_text(RECIPE.format(data=data, model=model))
    (folder / "search.yaml").write_text(SEARCH)
    (folder / "finite.yaml").write_text(FINITE)
    return folder


def arithmetic(candidate: Candidate) -> Outcome:
    """Measure a candidate without a model: fewer modules and larger targets are faster, and cost score."""
    speed, kept = (2.0 if candidate.precision == "int8" else 1.0), 1.0
    for step in candidate.steps:
        if step["method"] == "theseus":
            speed *= 4 / step["modules"]
            kept -= 0.02 / step["modules"] + 0.01 * (2 - step["training"]["epochs"])
        else:
            speed *= step["target"]
            kept -= 0.02 * (step["target"] - 1)
    return Outcome(
        candidate=candidate,
        scores={"macro_f1": 0.9 * kept},
        retained=Interval(value=kept, low=kept - 0.005, high=kept + 0.005),
        agreement=kept,
        speedup=Interval(value=speed, low=0.95 * speed, high=1.05 * speed),
        reference="OpenVINO fp32",
        ms_per_text=1.0 / speed,
        size_bytes=1000,
        parameters=100,
        train_seconds=1.0,
        seconds=2.0,
    )


def copying_export(model: str, out: Path, **_: Any) -> Any:
    """Copy the model instead of exporting it: torch predicts from it, too, and it costs nothing."""
    shutil.copytree(model, out)
