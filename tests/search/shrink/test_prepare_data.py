"""From the user's files to tables: the original's answers, resuming, what is measured, what a recipe reads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import tiny
from plankwise.core.errors import DataError, ModelError, OutputError, RecipeError
from plankwise.data.given.columns import ColumnOptions
from plankwise.data.given.parts import AGREEMENT, SCORE
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN, Task
from plankwise.data.tasks.tables import TableFiles
from plankwise.data.truncation import Truncation
from plankwise.deploy.predictor import Predictor
from plankwise.search.shrink.given_data import DOCUMENT, GivenData, task_settings
from plankwise.search.shrink.given_data import TEXTS as COUNTED
from plankwise.search.shrink.label_check import LabelCheck, doubts
from plankwise.search.shrink.prepare_data import GivenFiles, prepare_given
from plankwise.search.shrink.teacher_labels import ANSWERS, TEXTS, working_folder

PARTS = (TRAIN, DEVELOPMENT, TEST)
ROWS = tiny.rows(300, 1)


def write(path: Path, labels: list[str] | None = None, rows: Any = ROWS) -> Path:
    """Write texts as JSON lines, unlabelled ones by default."""
    labels = labels or [""] * len(rows)
    lines = [json.dumps({"text": row["text"], "label": label}) for row, label in zip(rows, labels, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def own_labels() -> list[str]:
    return [str(row["label"]) for row in ROWS]


def save(folder: Path, problem: str = "single_label_classification", pull: float = 0.0) -> str:
    """Save a model that gives each label to half of the texts, or fewer get the second one as it is pulled down."""
    made = tiny.model(layers=2)
    made.config.id2label, made.config.label2id = {0: "good", 1: "bad"}, {"good": 0, "bad": 1}
    made.config.problem_type = problem
    for _ in range(2):  # the second time with a bias that balances the labels
        made.save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
        logits = Predictor(str(folder)).logits([str(row["text"]) for row in ROWS])
        middle = sorted((logits[:, 1] - logits[:, 0]).tolist())[len(logits) // 2]
        made.classifier.bias.data[1] -= middle + pull
    return str(folder)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("original") / "model")


@pytest.fixture(scope="module")
def answers(original: str) -> list[str]:
    return [each.label for each in Predictor(original).predict([str(row["text"]) for row in ROWS])]


def table(data: GivenData, part: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(data.table(part)).to_pylist()
    return rows


def loaded(settings: dict[str, Any]) -> Task:
    fields = {field.name for field in dataclasses.fields(TableFiles)}
    return TableFiles(**{key: value for key, value in settings.items() if key in fields}).load()


def test_unlabelled_rows_get_the_originals_answers(tmp_path: Path, original: str, answers: list[str]) -> None:
    data = prepare_given(original, GivenFiles((write(tmp_path / "u.jsonl"),)), tmp_path / "data")
    assert data.rows == {TRAIN: 180, DEVELOPMENT: 60, TEST: 60}
    assert data.measured == {DEVELOPMENT: AGREEMENT, TEST: AGREEMENT}
    assert data.labelled == {TRAIN: 0, DEVELOPMENT: 0, TEST: 0}
    assert data.check is None
    assert data.notes == ()
    rows = [row for part in PARTS for row in table(data, part)]
    by_text = {str(row["text"]): answer for row, answer in zip(ROWS, answers, strict=True)}
    assert [row["label"] for row in rows] == [by_text[row["text"]] for row in rows]
    assert len({row["label"] for row in rows}) == 2
    assert not any(row["labelled"] for row in rows)
    shares = [sum(data.distribution[part].values()) for part in PARTS]
    assert shares == [180, 60, 60]
    assert list(data.distribution[TRAIN]) == ["good", "bad"]
    assert not working_folder(tmp_path / "data").exists()


def test_words_are_counted_in_every_text_and_few_are_trained_on(tmp_path: Path, original: str) -> None:
    few = {TRAIN: 70, DEVELOPMENT: 60, TEST: 60}
    data = prepare_given(original, GivenFiles((write(tmp_path / "u.jsonl"),)), tmp_path / "data", max_rows=few)
    counted = [row["text"] for row in table(data, COUNTED)]
    assert len(counted) == 180
    assert data.rows == few
    held_back = {row["text"] for part in (DEVELOPMENT, TEST) for row in table(data, part)}
    assert {row["text"] for row in table(data, TRAIN)} < set(counted) <= {str(row["text"]) for row in ROWS} - held_back


def test_given_labels_stay_and_others_are_added(tmp_path: Path, original: str) -> None:
    labels = [label if n < 280 else "" for n, label in enumerate(own_labels())]
    data = prepare_given(original, GivenFiles((write(tmp_path / "t.jsonl", labels),)), tmp_path / "data")
    assert data.measured == {DEVELOPMENT: SCORE, TEST: SCORE}
    assert data.labelled == {TRAIN: 168, DEVELOPMENT: 56, TEST: 56}
    assert data.rows == {TRAIN: 188, DEVELOPMENT: 56, TEST: 56}
    true = {str(row["text"]): row["label"] for row in ROWS}
    assert all(row["label"] == true[row["text"]] for part in PARTS for row in table(data, part) if row["labelled"])
    assert data.check is not None
    assert data.check.rows == 56
    assert data.said[0].startswith("t.jsonl: text in 'text' (guessed), label in 'label' (guessed), 280 of 300 rows")


def test_a_recipe_reads_the_tables(tmp_path: Path, original: str) -> None:
    data = prepare_given(original, GivenFiles((write(tmp_path / "t.jsonl", own_labels()),)), tmp_path / "data")
    settings = data.task()
    assert settings["classes"] == ["good", "bad"]
    assert settings["metrics"] == ["macro_f1", "accuracy"]
    assert settings["title"] == "t"
    task = loaded(settings)
    assert dict(task.splits.num_rows) == data.rows
    assert set(task.labels) == {"good", "bad"}
    assert task.splits[TEST]["text"][:] == [row["text"] for row in table(data, TEST)]
    assert task.splits[TEST]["id"][0].startswith("t.jsonl:")


def test_the_metric_is_the_users_or_fits_what_is_measured(tmp_path: Path) -> None:
    assert task_settings(tmp_path, ("a", "b"), measured=AGREEMENT)["metrics"] == ["accuracy", "macro_f1"]
    assert task_settings(tmp_path, ("a", "b"), metric="auroc")["metrics"] == ["auroc", "macro_f1", "accuracy"]
    with pytest.raises(RecipeError, match=r"no metric 'f1'; .*Allowed: accuracy"):
        task_settings(tmp_path, ("a", "b"), metric="f1")


def test_labels_that_a_table_would_change_are_refused(tmp_path: Path) -> None:
    assert task_settings(tmp_path, ("null", "True"))["classes"] == ["null", "True"]
    for label in (" hate", ""):
        with pytest.raises(RecipeError, match=f"the model's label '{label}' begins or ends with a space"):
            task_settings(tmp_path, ("a", label))


def test_the_same_data_are_reused_without_a_prediction(
    tmp_path: Path, original: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = GivenFiles((write(tmp_path / "u.jsonl"),))
    first = prepare_given(original, files, tmp_path / "data")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr(Predictor, "__init__", refuse)
    assert prepare_given(original, files, tmp_path / "data") == first
    changed = GivenFiles(files.data, options=ColumnOptions(text="text"))
    for other, seed, key in ((changed, 0, "text"), (files, 1, "seed")):
        with pytest.raises(OutputError, match=rf"holds other data \(it differs in {key}\); choose another folder"):
            prepare_given(original, other, tmp_path / "data", seed=seed)
    write(tmp_path / "u.jsonl", rows=tiny.rows(300, 2))
    with pytest.raises(OutputError, match="differs in data"):
        prepare_given(original, files, tmp_path / "data")


def test_a_folder_of_something_else_or_damaged_is_refused(tmp_path: Path, original: str) -> None:
    files, out = GivenFiles((write(tmp_path / "u.jsonl"),)), tmp_path / "data"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files that are not such data"):
        prepare_given(original, files, out)
    assert [each.name for each in out.iterdir()] == ["thesis.txt"]
    data = prepare_given(original, files, tmp_path / "other")
    with data.table(TEST).open("ab") as file:
        file.write(b"0")
    with pytest.raises(OutputError, match=r"test.parquet is missing or was changed; remove .*other to start again"):
        prepare_given(original, files, tmp_path / "other")
    (data.folder / DOCUMENT).write_text('{"format": 1}')
    with pytest.raises(OutputError, match=r"data.json is damaged"):
        prepare_given(original, files, tmp_path / "other")


def test_a_killed_call_continues(tmp_path: Path, original: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files, out, whole = GivenFiles((write(tmp_path / "u.jsonl"),)), tmp_path / "data", tmp_path / "whole"
    prepare_given(original, files, whole)
    run, opened, predicted = Predictor.run, Predictor.__init__, [0]

    def small(self: Predictor, *args: Any, **how: Any) -> None:
        opened(self, *args, **{**how, "buffer_size": 100})

    def killed(self: Predictor, blocks: Any, on_progress: Any = lambda texts: None) -> Any:
        for number, block in enumerate(run(self, blocks, on_progress)):
            if number == 1:
                raise KeyboardInterrupt
            yield block

    def counted(self: Predictor, blocks: Any, on_progress: Any = lambda texts: None) -> Any:
        for item, found in run(self, blocks, on_progress):
            predicted[0] += len(found)
            yield item, found

    monkeypatch.setattr(Predictor, "__init__", small)
    monkeypatch.setattr(Predictor, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare_given(original, files, out)
    assert not out.exists()
    assert (working_folder(out) / TEXTS).exists()
    monkeypatch.setattr(Predictor, "run", counted)
    resumed = prepare_given(original, files, out)
    assert predicted == [200]
    found = [table(resumed, part) for part in PARTS]
    assert found == [pq.read_table(whole / f"{part}.parquet").to_pylist() for part in PARTS]


def test_what_a_killed_call_left_of_other_data_is_not_used(tmp_path: Path, original: str) -> None:
    out = tmp_path / "data"
    working_folder(out).mkdir()
    (working_folder(out) / ANSWERS).write_text("of other texts")
    data = prepare_given(original, GivenFiles((write(tmp_path / "u.jsonl"),)), out)
    assert data.rows[TEST] == 60


def test_an_original_that_has_seen_the_rows_is_noted(tmp_path: Path, original: str, answers: list[str]) -> None:
    data = prepare_given(original, GivenFiles((write(tmp_path / "t.jsonl", answers),)), tmp_path / "data")
    assert data.notes == (
        "the original was probably trained on these rows, 60 of 60 of which it labels right; what is kept is measured "
        "too kindly: give --test with rows it has not seen",
    )


def test_an_original_no_better_than_one_label_is_noted(tmp_path: Path, original: str, answers: list[str]) -> None:
    wrong = ["good" if answer == "bad" else "bad" for answer in answers]
    unseen = write(tmp_path / "test.jsonl", wrong)
    own = write(tmp_path / "t.jsonl", rows=tiny.rows(300, 7))
    data = prepare_given(original, GivenFiles((own,), (unseen,)), tmp_path / "data")
    assert data.measured == {DEVELOPMENT: SCORE, TEST: SCORE}
    assert data.notes[0].startswith("the original labels 0 of 150 rows right, and always answering the most frequent")


def test_answers_of_one_class_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    model = save(tmp_path / "model", pull=100.0)
    with pytest.raises(DataError, match=r"possible: the original's answers in \w+ show one class only, 'good'"):
        prepare_given(model, GivenFiles((write(tmp_path / "u.jsonl"),)), tmp_path / "data")
    assert {each.name for each in tmp_path.iterdir()} == {"model", "u.jsonl"}


def test_several_labels_and_pairs(tmp_path: Path) -> None:
    model = save(tmp_path / "model", "multi_label_classification")
    lines = [
        json.dumps({"text_a": row["text"], "text_b": "a day", "labels": [["good", "bad"], [], "good|bad"][n % 3]})
        for n, row in enumerate(ROWS)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join([*lines, '{"text_a": "a house", "text_b": "the tree"}']))
    data = prepare_given(model, GivenFiles((tmp_path / "m.jsonl",)), tmp_path / "data")
    assert data.kind == "multi_label"
    assert data.pairs
    unlabelled = [row for row in table(data, TRAIN) if not row["labelled"]]
    assert [row["text_pair"] for row in unlabelled] == ["the tree"]
    expected = next(Predictor(model).predict([("a house", "the tree")])).labels
    assert tuple(unlabelled[0]["label"]) == expected
    task = loaded(data.task())
    assert task.kind == "multi_label"
    assert task.splits[TEST]["text_pair"][0] == "a day"
    assert {tuple(flags) for flags in task.splits[TEST]["label"]} == {(0.0, 0.0), (1.0, 1.0)}


def test_the_truncation_of_the_original_can_be_given(tmp_path: Path, original: str) -> None:
    texts = [f"{row['text']} " + "fine day " * 20 for row in ROWS]
    rows = [{"text": text} for text in texts]
    short = Truncation(max_length=8)
    data = prepare_given(
        original, GivenFiles((write(tmp_path / "u.jsonl", rows=rows),)), tmp_path / "data", truncation=short
    )
    found = {row["text"]: row["label"] for part in PARTS for row in table(data, part)}
    answers = Predictor(original, truncation=short).predict(texts)
    expected = {text: each.label for text, each in zip(texts, answers, strict=True)}
    assert found == expected
    assert data.made_of["truncation"]["max_length"] == 8


def scorer(folder: Path) -> str:
    made = tiny.model(layers=2, labels=1)
    made.config.problem_type = "regression"
    made.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def test_rows_without_a_score_get_that_of_the_original(tmp_path: Path) -> None:
    model = scorer(tmp_path / "model")
    given = [json.dumps({"text": row["text"], "score": number % 7}) for number, row in enumerate(ROWS[:280])]
    (tmp_path / "s.jsonl").write_text("\n".join([*given, *(json.dumps({"text": row["text"]}) for row in ROWS[280:])]))
    data = prepare_given(model, GivenFiles((tmp_path / "s.jsonl",)), tmp_path / "data")
    assert (data.kind, data.labels, data.distribution) == ("regression", ("score",), {})
    answers = {str(row["text"]): Predictor(model).logits([str(row["text"])])[0, 0] for row in ROWS[280:]}
    found = {row["text"]: row["label"] for part in PARTS for row in table(data, part) if not row["labelled"]}
    assert {text: found[text] for text in answers if text in found} == pytest.approx(
        {text: each for text, each in answers.items() if text in found}, abs=1e-5
    )
    assert data.check is not None
    assert data.check.correlation is not None
    assert abs(data.check.correlation) < 0.6, "the scores are made up"
    task = loaded(data.task())
    assert (task.kind, task.metrics) == ("regression", ("spearman", "pearson"))
    with pytest.raises(DataError, match="--map is for labels, and the model answers with a score"):
        prepare_given(model, GivenFiles((tmp_path / "s.jsonl",), names={"1": "good"}), tmp_path / "other")


def test_scores_that_have_nothing_to_do_with_the_originals_are_said() -> None:
    def check(correlation: float) -> LabelCheck:
        return LabelCheck(rows=100, right=0, majority=0, correlation=correlation)

    assert doubts(check(0.5), has_test=False) == ()
    [said] = doubts(check(-0.3), has_test=False)
    assert "rank correlation of -0.30; see whether the scores' column is right" in said


def test_a_model_without_one_kind_of_answer_is_refused(tmp_path: Path) -> None:
    made = tiny.model(labels=3)
    made.config.problem_type = "regression"
    made.save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match="answers with 3 numbers"):
        prepare_given(str(tmp_path / "model"), GivenFiles((write(tmp_path / "u.jsonl"),)), tmp_path / "data")
