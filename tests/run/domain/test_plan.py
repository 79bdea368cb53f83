"""What a domain experiment refuses before anything is trained, and what it leaves out of its corpus."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from plankwise.core.errors import PlankwiseError
from plankwise.data.corpus.contamination import ContaminationFilter
from plankwise.run.domain.plan import check_domain
from plankwise.run.domain.settings import read_domain

THESEUS = "{method: theseus, modules: 2}"
SCRATCH = (
    "model={max_length: 16, scratch: {layers: 2, width: 16, heads: 2, vocabulary: {size: 60}, positions: 72, "
    "block: 16, growth: [2], epochs: [1]}}"
)


@pytest.mark.parametrize(
    ("language_model", "domain", "message"),
    [
        ([], ["language_model=gone.yaml"], r"cannot read the recipe .*gone\.yaml: No such file"),
        (["steps=[]"], [], r"lm\.yaml: steps is empty; the experiment needs a compressed language model"),
        (["task={name: table, train: data.csv}"], [], r"a language model is trained on a task of name 'corpus'"),
        ([], ["tasks.0.task={name: corpus, files: [a.txt]}"], r"mood: a corpus has no labels to fine-tune for"),
        ([], ["tasks.0.task.train=gone.csv"], r"cannot read gone\.csv"),
        ([], ["tasks.0.max_length=500"], r"mood: max_length 500 is more than the model.s 72 positions"),
        ([], ["tasks.0.fine_tuning.gradient_accumulation=3"], r"batch_size 16 does not divide into 3"),
        ([], ["seeds=[1, 2, 1]"], r"seeds \[1, 2, 1\] name one twice"),
        ([], ["seeds=[]"], r"seeds"),
        ([], ["tasks=[]"], r"tasks"),
        ([], ["contamination=refuse"], r"lm\.yaml: \d+ lines of the corpus are, or nearly are, test texts of mood; "),
        ([], ["minutes=0"], r"minutes: input should be greater than 0"),
        ([], [f"variants={{a: {{steps: [{THESEUS}]}}}}"], r"lm\.yaml: steps: .*domain\.yaml has variants"),
        ([], ["variants={large: {adapted: false}}"], r"'large' is the uncompressed model; allowed: any other name"),
        ([], ["variants={a: {}}"], r"it is the large model itself; allowed: steps, at_task, or adapted: false"),
        ([], [f"variants={{a: {{adapted: false, steps: [{THESEUS}]}}}}"], r"with adapted: false: at_task"),
        ([], ["variants={'a/b': {adapted: false}}"], r"variants"),
        (
            [],
            ["prepare=[{method: vocabulary, training: {epochs: 1}}]"],
            r"prepare\.0\.training: the language model is trained afterwards; leave it out",
        ),
        ([], ["prepare=[{method: vocabulary, max_tokens: 2}]"], r"prepare\.0 \(vocabulary\): max_tokens 2 is too few"),
        (
            ["steps=[]"],
            ["variants={a: {at_task: [{method: layer_subset, layers: 9}]}}"],
            r"domain\.yaml: variants: a: at_task\.0 \(layer_subset\): ",
        ),
        (
            ["steps=[]", SCRATCH],
            ["variants={a: {adapted: false}}"],
            r"variants: a: adapted: false starts from a model that exists; there is none",
        ),
        (
            [SCRATCH],
            ["prepare=[{method: vocabulary}]"],
            r"prepare changes a model that exists; allowed: with model.source",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(
    language_model: list[str], domain: list[str], message: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place / "domain.yaml"
    with pytest.raises(PlankwiseError, match=message) as error:
        check_domain(path, read_domain(path, domain), language_model)
    assert "\n" not in str(error.value)


def test_two_tasks_of_one_name_are_refused(place: Path, tmp_path: Path) -> None:
    text = (place / "domain.yaml").read_text()
    start, end = text.index("  - name"), text.index("seeds:")
    (tmp_path / "twice.yaml").write_text(text[:end] + text[start:end] + text[end:])
    with pytest.raises(PlankwiseError, match=r"twice\.yaml: two tasks are named 'mood'"):
        read_domain(tmp_path / "twice.yaml")


def test_lines_of_the_corpus_that_are_test_texts_are_dropped_and_counted(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = place / "domain.yaml"
    with caplog.at_level(logging.WARNING):
        plan = check_domain(path, read_domain(path))
    found = ContaminationFilter(plan.tasks[0].splits["test"]["text"])
    kept = [text for split in plan.corpus.splits.values() for text in split["text"]]
    assert kept
    assert not any(map(found.matches, kept))
    lines = (place / "corpus.txt").read_text().split("\n\n")
    dropped = sum(map(found.matches, lines))
    assert 0 < dropped == len(lines) - len(kept)
    assert f"{dropped} lines of the corpus are, or nearly are, test texts of mood; they are dropped" in caplog.messages


def test_task_texts_that_are_test_texts_are_left_out_too(place: Path) -> None:
    path = place / "domain.yaml"
    plan = check_domain(path, read_domain(path, ["task_texts=true"]))
    alone = check_domain(path, read_domain(path))
    found = ContaminationFilter(plan.tasks[0].splits["test"]["text"])
    texts = list(plan.corpus.splits["train"]["text"])
    assert not any(map(found.matches, texts))
    clean = [text for text in plan.tasks[0].splits["train"]["text"] if not found.matches(text)]
    assert clean
    assert texts == [*alone.corpus.splits["train"]["text"], *clean]
