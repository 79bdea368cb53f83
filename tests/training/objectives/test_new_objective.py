"""A new objective is one file and one line: everything below `ToyScore` is the library as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

import tiny
from plankwise.core.errors import MethodError, RecipeError
from plankwise.core.recipe import read_recipe
from plankwise.data.task import Task
from plankwise.evaluation.metrics import Array, Floats
from plankwise.methods.checkpoint import Checkpoint
from plankwise.methods.pruning import Pruning
from plankwise.methods.quantization import Quantization
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe
from plankwise.training.objectives.losses import Loss
from plankwise.training.objectives.registry import OBJECTIVES, objective_of
from plankwise.training.objectives.texts import TextObjective

RECIPE = """
name: toy
task: {{name: table, train: {data}}}
model: {{source: {model}, max_length: 32}}
baseline: {{epochs: 9, batch_size: 16, learning_rate: 5.0e-3}}
steps:
  - {{method: layer_subset, layers: 2, teacher: {{}}, training: {{epochs: 2, batch_size: 16, learning_rate: 5.0e-3}}}}
"""


@dataclass(frozen=True)
class ToyScore(TextObjective):
    """One number for each text: the share of kind words among its kind and unkind ones."""

    kind: ClassVar[str] = "toy_score"
    has_labels: ClassVar[bool] = False

    def load(self, source: str, labels: Sequence[str], new_head: bool = True) -> PreTrainedModel:
        made: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            source, num_labels=1, problem_type="regression", ignore_mismatched_sizes=True
        )
        return made

    def load_trained(self, folder: str) -> PreTrainedModel:
        made: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(folder)
        return made.eval()

    def new_model(self, config: PreTrainedConfig, labels: Sequence[str]) -> PreTrainedModel:
        made: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
        return made

    def loss(self, task: Task) -> Loss:
        def squared_error(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
            return functional.mse_loss(outputs.logits[:, 0].float(), batch["labels"].float())

        return squared_error

    def logits_loss(self, student: Tensor, teacher: Tensor, temperature: float, form: str = "kl") -> Tensor:
        return functional.mse_loss(student.float(), teacher.float())

    def own_label_loss(self, generator: torch.Generator) -> Loss:
        def squared_distance(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
            logits = outputs.logits.float()
            return functional.mse_loss(logits, logits.detach() + torch.randn(logits.shape, generator=generator))

        return squared_distance

    def metrics(self, labels: Array, logits: Floats, names: Sequence[str]) -> dict[str, float]:
        return {name: 1.0 - float(np.mean((labels - logits[:, 0]) ** 2)) for name in names}


def toy_task() -> Task:
    def split(count: int, seed: int) -> Dataset:
        rows = tiny.rows(count, seed)
        words = [str(row["text"]).split() for row in rows]
        kind, unkind = ([sum(word in some for word in each) for each in words] for some in (tiny.GOOD, tiny.BAD))
        shares = [good / (good + bad) for good, bad in zip(kind, unkind, strict=True)]
        return Dataset.from_dict(
            {"id": [row["id"] for row in rows], "text": [row["text"] for row in rows], "label": shares}
        )

    splits = DatasetDict({"train": split(160, 1), "development": split(48, 2)})
    return Task("toy", splits, (), "toy_score", ("closeness",), "open", {name: name for name in splits})


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line."""
    monkeypatch.setitem(OBJECTIVES, ToyScore.kind, ToyScore)


def test_a_run_trains_distils_compresses_and_scores_it(tmp_path: Path) -> None:
    data, model = tiny.write_table(tmp_path), tiny.save_source(tmp_path / "source")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(data=data, model=model))
    checked = check(read_recipe(tmp_path / "recipe.yaml", Recipe))
    record = run(dataclasses.replace(checked, task=toy_task()), tmp_path / "run")
    assert record.baseline is not None
    assert record.task["kind"] == "toy_score"
    assert record.baseline.scores["closeness"] > 0.85, "always answering one half scores 0.75"
    assert record.steps[0].scores["closeness"] > 0.85
    assert record.steps[0].details.teacher is not None
    assert record.steps[0].cost.parameters < record.baseline.cost.parameters
    assert record.final is None, "there is no test split, so nothing is measured on one"


def test_methods_that_sample_and_prune_work_on_it(tmp_path: Path) -> None:
    config = tiny.model().config
    config.num_labels, config.problem_type = 1, "regression"
    model = ToyScore().new_model(config, ())
    job = tiny.job(tmp_path, task=toy_task())
    smaller = Pruning(target=1.5, neuron_step=4, examples=32).compress(model, job)
    assert smaller.log.examples == 32
    assert smaller.model(**tiny.batch()).logits.shape == (4, 1)


@pytest.mark.parametrize("method", [Checkpoint(source="anywhere"), Quantization()])
def test_what_needs_labels_is_refused_on_the_spec(method: Checkpoint | Quantization) -> None:
    with pytest.raises(MethodError, match="for a task with labels"):
        method.plan(tiny.spec(kind="toy_score"))


def test_an_objective_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(RecipeError, match=r"no objective 'toy_scores'; did you mean 'toy_score'"):
        objective_of("toy_scores")
