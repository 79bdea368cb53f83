"""Quantization as a method: what trains is what comes back, what is sensitive stays, what cannot work is refused."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import plankwise
import tiny
from plankwise.core.errors import MethodError, ModelError, RecipeError
from plankwise.core.recipe import validate
from plankwise.data.task import Task, build_task
from plankwise.data.truncation import Truncation, Windows
from plankwise.encoder.fake_quantized import EMBEDDINGS, FakeQuantized
from plankwise.encoder.low_rank import Ranks, with_ranks
from plankwise.encoder.quantized import QuantizedLinear, is_quantized, projections_of, quantized_modules, quantized_of
from plankwise.encoder.shapes import is_plain, new_model
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.metrics import METRICS
from plankwise.methods import quantization
from plankwise.methods import sensitivity as mixed_precision
from plankwise.methods.checkpoint import Checkpoint
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.method import Job, train_on_task
from plankwise.methods.quantization import Quantization
from plankwise.methods.sensitivity import fewest_kept, sensitivities
from plankwise.run.final_evaluation import measure_final
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training
from plankwise.training.objectives.losses import masked_lm_loss, task_loss
from plankwise.training.prediction import predict

TRAINING = Training(epochs=2, batch_size=16, learning_rate=2e-3, precision="fp32", evaluations_per_epoch=2)


def job(folder: Path, notes: dict[str, Any] | None = None, **changes: Any) -> Job:
    kept: dict[str, Any] = {} if notes is None else notes
    made = Job(
        tiny.task(64, 32).without_test(),
        tiny.tokenizer(),
        Truncation(max_length=32),
        task_loss("single_label"),
        1,
        folder,
        note=kept.__setitem__,
    )
    return dataclasses.replace(made, **changes)


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(**tiny.batch()).logits


def quantized_linears(model: PreTrainedModel) -> list[QuantizedLinear]:
    return [module for module in model.modules() if isinstance(module, QuantizedLinear)]


def score(model: PreTrainedModel, work: Job) -> float:
    return predict(model, work.tokenizer, work.task, "development", work.truncation).scores(("macro_f1",))["macro_f1"]


def differences(model: PreTrainedModel, texts: list[str]) -> torch.Tensor:
    """By how much the second class is likelier, [texts]."""
    with torch.inference_mode():
        scores = model(**tiny.tokenizer()(texts, padding=True, return_tensors="pt")).logits
    return scores[:, 1] - scores[:, 0]


def labelled_by(model: PreTrainedModel) -> Task:
    """A task whose labels are what `model` says, so that it scores 1; of texts that it is sure about."""
    splits = {}
    for number, name in enumerate(("train", "development", "test")):
        rows = tiny.rows(48, number)
        said = differences(model, [str(row["text"]) for row in rows])
        sure = said.abs() > said.abs().median()
        labels = ["good" if each > 0 else "bad" for each in said.tolist()]
        splits[name] = [
            {**row, "label": label} for row, label, is_sure in zip(rows, labels, sure, strict=True) if is_sure
        ]
    return build_task("said", splits, ("macro_f1", "accuracy")).without_test()


class Spy(FakeQuantized):
    """Remembers the network that trained."""

    last: FakeQuantized

    def __init__(self, model: PreTrainedModel, portable: bool) -> None:
        super().__init__(model, portable)
        Spy.last = self


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["bert", "modernbert", "deberta-v2"])
def test_the_network_that_trained_and_was_selected_is_the_model_returned(
    kind: str, precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "FakeQuantized", Spy)
    notes: dict[str, Any] = {}
    work, model = job(tmp_path, notes), tiny.model(kind, layers=2)
    method = Quantization(examples=32, training=dataclasses.replace(TRAINING, precision=precision))
    made = method.compress(model, work)
    assert torch.equal(logits(made), logits(Spy.last.network.eval()))
    assert score(made, work) == max(entry["score"] for entry in notes["training"]["history"])
    assert notes["training"]["precision"] == precision
    untrained = dataclasses.replace(method, training=None).compress(model, job(tmp_path / "untrained"))
    assert Spy.last.network is not model
    assert not torch.equal(logits(untrained), logits(made))
    for name, module in quantized_modules(untrained).items():  # ranges are those of the model passed in
        for part in ("input_scale", "input_zero"):
            if hasattr(module, part):
                assert torch.equal(getattr(made.get_submodule(name), part), getattr(module, part))
        assert not torch.equal(made.get_submodule(name).weight, module.weight)


def with_outlier(layer: int) -> PreTrainedModel:
    """A model one of whose feed-forward outputs reads a huge neuron of no weight, and small ones that decide."""
    model = tiny.model("modernbert")
    gate_and_up = projections_of(model)[f"{layer}.mlp.Wi"].weight.data
    output = projections_of(model)[f"{layer}.mlp.Wo"].weight.data
    gate_and_up[[5, 32 + 5]] *= 300.0
    output *= 30.0
    output[:, 5] = 0.0
    middle = differences(model, [str(row["text"]) for row in tiny.rows(48)]).median()
    model.classifier.bias.data[1] -= middle  # half of the texts are of either class
    return model


def test_training_with_a_teacher_recovers_what_rounding_cost(tmp_path: Path) -> None:
    model, notes = with_outlier(2), dict[str, Any]()
    work = job(tmp_path / "base", notes, task=tiny.task(160, 96).without_test())
    train_on_task(model, work, dataclasses.replace(TRAINING, epochs=4, learning_rate=3e-3), "baseline")
    method = Quantization(
        examples=64,
        teacher=DistillationConfig(source="input"),
        training=dataclasses.replace(TRAINING, epochs=3, learning_rate=1e-3),
    )
    work = dataclasses.replace(work, folder=tmp_path / "work")
    untrained = dataclasses.replace(method, training=None, teacher=None).compress(model, work)
    lost = score(model, work) - score(untrained, work)
    assert lost > 0.05
    trained = method.compress(model, work)
    assert score(trained, work) > score(untrained, work) + lost / 2
    assert score(trained, work) == max(entry["score"] for entry in notes["training"]["history"])
    assert notes["teacher"]["seconds"] > 0


@pytest.mark.parametrize("layer", [0, 2])
def test_what_rounding_ruins_stays_in_fp32(layer: int, tmp_path: Path) -> None:
    model, notes = with_outlier(layer), dict[str, Any]()
    work = job(tmp_path, notes, task=labelled_by(model))
    whole = Quantization(examples=32).compress(model, work)
    assert score(whole, work) < 0.97
    made = Quantization(examples=32, margin=0.0).compress(model, work)
    assert score(made, work) == score(model, work) == 1.0
    outlier = f"{layer}.mlp.Wo"
    stays = quantized_of(made.config)
    assert stays is not None
    assert stays.kept == (outlier,) == tuple(notes["kept"])
    assert stays.embeddings
    assert torch.equal(projections_of(made)[outlier].weight, projections_of(model)[outlier].weight)
    ranked = list(notes["sensitivities"].items())
    assert ranked[0][0] == f"{layer}.feed-forward output" == notes["fallback"]["kept"][0]
    assert ranked[0][1] > 10 * ranked[1][1]
    assert [change for _, change in ranked] == sorted((change for _, change in ranked), reverse=True)
    assert notes["fallback"]["unquantized"] == notes["fallback"]["chosen"] == 1.0
    assert notes["fallback"]["quantized"] == score(whole, work)
    assert json.loads(json.dumps(notes["fallback"]))["tried"] == [[0, score(whole, work)], [1, 1.0]]
    assert notes["quantized"] == {"projections": len(projections_of(model)) - 1, "embeddings": True}


def test_with_training_what_stays_is_chosen_before_and_trained_along(tmp_path: Path) -> None:
    model = with_outlier(2)
    work = job(tmp_path, task=labelled_by(model))
    made = Quantization(examples=32, margin=0.0, training=TRAINING).compress(model, work)
    stays = quantized_of(made.config)
    assert stays is not None
    assert stays.kept == ("2.mlp.Wo",)
    assert not torch.equal(projections_of(made)["2.mlp.Wo"].weight, projections_of(model)["2.mlp.Wo"].weight)


@pytest.mark.parametrize("needed", [*range(9), 9])
def test_the_fewest_that_have_to_stay_are_found_in_few_trials(
    needed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounding = FakeQuantized(tiny.model(layers=2))
    groups, trials = rounding.groups(), []
    ranking = list(groups)[::-1]
    assert len(ranking) == 9

    class Score:
        def scores(self, metrics: Any) -> dict[str, float]:
            stays = rounding.quantized()
            fp32 = (
                set(rounding.names()) if stays is None else {*stays.kept, *([] if stays.embeddings else [EMBEDDINGS])}
            )
            kept = [group for group in ranking if set(groups[group]) <= fp32]
            assert kept == ranking[: len(kept)]  # the most sensitive ones
            trials.append(len(kept))
            return {metrics[0]: 0.82 if len(kept) == 9 else 0.81 if len(kept) >= needed else 0.8099}

    monkeypatch.setattr(mixed_precision, "predict", lambda *_: Score())
    found = fewest_kept(rounding, groups, ranking, job(tmp_path), 0.01)
    assert found.kept == ranking[:needed]
    assert found.unquantized == 0.82
    assert found.chosen == (0.82 if needed == 9 else 0.81)
    assert len(trials) == len(set(trials)) <= 2 * math.log2(9) + 3
    assert {kept for kept, _ in found.tried} | {9} == set(trials)


def test_word_embeddings_are_given_up_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, notes, rankings = tiny.model(layers=1), dict[str, Any](), list[list[str]]()

    def look(rounding: FakeQuantized, groups: Any, ranking: list[str], *rest: Any) -> mixed_precision.Fallback:
        rankings.append(ranking)
        return fewest_kept(rounding, groups, ranking, *rest)

    monkeypatch.setattr(quantization, "fewest_kept", look)
    model.get_input_embeddings().weight.data[:, 3] *= 100.0  # rounds away the other columns
    Quantization(examples=16, margin=0.9).compress(model, job(tmp_path, notes))
    ranked = list(notes["sensitivities"])
    assert ranked[0] == EMBEDDINGS
    assert rankings == [[*ranked[1:], EMBEDDINGS]]
    Quantization(examples=16, margin=0.9, embeddings=False).compress(model, job(tmp_path, notes))
    assert sorted(rankings[1]) == sorted(notes["sensitivities"]) == sorted(ranked[1:])


def test_where_nothing_can_be_quantized_nothing_is_and_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, notes = tiny.model(), dict[str, Any]()

    class Score:
        def __init__(self, network: PreTrainedModel) -> None:
            exact = torch.equal(logits(network), logits(model))
            self.value = 1.0 if exact else 0.0

        def scores(self, metrics: Any) -> dict[str, float]:
            return {metrics[0]: self.value}

    monkeypatch.setattr(mixed_precision, "predict", lambda network, *_: Score(network))
    with caplog.at_level(logging.WARNING):
        made = Quantization(examples=16, margin=0.5, training=TRAINING).compress(model, job(tmp_path, notes))
    assert "nothing can be quantized within margin 0.5, so nothing is; embeddings: false may" in caplog.text
    assert is_plain(made.config)
    assert torch.equal(logits(made), logits(model))
    assert "training" not in notes
    assert notes["quantized"] == {"projections": 0, "embeddings": False}


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_sensitivities_equal_the_divergence_by_hand(kind: Any, tmp_path: Path) -> None:
    model, task = tiny.model("modernbert", layers=2), tiny.task(24, 8).without_test()
    if kind == "multi_label":
        rows = [{**row, "label": [str(row["label"])]} for row in tiny.rows(24)]
        task = build_task("tiny", dict.fromkeys(("train", "development", "test"), rows), ("macro_f1",), kind)
    work = job(tmp_path, task=task.without_test(), loss=task_loss(kind))
    rounding = FakeQuantized(model)
    with torch.no_grad(), rounding.observing():
        rounding.network(**tiny.batch())
    groups = {name: rounding.groups()[name] for name in ("embeddings", "1.feed-forward inputs", "0.attention inputs")}
    found = sensitivities(rounding, groups, work, 100)
    assert rounding.quantized() is None
    assert list(found) == sorted(found, key=lambda group: -found[group])
    for group, names in groups.items():
        rounding.quantize(names)
        alone = rounding.finished().eval()
        divergences = []
        for text in task.splits["train"]["text"]:
            given = tiny.tokenizer()(text, return_tensors="pt")
            with torch.inference_mode():
                before, after = (each(**given).logits[0].double().numpy() for each in (model, alone))
            if kind == "multi_label":
                p, q = (1 / (1 + np.exp(-each)) for each in (before, after))
                divergences.append(np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))
            else:
                p, q = (np.exp(each) / np.exp(each).sum() for each in (before, after))
                divergences.append(np.sum(p * np.log(p / q)))
        assert found[group] == pytest.approx(np.mean(divergences), rel=0.05, abs=1e-12)


def test_full_range_is_an_option_and_warns_where_sums_saturate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, found = tiny.model(layers=1), dict[tuple[bool, bool], str]()
    for saturates in (True, False):
        monkeypatch.setattr(quantization, "saturates", lambda answer=saturates: answer)
        for portable in (True, False):
            caplog.clear()
            made = Quantization(examples=16, portable=portable).compress(model, job(tmp_path))
            stored = quantized_of(made.config)
            assert stored is not None
            assert stored.portable == portable
            largest = max(int(module.weight.abs().max()) for module in quantized_linears(made))
            assert largest == (63 if portable else 127)
            found[saturates, portable] = caplog.text
    assert "has none of avx512_vnni" in found.pop((True, False))
    assert not any(found.values())


def test_ranges_come_from_texts_of_train_alone(tmp_path: Path) -> None:
    model, notes = tiny.model(), dict[str, Any]()
    splits = {"train": tiny.rows(24, 1), "development": tiny.rows(24, 2), "test": tiny.rows(24, 3)}
    others = {**splits, "development": tiny.rows(24, 4)}
    tasks = [build_task("tiny", rows, ("macro_f1",)).without_test() for rows in (splits, others)]
    one, two = (Quantization().compress(model, job(tmp_path, notes, task=task)).state_dict() for task in tasks)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert notes["examples"] == 24
    assert notes["seconds"]["calibration"] > 0
    highest = dict.fromkeys(projections_of(model), 0.0)
    for name, linear in projections_of(model).items():
        linear.register_forward_pre_hook(
            lambda _, inputs, name=name: highest.update({name: max(highest[name], float(inputs[0].max()))})
        )
    with torch.inference_mode():
        for text in tasks[0].splits["train"]["text"]:
            model(**tiny.tokenizer()(text, return_tensors="pt"))
    for name, value in highest.items():
        found = one[f"bert.encoder.layer.{name}.input_scale"] * (255 - one[f"bert.encoder.layer.{name}.input_zero"])
        assert float(found) >= value - 0.501 * float(one[f"bert.encoder.layer.{name}.input_scale"])


def test_windows_low_rank_and_whole_embeddings(tmp_path: Path) -> None:
    windows = job(tmp_path, truncation=Truncation(max_length=6, windows=Windows(stride=2)))
    made = Quantization(embeddings=False, margin=0.2, training=TRAINING).compress(tiny.model(layers=2), windows)
    assert isinstance(made.get_input_embeddings(), torch.nn.Embedding)
    assert torch.isfinite(logits(made)).all()
    config = with_ranks(tiny.model(layers=2).config, Ranks(4, 4, 5))
    factorized = new_model(type(tiny.model()), config).eval()
    made = Quantization(training=TRAINING).compress(factorized, job(tmp_path / "low"))
    plankwise.save(made, None, tmp_path / "model")
    assert torch.equal(logits(plankwise.load(tmp_path / "model")), logits(made))


def test_a_quantized_model_is_a_teacher_and_no_student(tmp_path: Path) -> None:
    model = tiny.model()
    made = Quantization(examples=16).compress(model, job(tmp_path))
    assert all(value.requires_grad for value in made.parameters())
    plankwise.save(made, tiny.tokenizer(), tmp_path / "teacher")
    method = LayerSubset(layers=2, teacher=DistillationConfig(source=str(tmp_path / "teacher")), training=TRAINING)
    assert torch.isfinite(logits(method.compress(model, job(tmp_path / "student")))).all()
    with pytest.raises(MethodError, match="quantize last"):
        method.compress(made, job(tmp_path / "no"))
    with pytest.raises(MethodError, match="quantize last"):
        train_on_task(made, job(tmp_path / "no"), TRAINING, "no")
    with pytest.raises(MethodError, match="quantize last"):
        Checkpoint(source=str(tmp_path / "teacher")).plan(model.config)
    with pytest.raises(MethodError, match="quantize last"):
        Quantization().compress(made, job(tmp_path / "no"))
    assert not (tmp_path / "no").exists()


def test_what_cannot_work_is_refused_in_words(tmp_path: Path) -> None:
    task = dataclasses.replace(tiny.task(60, 20).without_test(), kind="masked_lm")
    work = job(tmp_path, task=task, loss=masked_lm_loss)
    with pytest.raises(MethodError, match="it is for tasks with labels, and a corpus has none"):
        Quantization().compress(tiny.masked_lm(), work)
    for wrong in ({"examples": 0}, {"margin": -0.1}, {"margin": 1.0}, {"teacher": {}}, {"percentile": 99.9}):
        with pytest.raises(RecipeError):
            validate(wrong, Quantization)
    recipe = {
        "name": "tiny",
        "task": {"name": "corpus", "files": ["texts.txt"]},
        "model": {"source": "model"},
        "steps": [{"method": "quantization"}],
    }
    with pytest.raises(RecipeError, match="quantization: it is for tasks with labels"):
        validate(recipe, Recipe)


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantization")
    recipe = {
        "name": "tiny",
        "task": {"name": "table", "train": str(tiny.write_table(folder, 240)), "metrics": ["macro_f1"]},
        "model": {"source": str(tiny.save_source(folder / "source", layers=2)), "max_length": 32},
        "baseline": {"epochs": 4, "batch_size": 16, "learning_rate": 1e-2},
        "steps": [{"method": "quantization", "examples": 64, "margin": 0.05}],
        "evaluation": {"bootstrap": 100, "rounds": 3, "threads": 1, "onnx_baseline": False},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def test_a_run_records_what_the_saved_model_scores_and_costs(
    recipe_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "run", tmp_path / "run" / "steps" / "01-quantization"
    checked = check(validate(json.loads(recipe_path.read_text()), Recipe))
    unscored, task = run(checked, out, until="steps"), checked.task
    timing = {"runtimes": {"baseline": "torch", "compressed": "torch"}, "throughput": {"speedup": 1.5}}
    places = (out / "baseline", folder, tmp_path / "predictions.npz")
    measured = measure_final(unscored, task, checked.recipe, *places, benchmark=lambda *_: timing)
    record = measured.model_dump(mode="json")
    model, tokenizer = plankwise.load(folder), load_tokenizer(str(folder))
    assert is_quantized(model.config)
    assert record["final"]["speedup"] == 1.5
    found = predict(model, tokenizer, task, "test", Truncation(max_length=32))
    assert METRICS["macro_f1"](found.labels, found.logits) == record["final"]["scores"]["macro_f1"]
    assert record["final"]["scores"]["macro_f1"] > record["final"]["majority_scores"]["macro_f1"] + 0.2
    step, before = record["steps"][0], record["baseline"]["cost"]
    assert step["details"]["fallback"]["unquantized"] - step["scores"]["macro_f1"] <= 0.05
    assert step["cost"]["parameters"] == before["parameters"] == record["final"]["cost"]["parameters"]
    assert step["cost"]["linear_flops_per_token"] == before["linear_flops_per_token"] > 0
    assert step["cost"]["size_bytes"] == (folder / "model.safetensors").stat().st_size < before["size_bytes"]
    capsys.readouterr()
    assert tiny.call(monkeypatch, "evaluate", folder, "--recipe", recipe_path, "--split", "test", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["scores"]["macro_f1"]["value"] == record["final"]["scores"]["macro_f1"]


def test_a_recipe_that_starts_from_a_quantized_model_or_goes_on_with_one_is_refused(
    recipe_path: Path, tmp_path: Path
) -> None:
    recipe = json.loads(recipe_path.read_text())
    plankwise.save(Quantization(examples=16).compress(tiny.model(), job(tmp_path)), tiny.tokenizer(), tmp_path / "int8")
    from_int8 = {**recipe, "model": {"source": str(tmp_path / "int8"), "max_length": 32}}
    with pytest.raises(ModelError, match=r"model\.source .*int8: the model is quantized"):
        check(validate(from_int8, Recipe))
    steps = [{"method": "quantization"}, {"method": "pruning"}]
    with pytest.raises(MethodError, match=r"steps\.1 \(pruning\): the model is quantized.*quantize last"):
        check(validate({**recipe, "steps": steps}, Recipe))
