"""Parts of the chain on existing models: score one, or time several."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plankwise.core.errors import DataError, suggest
from plankwise.core.hardware import default_device
from plankwise.core.recipe import to_plain
from plankwise.data.batching.inputs import log_texts_read
from plankwise.data.task import TEST
from plankwise.data.text_files import TextFormat
from plankwise.data.tokenizer.unknown_tokens import SAMPLED, check_unknown
from plankwise.data.truncation import check_positions, truncation_for, warn_if_other
from plankwise.deploy.deployed import own_truncation
from plankwise.encoder.checkpoint import load_trained
from plankwise.encoder.classifier_head import labels_of
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.benchmark.benchmark import BenchmarkConfig, compare
from plankwise.evaluation.benchmark.workload import THROUGHPUT_TEXTS, texts_of_file, texts_of_split
from plankwise.evaluation.intervals import score_interval
from plankwise.run.recipe import Recipe
from plankwise.training.prediction import predict


def evaluate(model: Path, recipe: Recipe, split: str) -> dict[str, Any]:
    """Score a model on one split of a recipe's task.

    Args:
        model: its folder.
        recipe: names the task. What it says of how texts are read wins over how the model was trained to read them.
        split: of the task.

    Returns:
        The document that `plankwise evaluate --json` prints: scores with their bootstrap intervals, and what was read.

    Raises:
        DataError: if there is no such split, or the model was trained for other labels.
    """
    task = recipe.task.load()
    if split not in task.splits:
        raise DataError(f"no split '{split}'; {suggest(split, task.splits)}")
    loaded = load_trained(str(model)).to(default_device())
    labels = labels_of(loaded.config)
    if labels != task.labels:
        raise DataError(f"{model} knows the labels {labels}, the task has {task.labels}")
    own = stored_truncation(loaded.config)
    truncation = truncation_for(recipe.model, own)
    warn_if_other(truncation, own, str(model))
    check_positions(truncation, usable_positions(loaded.config))
    tokenizer = load_tokenizer(str(model))
    check_unknown(texts_of_split(task.splits[split], SAMPLED), tokenizer, str(model))
    found = predict(loaded, tokenizer, task, split, truncation)
    log_texts_read(split, found.read)
    resamples = recipe.evaluation.bootstrap
    scores = {name: score_interval([found.labels], [found.logits], name, resamples) for name in task.metrics}
    return {
        "task": task.name,
        "split": split,
        "rows": len(found.ids),
        "reading": to_plain(truncation),
        "texts_read": found.read.model_dump(),
        "scores": {name: interval.model_dump() for name, interval in scores.items()},
    }


def bench(
    models: Sequence[str],
    recipe: Recipe | None,
    texts: Path | None,
    column: str,
    threads: int | None,
    form: TextFormat | None = None,
    *,
    timer: Callable[[Sequence[str], BenchmarkConfig], dict[str, Any]] = compare,
    **options: Any,
) -> dict[str, Any]:
    """Time models against the first of them, on a recipe's test texts or on the texts of a file.

    All models read texts as the recipe says, and where it does not, as the first was trained or exported.

    Args:
        models: folders, artefacts or Hub ids.
        recipe: whose test texts are taken.
        texts: a file of texts, if there is no recipe.
        column: of that file, if it is a table.
        threads: cores that each model may use; all by default.
        form: encoding and delimiter of the file.
        timer: times the models.
        **options: of `BenchmarkConfig`.

    Raises:
        DataError: if not exactly one of both sources is given, or the texts cannot be read.
    """
    if (recipe is None) == (texts is None):
        raise DataError("give either --recipe, for the test texts of its task, or --texts FILE")
    used = threads or os.cpu_count() or 1
    if texts is not None:
        config = BenchmarkConfig(texts_of_file(texts, column, THROUGHPUT_TEXTS, form), used, **options)
    else:
        assert recipe is not None
        given = texts_of_split(recipe.task.load().splits[TEST], THROUGHPUT_TEXTS)
        config = BenchmarkConfig(given, used, truncation_for(recipe.model, own_truncation(models[0])), **options)
    return timer(models, config)
