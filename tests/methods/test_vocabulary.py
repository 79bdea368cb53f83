"""Vocabulary trimming as a step: what it keeps, that kept texts get the same logits, and the chain from end to end."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

import tiny
from plankwise.core.errors import MethodError, RecipeError
from plankwise.core.recipe import read_recipe
from plankwise.core.records import read_record
from plankwise.data.task import Task, build_task
from plankwise.data.truncation import Truncation, Windows
from plankwise.methods import vocabulary
from plankwise.methods.method import Job
from plankwise.methods.theseus import Theseus
from plankwise.methods.vocabulary import TrimmedVocabulary
from plankwise.run.domain import check_domain, read_domain
from plankwise.run.dry_run import estimate
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe
from plankwise.training.objectives.losses import task_loss

USED = [*tiny.GOOD, *tiny.BAD[:4], *tiny.PLAIN[:9]]
RECIPE = """
name: tiny
task: {{name: table, train: {data}, metrics: [macro_f1, accuracy]{access}}}
model: {{source: {model}, max_length: 32}}
baseline: {{epochs: 2, batch_size: 16, learning_rate: 1.0e-2}}
steps:
  - {{method: vocabulary, minimum_count: 40}}
  - method: theseus
    modules: 2
    training: {{epochs: 1, batch_size: 16, learning_rate: 5.0e-3}}
evaluation: {{bootstrap: 100, rounds: 3, threads: 1, onnx_baseline: false}}
seed: 1
"""


def job(folder: Path, task: Task, notes: dict[str, Any], delivered: list[Any], **changes: Any) -> Job:
    own = Job(task.without_test(), tiny.tokenizer(), Truncation(max_length=32), task_loss("single_label"), 1, folder)
    return dataclasses.replace(own, note=notes.__setitem__, deliver_tokenizer=delivered.append, **changes)


def some_task() -> Task:
    """Give a task whose training texts lack some of the tiny tokenizer's words."""
    rows = [row for row in tiny.rows(3000) if set(row["text"].split()) <= set(USED)]
    return build_task("some", {"train": rows[:60], "development": rows[60:90], "test": tiny.rows(20)}, ("accuracy",))


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
def test_seen_texts_get_the_same_logits(kind: str, tmp_path: Path) -> None:
    model, notes, delivered = tiny.model(kind, 2), {}, []
    smaller = TrimmedVocabulary().compress(model, job(tmp_path, some_task(), notes, delivered))
    old, new = tiny.tokenizer(), delivered[0]
    texts = some_task().splits["train"]["text"][:]
    with torch.inference_mode():
        one, other = (
            each(**tokenizer(texts, padding=True, return_tensors="pt")).logits
            for each, tokenizer in ((model, old), (smaller, new))
        )
    torch.testing.assert_close(other, one, atol=1e-6, rtol=0)
    assert set(new.get_vocab()) == {*tiny.SPECIAL, *USED, "a"}
    assert notes["tokens"] == {"before": 48, "kept": smaller.config.vocab_size}
    assert smaller.config.vocab_size == len(new) < 30
    assert notes["development_texts_unchanged"] == 1.0
    assert notes["examples"] == 60


def test_what_counts_is_the_training_split(tmp_path: Path) -> None:
    task = some_task()
    counts = Counter(word for text in task.splits["train"]["text"] for word in text.split())
    least = sorted(counts.values())[len(counts) // 2]
    delivered: list[Any] = []
    notes: dict[str, Any] = {}
    TrimmedVocabulary(minimum_count=least).compress(tiny.model(layers=1), job(tmp_path, task, notes, delivered))
    wanted = {word for word, count in counts.items() if count >= least}
    assert set(delivered[0].get_vocab()) == {*tiny.SPECIAL, "a", *wanted}
    slow = [set(text.split()) <= {*wanted, "a"} for text in task.splits["development"]["text"]]
    assert notes["development_texts_unchanged"] == pytest.approx(sum(slow) / len(slow))
    assert 0 < sum(slow) < len(slow)


def test_windows_and_truncation_do_not_hide_what_stands_at_the_end(tmp_path: Path) -> None:
    rows = [{"id": str(at), "text": "day " * 40 + "stone", "label": "ab"[at % 2]} for at in range(8)]
    task = build_task("long", {"train": rows, "development": rows, "test": rows}, ("accuracy",))
    for truncation in (Truncation(max_length=8), Truncation(max_length=8, windows=Windows())):
        delivered: list[Any] = []
        TrimmedVocabulary().compress(tiny.model(layers=1), job(tmp_path, task, {}, delivered, truncation=truncation))
        assert set(delivered[0].get_vocab()) == {*tiny.SPECIAL, "a", "day", "stone"}


def test_both_texts_of_a_pair_count(tmp_path: Path) -> None:
    rows = [{"id": str(at), "text": "day", "text_pair": "stone", "label": "ab"[at % 2]} for at in range(8)]
    task = build_task("pairs", {"train": rows, "development": rows, "test": rows}, ("accuracy",))
    delivered: list[Any] = []
    TrimmedVocabulary().compress(tiny.model(layers=1), job(tmp_path, task, {}, delivered))
    assert set(delivered[0].get_vocab()) == {*tiny.SPECIAL, "a", "day", "stone"}


def test_texts_of_a_domain_count_instead_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, packed = tmp_path / "one.txt", tmp_path / "two.jsonl.zst"
    plain.write_text("the river\nagain\n")
    with pa.output_stream(str(packed), compression="zstd") as file:
        file.write(json.dumps({"note": "under stone"}).encode() + b"\n")
    delivered: list[Any] = []
    both = TrimmedVocabulary(source=(str(plain), str(packed)), text="note")
    given = job(tmp_path, some_task(), {}, delivered)
    both.compress(tiny.model(layers=1), given)
    assert set(delivered[0].get_vocab()) == {*tiny.SPECIAL, "a", "the", "river", "again", "under", "stone"}
    monkeypatch.setattr(vocabulary, "count_tokens", lambda *_: pytest.fail("counted again"))
    both.compress(tiny.model(layers=1), given)
    TrimmedVocabulary(source=str(plain)).plan(tiny.model().config)
    with pytest.raises(MethodError, match=r"source: .*nowhere.txt' matches no file; allowed: .txt"):
        TrimmedVocabulary(source=str(tmp_path / "nowhere.txt")).plan(tiny.model().config)


class TestMost:
    def test_bounds_the_plan_and_the_model(self, tmp_path: Path) -> None:
        method, notes, delivered = TrimmedVocabulary(most=12), {}, []
        model = tiny.model(layers=1)
        smaller = method.compress(model, job(tmp_path, some_task(), notes, delivered))
        assert smaller.config.vocab_size == method.plan(model.config).vocab_size == len(delivered[0]) == 12

    def test_too_few_is_refused_before_anything_is_trained(self, tmp_path: Path) -> None:
        source = tiny.save_source(tmp_path / "source")
        config = read_recipe_of(tmp_path, source)
        with pytest.raises(MethodError, match=r"steps.0 \(vocabulary\): most 4 is too few: 6 tokens always stay"):
            check(dataclasses.replace(config, steps=(TrimmedVocabulary(most=4), Theseus(modules=2))))


def write_recipe(folder: Path, source: Path, access: str = "") -> Path:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(data=tiny.write_table(folder, 200), model=source, access=access))
    return path


def read_recipe_of(folder: Path, source: Path, access: str = "") -> Recipe:
    return read_recipe(write_recipe(folder, source, access), Recipe)


class Stopped(BaseException):
    """Stands for a process that ends without warning."""


def test_the_whole_chain_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(tmp_path, tiny.save_source(tmp_path / "source"))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert tiny.call(monkeypatch, "run", path, "--out", whole, "--dry-run") == 0
    assert "01-vocabulary" in capsys.readouterr().out
    assert not whole.exists()
    assert tiny.call(monkeypatch, "run", path, "--out", whole) == 0
    with monkeypatch.context() as patched:
        patched.setattr(Theseus, "compress", lambda *_: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            run(check(read_recipe(path, Recipe)), cut)
    assert tiny.call(monkeypatch, "run", path, "--out", cut, "--resume") == 0
    _look_at(whole)
    one, other = (AutoModelForSequenceClassification.from_pretrained(each / "model") for each in (whole, cut))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    for folder, fewer in (("model", True), ("baseline", False)):
        assert tiny.call(monkeypatch, "evaluate", whole / folder, "--recipe", path, "--split", "development") == 0, (
            fewer
        )


def _look_at(out: Path) -> None:
    record, old, new = read_record(out), tiny.tokenizer(), AutoTokenizer.from_pretrained(out / "model")
    kept = record.steps[0].details["tokens"]["kept"]
    assert len(new) == kept < len(AutoTokenizer.from_pretrained(out / "baseline")) == len(old)
    assert record.steps[1].cost.parameters < record.steps[0].cost.parameters < record.baseline.cost.parameters
    assert record.final is not None
    assert set(record.final.benchmark["throughput"]) >= {"baseline", "compressed"}


def test_bench_reads_with_each_models_own_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recipe(tmp_path, tiny.save_source(tmp_path / "source"))
    delivered: list[Any] = []
    model = tiny.model()
    smaller = TrimmedVocabulary().compress(model, job(tmp_path / "w", some_task(), {}, delivered))
    smaller.save_pretrained(tmp_path / "small")
    delivered[0].save_pretrained(tmp_path / "small")
    # With the small one's ids the large model would only be timed on wrong texts; the other way round it would crash.
    for pair in (("source", "small"), ("small", "source")):
        folders = [tmp_path / each for each in pair]
        options = ["--recipe", path, "--rounds", "3", "--threads", "1", "--no-baselines", "--no-memory"]
        assert tiny.call(monkeypatch, "bench", *folders, *options) == 0


def test_another_checkpoint_behind_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny.save_source(tmp_path / "source")
    path = write_recipe(tmp_path, source)
    steps = f"steps=[{{method: vocabulary}}, {{method: checkpoint, source: {source}}}]"
    assert tiny.call(monkeypatch, "run", path, "--out", tmp_path / "out", "--set", steps) == 2
    said = capsys.readouterr().err
    assert "steps.1 (checkpoint): " in said
    assert "has a tokenizer of its own, and a step before trims it; trim behind it" in said
    assert not (tmp_path / "out").exists()


def test_credentialed_text_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tiny.save_source(tmp_path / "source")
    with caplog.at_level(logging.WARNING):
        check(read_recipe_of(tmp_path, source))
        assert "trimmed tokenizer" not in caplog.text
        check(read_recipe_of(tmp_path, source, ", access: credentialed"))
    assert "the trimmed tokenizer will tell which words occur in the text that is counted" in caplog.text


LANGUAGE_MODEL = """
name: tiny-lm
task: {{name: corpus, files: [{data}], held_out: 0.2}}
model: {{source: {model}, max_length: 16}}
baseline: null
steps:
  - {{method: vocabulary, most: 20}}
  - {{method: theseus, modules: 2, train_embeddings: true, training: {{epochs: 1, batch_size: 8}}}}
"""


@pytest.fixture
def language_model(tmp_path: Path) -> Path:
    AutoModelForMaskedLM.from_config(tiny.model("bert").config).save_pretrained(tmp_path / "source")
    tiny.tokenizer().save_pretrained(tmp_path / "source")
    (tmp_path / "corpus.txt").write_text("\n\n".join(str(row["text"]) for row in tiny.rows(300)) + "\n")
    path = tmp_path / "lm.yaml"
    path.write_text(LANGUAGE_MODEL.format(data=tmp_path / "corpus.txt", model=tmp_path / "source"))
    return path


def test_on_a_language_model(language_model: Path, tmp_path: Path) -> None:
    checked = check(read_recipe(language_model, Recipe))
    rows = estimate(checked)
    assert [row["stage"] for row in rows] == ["01-vocabulary", "02-theseus"]
    record = run(checked, tmp_path / "out")
    assert [row["parameters"] for row in rows] == [entry.cost.parameters for entry in record.steps]
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "out" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "model")
    assert model.config.vocab_size == len(tokenizer) == 20
    assert model.get_output_embeddings().weight.shape[0] == model.get_output_embeddings().bias.shape[0] == 20
    assert record.steps[0].details["tokens"] == {"before": 48, "kept": 20}
    assert record.steps[1].details["training"]["steps"] > 0


def test_a_domain_whose_models_would_not_share_a_tokenizer_is_refused(language_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "domain.yaml"
    task = f"{{name: table, train: {tiny.write_table(tmp_path)}, metrics: [accuracy]}}"
    path.write_text(f"name: d\nlanguage_model: lm.yaml\ntasks: [{{name: t, task: {task}, max_length: 16}}]\n")
    with pytest.raises(RecipeError, match="both language models have to share a tokenizer; leave out vocabulary"):
        check_domain(path, read_domain(path))
