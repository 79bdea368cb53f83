"""The corpus of a domain experiment: without lines that are test texts, and with the training texts of its tasks."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from datasets import DatasetDict, concatenate_datasets

from plankwise.core.errors import DataError
from plankwise.data.corpus.contamination import ContaminationFilter
from plankwise.data.corpus.corpus import Corpus
from plankwise.data.corpus.streams import texts_of
from plankwise.data.task import TEST, TRAIN, Task
from plankwise.run.domain.settings import Domain

logger = logging.getLogger(__name__)
TEXTS = ("text", "text_pair")


def clean_corpus(place: Path, corpus: Corpus, domain: Domain, tasks: Sequence[Task]) -> Task:
    """Load the corpus without the lines that are, or nearly are, test texts of the tasks.

    Raises:
        DataError: if there are such lines and the experiment does not say to drop them.
    """
    found = _test_texts(tasks)
    count = corpus.count_contaminated(found)
    names = ", ".join(each.name for each in domain.tasks)
    if count and domain.contamination == "refuse":
        raise DataError(
            f"{place}: {count} lines of the corpus are, or nearly are, test texts of {names}; remove them, or give "
            "contamination: drop"
        )
    if count:
        logger.warning("%d lines of the corpus are, or nearly are, test texts of %s; they are dropped", count, names)
    return corpus.load(found if count else None)


def _test_texts(tasks: Sequence[Task]) -> ContaminationFilter:
    return ContaminationFilter(
        text
        for task in tasks
        for column in TEXTS
        if column in task.splits[TEST].column_names
        for text in texts_of(task.splits[TEST], column)
    )


def with_task_texts(corpus: Task, tasks: Sequence[Task]) -> Task:
    """Return the corpus with the training texts of tasks added to its own, but for those that are test texts."""
    tested = _test_texts(tasks)
    column = corpus.splits[TRAIN].features["text"]
    parts = [corpus.splits[TRAIN].select_columns("text")]
    for task in tasks:
        split = task.splits[TRAIN]
        for name in TEXTS:
            if name in split.column_names:
                renamed = split.select_columns(name).rename_columns({name: "text"})
                clean = renamed.filter(lambda row: not tested.matches(row["text"]), keep_in_memory=True)
                parts.append(clean.cast_column("text", column))
    hashes = dict(corpus.hashes) | {TRAIN: "/".join([corpus.hashes[TRAIN], *(task.hashes[TRAIN] for task in tasks)])}
    splits = DatasetDict({**corpus.splits, TRAIN: concatenate_datasets(parts)})
    return dataclasses.replace(corpus, splits=splits, hashes=hashes)
