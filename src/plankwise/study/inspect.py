"""One part of the chain on models that exist: score one, or time two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plankwise.core.errors import DataError, suggest
from plankwise.core.runtime import default_device
from plankwise.encoder.checkpoint import load_tokenizer, load_trained
from plankwise.study.benchmark import benchmark
from plankwise.study.compare import score_interval
from plankwise.study.final import read_variant
from plankwise.study.plan import Recipe
from plankwise.training.evaluate import predict


def evaluate(model: Path, recipe: Recipe, split: str) -> dict[str, Any]:
    """Score the model in a folder on one split of the recipe's task.

    Raises:
        DataError: if there is no such split, or the model was trained for other labels.
    """
    task = recipe.task.load()
    if split not in task.splits:
        raise DataError(f"no split '{split}'; {suggest(split, task.splits)}")
    loaded = load_trained(str(model)).to(default_device())
    labels = tuple(loaded.config.id2label[index] for index in range(loaded.config.num_labels))
    if labels != task.labels:
        raise DataError(f"{model} knows the labels {labels}, the task has {task.labels}")
    found = predict(loaded, load_tokenizer(str(model)), task, split, recipe.model.reading)
    resamples = recipe.evaluation.bootstrap
    scores = {name: score_interval([found.labels], [found.logits], name, resamples) for name in task.metrics}
    return {
        "task": task.name,
        "split": split,
        "rows": len(found.ids),
        "scores": {name: interval.model_dump() for name, interval in scores.items()},
    }


def bench(baseline: Path, model: Path, recipe: Recipe, rounds: int, threads: int | None) -> dict[str, Any]:
    """Time two models in folders against each other on the task's test texts, each as its own tokenizer reads them."""
    task = recipe.task.load()
    old, new = (read_variant(folder, task, recipe.model.reading) for folder in (baseline, model))
    return benchmark(old, new, rounds, threads)
