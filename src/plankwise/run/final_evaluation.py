"""The last stage: both models on the test split, once. What was kept, what it costs, and how fast it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from plankwise.core.hardware import default_device
from plankwise.core.records import Cost, Entry, Final, Record, Runtimes
from plankwise.data.batching.inputs import log_texts_read
from plankwise.data.task import TEST, TRAIN, Task
from plankwise.data.truncation import Truncation
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.comparison import Pair, behaviour, chance_corrected, retained_performance
from plankwise.evaluation.intervals import score_interval
from plankwise.evaluation.metrics import METRICS, majority_logits
from plankwise.evaluation.saved_predictions import save_predictions
from plankwise.run.final_benchmark import benchmark_final
from plankwise.run.folder import cost_of
from plankwise.run.recipe import Recipe
from plankwise.training.prediction import Predictions, predict

Benchmark = Callable[[Task, Recipe, Path, Path], dict[str, Any]]  # task, recipe, baseline's folder, model's folder


def measure_final(
    record: Record,
    task: Task,
    recipe: Recipe,
    baseline: Path,
    model: Path,
    predictions: Path,
    *,
    benchmark: Benchmark = benchmark_final,
) -> Record:
    """Fill in the test scores of a record and everything that follows from them.

    Args:
        record: of the run, with its baseline and steps.
        task: with all its splits.
        recipe: of the run.
        baseline: folder of the model before compression.
        model: folder of the model after it.
        predictions: file to save logits and ids to, never text.
        benchmark: times both models.
    """
    assert record.baseline is not None
    truncation = recipe.model.plain_truncation
    old, _ = _predict(baseline, task, truncation)
    new, compressed = _predict(model, task, truncation)
    for name, found in (("baseline", old), ("model", new)):
        log_texts_read(f"{name}, {TEST}", found.read)
    save_predictions(predictions, old.ids, Pair(old.labels, old.logits, new.logits))
    cost = cost_of(compressed, model, sum(step.train_seconds for step in record.steps))
    del compressed  # the benchmark loads it again, where it is meant to run
    timing = benchmark(task, recipe, baseline, model)
    texts_read = {**record.baseline.texts_read, TEST: old.read}
    scored = {"scores": old.scores(task.metrics), "scores_split": TEST, "texts_read": texts_read}
    tested = record.baseline.model_copy(update=scored)
    final = _compare(tested, task, recipe, old, new, cost, timing)
    return record.model_copy(update={"baseline": tested, "final": final})


def _predict(folder: Path, task: Task, truncation: Truncation) -> tuple[Predictions, PreTrainedModel]:
    """Predict the test split with a model and its own tokenizer."""
    model = load_trained(str(folder)).to(default_device())
    return predict(model, load_tokenizer(str(folder)), task, TEST, truncation), model


def _compare(
    baseline: Entry, task: Task, recipe: Recipe, old: Predictions, new: Predictions, cost: Cost, timing: dict[str, Any]
) -> Final:
    pair = Pair(old.labels, old.logits, new.logits)
    resamples = recipe.evaluation.bootstrap
    train_labels = np.asarray(task.splits[TRAIN]["label"][:])
    guess = majority_logits(old.labels, train_labels, len(task.labels))
    majority = {name: METRICS[name](old.labels, guess) for name in task.metrics}
    scores = new.scores(task.metrics)
    return Final(
        scores=scores,
        score_intervals={name: score_interval([new.labels], [new.logits], name, resamples) for name in task.metrics},
        baseline_intervals={name: score_interval([old.labels], [old.logits], name, resamples) for name in task.metrics},
        majority_scores=majority,
        cost=cost,
        retained_performance={name: retained_performance([pair], name, resamples) for name in task.metrics},
        chance_corrected={n: chance_corrected(scores[n], baseline.scores[n], majority[n]) for n in task.metrics},
        behaviour=behaviour(pair),
        compression_ratio=baseline.cost.parameters / cost.parameters,
        speedup=timing["throughput"]["speedup"],
        benchmark=timing,
        texts_read=new.read,
        runtimes=Runtimes(**timing["runtimes"]),
        speedup_over={name: over["speedup"] for name, over in timing["throughput"].get("over", {}).items()},
    )
