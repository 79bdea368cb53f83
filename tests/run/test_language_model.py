"""The chain on a corpus: a language model from scratch or onwards, compressed, to be fine-tuned anywhere."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

import tiny
from plankwise.core.errors import DataError, MethodError, ModelError, RecipeError
from plankwise.core.recipe import read_recipe
from plankwise.core.records import read_record
from plankwise.encoder.checkpoint import load_classifier
from plankwise.run.dry_run import estimate
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe

RECIPE = """
name: tiny-lm
task: {{name: corpus, files: [{data}], held_out: 0.1}}
model: {{source: {model}, max_length: 16}}
baseline: {{epochs: 1, batch_size: 16, learning_rate: 1.0e-2, evaluations_per_epoch: 4}}
masking: {{rate: 0.2, end_rate: 0.15}}
steps:
  - method: theseus
    modules: 2
    train_embeddings: true
    training: {{epochs: 1, batch_size: 16, learning_rate: 5.0e-3, evaluations_per_epoch: 4}}
  - method: layer_subset
    layers: 1
    training: {{epochs: 0.5, batch_size: 16, learning_rate: 5.0e-3, evaluations_per_epoch: 4}}
seed: 1
"""
SCRATCH = (
    "model={scratch: {layers: 4, width: 16, heads: 2, vocabulary: {size: 60}, positions: 16, block: 16,"
    " growth: [2, 4], epochs: [1, 0.5], batch_size: 16, checkpoints: 4}, max_length: 16}"
)
FROM_SCRATCH = (SCRATCH, "baseline=null", "steps.1=null", "name=new")
MARKER = "quarzit"


def write_corpus(folder: Path, count: int = 500) -> Path:
    path = folder / "corpus.txt"
    lines = [f"{row['text']} {MARKER}" if at % 50 == 0 else str(row["text"]) for at, row in enumerate(tiny.rows(count))]
    path.write_text("\n\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    model = AutoModelForMaskedLM.from_config(tiny.model("bert").config)
    model.save_pretrained(folder / "source")
    tiny.tokenizer().save_pretrained(folder / "source")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(data=write_corpus(folder), model=folder / "source"))
    return path


def recipe(path: Path, *overrides: str) -> Recipe:
    one_step = "steps=[{method: theseus, modules: 2, training: {epochs: 1, batch_size: 16, evaluations_per_epoch: 4}}]"
    return read_recipe(path, Recipe, [one_step if each == "steps.1=null" else each for each in overrides])


@pytest.fixture(scope="module")
def finished(recipe_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "onwards"
    run(check(recipe(recipe_path)), out)
    return out


@pytest.fixture(scope="module")
def from_scratch(recipe_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "scratch"
    run(check(recipe(recipe_path, *FROM_SCRATCH)), out)
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForMaskedLM.from_pretrained(folder).state_dict())


def test_the_record_tells_perplexity_and_accuracy(finished: Path) -> None:
    record = read_record(finished)
    assert record.baseline is not None
    entries = [record.baseline, *record.steps]
    assert [set(entry.scores) for entry in entries] == [{"masked_accuracy", "perplexity"}] * 3
    assert all(1 < entry.scores["perplexity"] < 48 for entry in entries)
    assert entries[0].scores["perplexity"] < 40, "the baseline learned something"
    assert record.final is None
    assert record.task["kind"] == "masked_lm"
    assert not (finished / ".work").exists()


@pytest.mark.parametrize("name", ["onwards", "scratch"])
def test_the_result_loads_plainly_and_can_be_fine_tuned(name: str, finished: Path, from_scratch: Path) -> None:
    folder = {"onwards": finished, "scratch": from_scratch}[name] / "model"
    model, report = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.num_hidden_layers == {"onwards": 1, "scratch": 2}[name]
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert embeddings.data_ptr() == head.data_ptr(), "embeddings are still tied"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    logits = model.eval()(**tokenizer("the [MASK] house", return_tensors="pt")).logits
    assert torch.isfinite(logits).all()
    classifier = load_classifier(str(folder), ["a", "b", "c"])
    encoder = dict(model.base_model.named_parameters())
    assert all(
        torch.equal(value, encoder[name])
        for name, value in classifier.base_model.named_parameters()
        if "pooler" not in name
    )


def test_from_scratch_without_a_baseline_takes_the_model_as_it_is(from_scratch: Path) -> None:
    one, other = weights(from_scratch / "pretrained"), weights(from_scratch / "baseline")
    assert all(torch.equal(one[key], other[key]) for key in one)
    record = read_record(from_scratch)
    assert record.baseline is not None
    assert record.baseline.train_seconds == 0


@pytest.mark.parametrize("stage", ["01-theseus", "02-layer_subset", "4-layers"])
def test_a_run_killed_anywhere_resumes_to_the_same_model(
    stage: str, finished: Path, from_scratch: Path, recipe_path: Path, tmp_path: Path
) -> None:
    scratch = stage.endswith("-layers")
    checked = check(recipe(recipe_path, *(FROM_SCRATCH if scratch else ())))
    with pytest.raises(KeyboardInterrupt):
        run(checked, tmp_path / "killed", callbacks=[tiny.Kill(stage)])
    assert list((tmp_path / "killed" / ".work").rglob("checkpoint-*"))
    run(checked, tmp_path / "killed", resume=True)
    whole = from_scratch if scratch else finished
    for name in ("baseline", "steps/01-theseus", "model"):
        one, other = weights(whole / name), weights(tmp_path / "killed" / name)
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert read_record(whole).steps[-1].scores == read_record(tmp_path / "killed").steps[-1].scores


@pytest.mark.parametrize("kind", ["roberta", "deberta-v2", "modernbert"])
def test_theseus_keeps_the_head_of_other_architectures_whole(kind: str, recipe_path: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(tiny.model(kind).config).save_pretrained(tmp_path / "source")
    tiny.tokenizer().save_pretrained(tmp_path / "source")
    short = "steps=[{method: theseus, modules: 2, training: {epochs: 0.2, batch_size: 16}}]"
    run(check(recipe(recipe_path, f"model.source={tmp_path / 'source'}", "baseline=null", short)), tmp_path / "run")
    model, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "model", output_loading_info=True)
    assert not report["missing_keys"]
    before = AutoModelForMaskedLM.from_pretrained(tmp_path / "source")
    assert torch.equal(model.get_input_embeddings().weight, before.get_input_embeddings().weight)
    tied = before.get_input_embeddings().weight.data_ptr() == before.get_output_embeddings().weight.data_ptr()
    assert (model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()) == tied


@pytest.mark.parametrize("overrides", [(), FROM_SCRATCH])
def test_a_dry_run_plans_the_steps_and_tokenizes_nothing_for_good(
    overrides: tuple[str, ...], recipe_path: Path, from_scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANKWISE_CACHE", str(tmp_path / "cache"))
    plan = estimate(check(recipe(recipe_path, *overrides)))
    stages = ["pretraining, 2 layers", "pretraining, 4 layers"] if overrides else ["baseline"]
    assert [row["stage"] for row in plan] == [*stages, "01-theseus", *([] if overrides else ["02-layer_subset"])]
    assert all(row["seconds"] > 0 for row in plan)
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"corpora"}
    if overrides:
        trained = read_record(from_scratch).steps[0].details.training
        assert trained is not None
        assert plan[-1]["steps"] == pytest.approx(trained.steps, abs=2)


def test_a_held_out_part_below_one_block_is_refused_before_training(recipe_path: Path, tmp_path: Path) -> None:
    few = "task.held_out=0.003"
    with pytest.raises(DataError, match=r"fewer than one block of 16|part would be empty"):
        run(check(recipe(recipe_path, *FROM_SCRATCH, few, "task.split_seed=1")), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("checkpoint-*"))


def test_what_cannot_work_is_refused_beforehand(recipe_path: Path, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"steps.0 \(checkpoint\): .* a task with labels; a corpus has none"):
        check(recipe(recipe_path, f"steps=[{{method: checkpoint, source: {tmp_path}}}]"))
    with pytest.raises(RecipeError, match="evaluation is of a test split, and a corpus has none"):
        recipe(recipe_path, "evaluation.rounds=5")
    with pytest.raises(RecipeError, match="class_weights is for a task with labels"):
        recipe(recipe_path, "objective.class_weights=balanced")
    with pytest.raises(RecipeError, match=r"model\.labels names the labels of a fine-tuned classifier"):
        recipe(recipe_path, "baseline=null", "model.labels={a: b}")
    bare = tiny.tokenizer()
    bare.mask_token = None
    source = tiny.save_source(tmp_path / "bare")
    bare.save_pretrained(source)
    with pytest.raises(ModelError, match="has no mask_token; a masked LM needs one"):
        check(recipe(recipe_path, f"model.source={source}"))
    larger = tiny.tokenizer()
    larger.add_tokens([f"word{number}" for number in range(40)])
    larger.save_pretrained(source)
    with pytest.raises(ModelError, match=r"has 72 token ids, its model 48 embeddings"):
        check(recipe(recipe_path, f"model.source={source}"))


def test_a_model_without_an_lm_head_has_to_be_trained(recipe_path: Path, tmp_path: Path) -> None:
    source = tiny.save_source(tmp_path / "classifier")
    with pytest.raises(ModelError, match="lack or misfit"):
        run(check(recipe(recipe_path, f"model.source={source}", "baseline=null")), tmp_path / "run")


def test_credentialed_text_stays_out_of_the_run(
    recipe_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    short = ("baseline.epochs=0.3", "steps=[]", "task.access=credentialed")
    run(check(recipe(recipe_path, *short)), tmp_path / "run")
    assert "will hold words of the credentialed text" not in caplog.text
    sentences = [str(row["text"]).encode() for row in tiny.rows(500) if len(str(row["text"])) > 20]
    for path in (tmp_path / "run").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert MARKER.encode() not in content, path
        assert not any(sentence in content for sentence in sentences), path
    assert MARKER not in caplog.text
    check(recipe(recipe_path, *FROM_SCRATCH, "task.access=credentialed"))
    assert "will hold words of the credentialed text" in caplog.text


def test_perplexity_is_a_number_that_json_can_hold(finished: Path) -> None:
    assert all(math.isfinite(step.scores["perplexity"]) for step in read_record(finished).steps)
