"""Vocabulary trimming as a step: what it keeps, that kept texts get the same logits, and the chain from end to end."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

import tiny
from plankwise.core.cache import cache_folder
from plankwise.core.errors import MethodError, RecipeError
from plankwise.core.recipe import read_recipe, validate
from plankwise.core.records import read_record
from plankwise.data.task import LabelledText, Task, build_task
from plankwise.data.truncation import Truncation, Windows
from plankwise.methods.method import Compressed, Job
from plankwise.methods.theseus import Theseus
from plankwise.methods.vocabulary import TrimmedVocabulary, VocabularyLog
from plankwise.run.domain.plan import check_domain
from plankwise.run.domain.settings import read_domain
from plankwise.run.dry_run import estimate
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe

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


def trimmed(method: TrimmedVocabulary, model: PreTrainedModel, work: Job) -> tuple[Compressed, VocabularyLog]:
    made = method.compress(model, work)
    assert isinstance(made.log, VocabularyLog)
    return made, made.log


def words_of(made: Compressed) -> set[str]:
    return set(made.tokenizer.get_vocab())


def some_task() -> Task:
    """A task whose training texts lack some of the tiny tokenizer's words."""
    rows = [row for row in tiny.rows(3000) if set(str(row["text"]).split()) <= set(USED)]
    splits = {"train": rows[:60], "development": rows[60:90], "test": tiny.rows(20)}
    return build_task("some", splits, ("accuracy",)).without_test()


@pytest.mark.parametrize("kind", tiny.STRUCTURES)
def test_seen_texts_get_the_same_logits(kind: str, tmp_path: Path) -> None:
    model = tiny.model(kind, 2)
    made, log = trimmed(TrimmedVocabulary(), model, tiny.job(tmp_path, task=some_task()))
    smaller, new = made.model, made.tokenizer
    texts = some_task().splits["train"]["text"][:]
    with torch.inference_mode():
        one, other = (
            each(**tokenizer(texts, padding=True, return_tensors="pt")).logits
            for each, tokenizer in ((model, tiny.tokenizer()), (smaller, new))
        )
    torch.testing.assert_close(other, one, atol=1e-6, rtol=0)
    assert words_of(made) == {*tiny.SPECIAL, *USED, "a"}
    assert log.tokens == {"before": 48, "kept": smaller.config.vocab_size}
    assert smaller.config.vocab_size == len(new) == len(tiny.SPECIAL) + len({*USED, "a"})
    assert log.development_texts_unchanged == 1.0
    assert log.examples == 60


def test_what_counts_is_the_training_split(tmp_path: Path) -> None:
    task = some_task()
    counts = Counter(word for text in task.splits["train"]["text"] for word in text.split())
    least = sorted(counts.values())[len(counts) // 2]
    method = TrimmedVocabulary(minimum_count=least)
    made, log = trimmed(method, tiny.model(layers=1), tiny.job(tmp_path, task=task))
    wanted = {word for word, count in counts.items() if count >= least}
    assert words_of(made) == {*tiny.SPECIAL, "a", *wanted}
    slow = [set(text.split()) <= {*wanted, "a"} for text in task.splits["development"]["text"]]
    assert log.development_texts_unchanged == pytest.approx(sum(slow) / len(slow))
    assert set(slow) == {False, True}


def test_truncation_and_windows_do_not_hide_the_end_of_a_text(tmp_path: Path) -> None:
    rows: list[LabelledText] = [
        {"id": str(at), "text": "day " * 40 + "stone", "label": "ab"[at % 2]} for at in range(8)
    ]
    task = build_task("long", {"train": rows, "development": rows, "test": rows}, ("accuracy",)).without_test()
    for truncation in (Truncation(max_length=8), Truncation(max_length=8, windows=Windows())):
        work = tiny.job(tmp_path, task=task, truncation=truncation)
        made, _ = trimmed(TrimmedVocabulary(), tiny.model(layers=1), work)
        assert words_of(made) == {*tiny.SPECIAL, "a", "day", "stone"}


def test_both_texts_of_a_pair_count(tmp_path: Path) -> None:
    rows: list[LabelledText] = [
        {"id": str(at), "text": "day", "text_pair": "stone", "label": "ab"[at % 2]} for at in range(8)
    ]
    task = build_task("pairs", {"train": rows, "development": rows, "test": rows}, ("accuracy",)).without_test()
    made, _ = trimmed(TrimmedVocabulary(), tiny.model(layers=1), tiny.job(tmp_path, task=task))
    assert words_of(made) == {*tiny.SPECIAL, "a", "day", "stone"}


def test_texts_of_a_domain_count_instead_and_only_once(tmp_path: Path) -> None:
    plain, packed = tmp_path / "one.txt", tmp_path / "two.jsonl.zst"
    plain.write_text("the river\nagain\n")
    with pa.output_stream(str(packed), compression="zstd") as file:
        file.write(json.dumps({"note": "under stone"}).encode() + b"\n")
    both, given = TrimmedVocabulary(source=(str(plain), str(packed)), text="note"), tiny.job(tmp_path, task=some_task())
    before = counted()
    made, log = trimmed(both, tiny.model(layers=1), given)
    assert words_of(made) == {*tiny.SPECIAL, "a", "the", "river", "again", "under", "stone"}
    assert log.examples is None
    after = counted()
    assert len(after) == len(before) + 1
    both.compress(tiny.model(layers=1), given)
    assert counted() == after  # nothing was counted again
    TrimmedVocabulary(source=str(plain)).plan(tiny.spec())
    with pytest.raises(MethodError, match=r"source: .*nowhere.txt' matches no file; allowed: .txt"):
        TrimmedVocabulary(source=str(tmp_path / "nowhere.txt")).plan(tiny.spec())


def counted() -> dict[Path, int]:
    """The counts in the cache, each with the time at which it was written."""
    return {path: path.stat().st_mtime_ns for path in (cache_folder() / "token-counts").rglob("counts.npy")}


def test_the_key_of_older_recipes_is_read() -> None:
    assert validate({"method": "vocabulary", "most": 12}, TrimmedVocabulary) == TrimmedVocabulary(max_tokens=12)


class TestMaxTokens:
    def test_bounds_the_plan_and_the_model(self, tmp_path: Path) -> None:
        method, model = TrimmedVocabulary(max_tokens=12), tiny.model(layers=1)
        made, _ = trimmed(method, model, tiny.job(tmp_path, task=some_task()))
        planned = method.plan(tiny.spec(model)).config.vocab_size
        assert made.model.config.vocab_size == planned == len(made.tokenizer) == 12

    def test_too_few_is_refused_before_anything_is_trained(self, tmp_path: Path) -> None:
        source = tiny.save_source(tmp_path / "source")
        config = read_recipe_of(tmp_path, source)
        with pytest.raises(MethodError, match=r"steps.0 \(vocabulary\): max_tokens 4 is too few: 6 tokens always stay"):
            check(dataclasses.replace(config, steps=(TrimmedVocabulary(max_tokens=4), Theseus(modules=2))))


class Stopped(BaseException):
    """A process that ends without warning."""


def stop(*_: object) -> NoReturn:
    raise Stopped


def write_recipe(folder: Path, source: Path, access: str = "") -> Path:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(data=tiny.write_table(folder, 200), model=source, access=access))
    return path


def read_recipe_of(folder: Path, source: Path, access: str = "") -> Recipe:
    return read_recipe(write_recipe(folder, source, access), Recipe)


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
        patched.setattr(Theseus, "compress", stop)
        with pytest.raises(Stopped):
            run(check(read_recipe(path, Recipe)), cut)
    assert tiny.call(monkeypatch, "run", path, "--out", cut, "--resume") == 0
    check_own_tokenizers(whole, path)
    one, other = (AutoModelForSequenceClassification.from_pretrained(each / "model") for each in (whole, cut))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    for folder in ("model", "baseline"):
        assert tiny.call(monkeypatch, "evaluate", whole / folder, "--recipe", path, "--split", "development") == 0


def check_own_tokenizers(out: Path, recipe: Path) -> None:
    record, old, new = read_record(out), tiny.tokenizer(), AutoTokenizer.from_pretrained(out / "model")
    kept = record.steps[0].details.model_dump()["tokens"]["kept"]
    assert len(new) == kept < len(AutoTokenizer.from_pretrained(out / "baseline")) == len(old)
    assert record.baseline is not None
    assert record.steps[1].cost.parameters < record.steps[0].cost.parameters < record.baseline.cost.parameters
    assert record.final is not None
    assert set(record.final.benchmark["throughput"]) >= {"baseline", "compressed"}


def test_bench_reads_with_each_models_own_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recipe(tmp_path, tiny.save_source(tmp_path / "source"))
    made, _ = trimmed(TrimmedVocabulary(), tiny.model(), tiny.job(tmp_path / "w", task=some_task()))
    made.model.save_pretrained(tmp_path / "small")
    made.tokenizer.save_pretrained(tmp_path / "small")
    # With the small one's ids the large model would only be timed on wrong texts; the other way round it would crash.
    for pair in (("source", "small"), ("small", "source")):
        folders = [tmp_path / each for each in pair]
        options = ["--recipe", path, "--rounds", "3", "--threads", "1", "--no-baselines", "--no-memory"]
        assert tiny.call(monkeypatch, "bench", *folders, *options) == 0


def test_another_checkpoint_after_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny.save_source(tmp_path / "source")
    path = write_recipe(tmp_path, source)
    steps = f"steps=[{{method: vocabulary}}, {{method: checkpoint, source: {source}}}]"
    assert tiny.call(monkeypatch, "run", path, "--out", tmp_path / "out", "--set", steps) == 2
    said = capsys.readouterr().err
    assert "steps.1 (checkpoint): " in said
    assert "has a tokenizer of its own, and a step before trims it; trim after it" in said
    assert not (tmp_path / "out").exists()


def test_credentialed_text_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tiny.save_source(tmp_path / "source")
    with caplog.at_level(logging.WARNING):
        check(read_recipe_of(tmp_path, source))
        assert "trimmed tokenizer" not in caplog.text
        check(read_recipe_of(tmp_path, source, ", access: credentialed"))
    assert "the trimmed tokenizer will reveal which words occur in the text that is counted" in caplog.text


LANGUAGE_MODEL = """
name: tiny-lm
task: {{name: corpus, files: [{data}], held_out: 0.2}}
model: {{source: {model}, max_length: 16}}
baseline: null
steps:
  - {{method: vocabulary, max_tokens: 20}}
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
    assert record.steps[0].details.model_dump()["tokens"] == {"before": 48, "kept": 20}
    trained = record.steps[1].details.training
    assert trained is not None
    assert trained.steps == trained.planned_steps > 0


def test_a_domain_whose_models_would_not_share_a_tokenizer_is_refused(language_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "domain.yaml"
    task = f"{{name: table, train: {tiny.write_table(tmp_path)}, metrics: [accuracy]}}"
    path.write_text(
        f"name: d\nlanguage_model: lm.yaml\ncontamination: drop\ntasks:\n"
        f"  - {{name: t, task: {task}, max_length: 16}}\n"
    )
    with pytest.raises(RecipeError, match="all language models have to share a tokenizer; leave out vocabulary"):
        check_domain(path, read_domain(path))
