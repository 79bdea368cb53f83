"""The last stage: both models on the test split, once; what was kept, what it costs, how fast it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from plankwise.core.hardware import default_device
from plankwise.core.records import Cost, Entry, Final, Record, Runtimes
from plankwise.data.batching.examples import encode
from plankwise.data.batching.inputs import log_texts_read
from plankwise.data.task import TEST, TRAIN, Task
from plankwise.data.truncation import Truncation
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.quantized import is_quantized
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.benchmark.torch_pair import Variant, benchmark
from plankwise.evaluation.comparison import Pair, behaviour, chance_corrected, retained_performance, score_interval
from plankwise.evaluation.metrics import METRICS, majority_logits
from plankwise.evaluation.saved_predictions import save_predictions
from plankwise.run.deployed_benchmark import deployed_benchmark
from plankwise.run.folder import cost_of
from plankwise.run.recipe import Recipe
from plankwise.training.prediction import Predictions, predict


def measure_final(record: Record, task: Task, recipe: Recipe, baseline: Path, model: Path, predictions: Path) -> Record:
    """Fill in the test scores of a record and everything that follows from them; save logits and ids, never text."""
    assert record.baseline is not None
    before, after = (read_variant(folder, task, recipe.model.plain_truncation) for folder in (baseline, model))
    old, new = (
        predict(each.model, each.tokenizer, task, TEST, recipe.model.plain_truncation) for each in (before, after)
    )
    for name, found in (("baseline", old), ("model", new)):
        log_texts_read(f"{name}, {TEST}", found.read)
    save_predictions(predictions, old.ids, Pair(old.labels, old.logits, new.logits))
    timing = deployed_benchmark(task, recipe, baseline, model) if is_quantized(after.model.config) else None
    timing = timing or benchmark(before, after, recipe.evaluation.rounds, recipe.evaluation.threads)
    cost = cost_of(after.model, model, sum(step.train_seconds for step in record.steps))
    texts_read = {**record.baseline.texts_read, TEST: old.read}
    scored = {"scores": old.scores(task.metrics), "scores_split": TEST, "texts_read": texts_read}
    tested = record.baseline.model_copy(update=scored)
    final = _compare(tested, task, recipe, old, new, cost, timing)
    return record.model_copy(update={"baseline": tested, "final": final})


def read_variant(folder: Path, task: Task, truncation: Truncation) -> Variant:
    """Load a model with its own tokenizer, and tokenize the test texts for it."""
    tokenizer = load_tokenizer(str(folder))
    examples = encode(task.splits[TEST], tokenizer, truncation)
    return Variant(load_trained(str(folder)).to(default_device()), tokenizer, examples)


def _compare(
    baseline: Entry, task: Task, recipe: Recipe, old: Predictions, new: Predictions, cost: Cost, timing: dict[str, Any]
) -> Final:
    pair = Pair(old.labels, old.logits, new.logits)
    resamples = recipe.evaluation.bootstrap
    train_labels = np.asarray(task.splits[TRAIN]["label"][:])
    guess = majority_logits(old.labels, train_labels)
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
