"""Quantization as a method: what trains is what comes back, what is sensitive stays, what cannot work is refused."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, TrainerCallback

import plankwise
import tiny
from plankwise.core.errors import MethodError, ModelError, RecipeError
from plankwise.core.recipe import read_recipe, validate
from plankwise.data.task import Task, build_task
from plankwise.data.truncation import Truncation, Windows
from plankwise.encoder.fake_quantized import EMBEDDINGS, FakeQuantized, FakeQuantizedLinear
from plankwise.encoder.low_rank import Ranks, with_ranks
from plankwise.encoder.quantized import (
    Quantized,
    QuantizedLinear,
    is_quantized,
    projections_of,
    quantized_modules,
    quantized_of,
)
from plankwise.encoder.shapes import is_plain, new_model
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.metrics import log_loss
from plankwise.methods import quantization
from plankwise.methods.checkpoint import Checkpoint
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.method import Job
from plankwise.methods.quantization import Quantization, QuantizationLog
from plankwise.methods.sensitivity import fewest_kept, sensitivities
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training
from plankwise.training.objectives.classification import SingleLabel
from plankwise.training.objectives.objective import Scored
from plankwise.training.on_task import train_on_task
from plankwise.training.prediction import predict

TRAINING = Training(epochs=2, batch_size=16, learning_rate=2e-3, precision="fp32", evaluations_per_epoch=2)


def job(folder: Path, **changes: Any) -> Job:
    return tiny.job(folder, **{"task": tiny.task(64, 32).without_test(), **changes})


def made_by(method: Quantization, model: PreTrainedModel, work: Job) -> tuple[PreTrainedModel, QuantizationLog]:
    made = method.compress(model, work)
    assert isinstance(made.log, QuantizationLog)
    return made.model, made.log


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(**tiny.batch()).logits
        return found


def quantized_linears(model: PreTrainedModel) -> list[QuantizedLinear]:
    return [module for module in model.modules() if isinstance(module, QuantizedLinear)]


def score(model: PreTrainedModel, work: Job) -> float:
    return predict(model, work.tokenizer, work.task, "development", work.truncation).scores(("macro_f1",))["macro_f1"]


def differences(model: PreTrainedModel, texts: list[str]) -> torch.Tensor:
    """By how much the second class is likelier, [texts]."""
    with torch.inference_mode():
        scores: torch.Tensor = model(**tiny.tokenizer()(texts, padding=True, return_tensors="pt")).logits
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


class Capture(TrainerCallback):  # type: ignore[misc]
    """Keeps the network that trained."""

    network: PreTrainedModel

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.network = model


@pytest.mark.parametrize(("kind", "precision"), [("bert", "fp32"), ("modernbert", "bf16"), ("deberta-v2", "fp32")])
def test_the_network_that_trained_and_was_selected_is_the_model_returned(
    kind: str, precision: Literal["fp32", "bf16"], tmp_path: Path
) -> None:
    trained, model = Capture(), tiny.model(kind, layers=2)
    work = job(tmp_path, callbacks=(trained,))
    method = Quantization(examples=32, training=dataclasses.replace(TRAINING, precision=precision))
    made, log = made_by(method, model, work)
    assert log.training is not None
    assert torch.equal(logits(made), logits(trained.network.eval()))
    assert score(made, work) == max(entry["score"] for entry in log.training.history)
    assert log.training.precision == precision
    untrained, _ = made_by(dataclasses.replace(method, training=None), model, job(tmp_path / "untrained"))
    assert trained.network is not model
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
    model = with_outlier(2)
    work = job(tmp_path / "base", task=tiny.task(160, 96).without_test())
    train_on_task(model, work, dataclasses.replace(TRAINING, epochs=4, learning_rate=3e-3), "baseline")
    method = Quantization(
        examples=64,
        teacher=DistillationConfig(source="input"),
        training=dataclasses.replace(TRAINING, epochs=3, learning_rate=1e-3),
    )
    work = dataclasses.replace(work, folder=tmp_path / "work", cache=tmp_path / "cache")
    untrained, _ = made_by(dataclasses.replace(method, training=None, teacher=None), model, work)
    lost = score(model, work) - score(untrained, work)
    assert lost > 0.05
    trained, log = made_by(method, model, work)
    assert log.training is not None
    assert log.teacher is not None
    assert score(trained, work) > score(untrained, work) + lost / 2
    assert score(trained, work) == max(entry["score"] for entry in log.training.history)
    assert log.teacher.examples == 160


@pytest.mark.parametrize("layer", [0, 2])
def test_what_rounding_ruins_stays_in_fp32(layer: int, tmp_path: Path) -> None:
    model = with_outlier(layer)
    work = job(tmp_path, task=labelled_by(model))
    whole, _ = made_by(Quantization(examples=32), model, work)
    assert score(whole, work) < 0.97
    made, log = made_by(Quantization(examples=32, margin=0.0), model, work)
    assert score(made, work) == score(model, work) == 1.0
    outlier = f"{layer}.mlp.Wo"
    stays = quantized_of(made.config)
    assert stays is not None
    assert stays.kept == (outlier,) == tuple(log.kept)
    assert stays.embeddings
    assert torch.equal(projections_of(made)[outlier].weight, projections_of(model)[outlier].weight)
    assert log.sensitivities is not None
    assert log.fallback is not None
    ranked = list(log.sensitivities.items())
    assert ranked[0][0] == f"{layer}.feed-forward output" == log.fallback["kept"][0]
    assert ranked[0][1] > 10 * ranked[1][1]
    assert [change for _, change in ranked] == sorted((change for _, change in ranked), reverse=True)
    assert log.fallback["unquantized"] == log.fallback["chosen"] == 1.0
    assert log.fallback["quantized"] == score(whole, work)
    assert json.loads(log.model_dump_json())["fallback"]["tried"] == [[0, score(whole, work)], [1, 1.0]]
    assert log.quantized == {"projections": len(projections_of(model)) - 1, "embeddings": True}


def test_with_training_what_stays_is_chosen_before_and_trained_along(tmp_path: Path) -> None:
    model = with_outlier(2)
    work = job(tmp_path, task=labelled_by(model))
    made, _ = made_by(Quantization(examples=32, margin=0.0, training=TRAINING), model, work)
    stays = quantized_of(made.config)
    assert stays is not None
    assert stays.kept == ("2.mlp.Wo",)
    assert not torch.equal(projections_of(made)["2.mlp.Wo"].weight, projections_of(model)["2.mlp.Wo"].weight)


@dataclass(frozen=True)
class ScoredBy(SingleLabel):
    """One label a text, with scores of the test's own."""

    own: Callable[[PreTrainedModel], float] = lambda network: 0.0

    def score(self, model: PreTrainedModel, job: Job, split: str) -> Scored:
        assert split == "development"
        return Scored({job.task.metrics[0]: self.own(model)})


@pytest.mark.parametrize("needed", [0, 1, 2, 3, 5, 8, 9])
def test_the_fewest_that_have_to_stay_are_found_in_few_trials(needed: int, tmp_path: Path) -> None:
    rounding = FakeQuantized(tiny.model(layers=2))
    groups, trials = rounding.groups(), list[int]()
    ranking = list(groups)[::-1]
    assert len(ranking) == 9

    def scored(network: PreTrainedModel) -> float:
        stays = rounding.quantized()
        fp32 = set(rounding.names()) if stays is None else {*stays.kept, *([] if stays.embeddings else [EMBEDDINGS])}
        kept = [group for group in ranking if set(groups[group]) <= fp32]
        assert kept == ranking[: len(kept)]  # the most sensitive ones
        trials.append(len(kept))
        return 0.82 if len(kept) == 9 else 0.81 if len(kept) >= needed else 0.8099

    found = fewest_kept(rounding, groups, ranking, job(tmp_path, objective=ScoredBy(own=scored)), margin=0.01)
    assert found.kept == ranking[:needed]
    assert found.unquantized == 0.82
    assert found.chosen == (0.82 if needed == 9 else 0.81)
    assert len(trials) == len(set(trials)) <= 2 * math.log2(9) + 3
    assert {kept for kept, _ in found.tried} | {9} == set(trials)


def test_word_embeddings_return_to_fp32_last(tmp_path: Path) -> None:
    """They are the most sensitive here; still every projection stays in fp32 before they do."""
    model = tiny.model(layers=1)
    model.get_input_embeddings().weight.data[:, 3] *= 100.0  # rounds away the other columns

    def whole_projections(network: PreTrainedModel) -> float:
        return 0.0 if any(isinstance(each, FakeQuantizedLinear) and each.active for each in network.modules()) else 1.0

    work = job(tmp_path, objective=ScoredBy(own=whole_projections))
    made, log = made_by(Quantization(examples=16, margin=0.0), model, work)
    assert log.sensitivities is not None
    ranked = list(log.sensitivities)
    assert ranked[0] == EMBEDDINGS
    assert log.fallback is not None
    assert log.fallback["kept"] == ranked[1:]
    assert quantized_of(made.config) == Quantized(tuple(projections_of(model)), embeddings=True, portable=True)
    _, log = made_by(Quantization(examples=16, margin=0.9, embeddings=False), model, job(tmp_path))
    assert sorted(log.sensitivities or {}) == sorted(ranked[1:])


def test_where_nothing_can_be_quantized_nothing_is_and_a_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny.model()
    exact = ScoredBy(own=lambda network: float(torch.equal(logits(network), logits(model))))
    with caplog.at_level(logging.WARNING):
        method = Quantization(examples=16, margin=0.5, training=TRAINING)
        made, log = made_by(method, model, job(tmp_path, objective=exact))
    assert "nothing can be quantized within margin 0.5, so nothing is; embeddings: false may" in caplog.text
    assert is_plain(made.config)
    assert torch.equal(logits(made), logits(model))
    assert log.training is None
    assert log.quantized == {"projections": 0, "embeddings": False}


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_sensitivities_equal_the_divergence_by_hand(
    kind: Literal["single_label", "multi_label"], tmp_path: Path
) -> None:
    model, task = tiny.model("modernbert", layers=2), tiny.task(24, 8).without_test()
    if kind == "multi_label":
        rows = [{**row, "label": [str(row["label"])]} for row in tiny.rows(24)]
        task = build_task("tiny", dict.fromkeys(("train", "development", "test"), rows), ("macro_f1",), kind)
    work = job(tmp_path, task=task.without_test())
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
        monkeypatch.setattr(quantization, "saturates", partial(bool, saturates))
        for portable in (True, False):
            caplog.clear()
            made, _ = made_by(Quantization(examples=16, portable=portable), model, job(tmp_path))
            stored = quantized_of(made.config)
            assert stored is not None
            assert stored.portable == portable
            largest = max(int(module.weight.abs().max()) for module in quantized_linears(made))
            assert largest == (63 if portable else 127)
            found[saturates, portable] = caplog.text
    assert "has none of avx512_vnni" in found.pop((True, False))
    assert not any(found.values())


def raise_to(highest: dict[str, float], name: str, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    highest[name] = max(highest[name], float(inputs[0].max()))


def test_ranges_come_from_texts_of_train_alone(tmp_path: Path) -> None:
    model = tiny.model()
    splits = {"train": tiny.rows(24, 1), "development": tiny.rows(24, 2), "test": tiny.rows(24, 3)}
    others = {**splits, "development": tiny.rows(24, 4)}
    tasks = [build_task("tiny", rows, ("macro_f1",)).without_test() for rows in (splits, others)]
    (one, log), (two, _) = (made_by(Quantization(), model, job(tmp_path, task=task)) for task in tasks)
    state, other = one.state_dict(), two.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in state.items())
    assert log.examples == 24
    assert list(log.seconds or {}) == ["calibration"]
    highest = dict.fromkeys(projections_of(model), 0.0)
    for name, linear in projections_of(model).items():
        linear.register_forward_pre_hook(partial(raise_to, highest, name))
    with torch.inference_mode():
        for text in tasks[0].splits["train"]["text"]:
            model(**tiny.tokenizer()(text, return_tensors="pt"))
    for name, value in highest.items():
        scale, zero = (state[f"bert.encoder.layer.{name}.{part}"] for part in ("input_scale", "input_zero"))
        assert float(scale * (255 - zero)) >= value - 0.501 * float(scale)


def test_windows_low_rank_and_whole_embeddings(tmp_path: Path) -> None:
    windows = job(tmp_path, truncation=Truncation(max_length=6, windows=Windows(stride=2)))
    made, _ = made_by(Quantization(embeddings=False, margin=0.2, training=TRAINING), tiny.model(layers=2), windows)
    assert isinstance(made.get_input_embeddings(), torch.nn.Embedding)
    assert torch.isfinite(logits(made)).all()
    config = with_ranks(tiny.model(layers=2).config, Ranks(4, 4, 5))
    factorized = new_model(type(tiny.model()), config).eval()
    made, _ = made_by(Quantization(training=TRAINING), factorized, job(tmp_path / "low"))
    plankwise.save(made, None, tmp_path / "model")
    assert torch.equal(logits(plankwise.load(tmp_path / "model")), logits(made))


def test_a_quantized_model_is_a_teacher_and_no_student(tmp_path: Path) -> None:
    model = tiny.model()
    made, _ = made_by(Quantization(examples=16), model, job(tmp_path))
    assert all(value.requires_grad for value in made.parameters())
    plankwise.save(made, tiny.tokenizer(), tmp_path / "teacher")
    method = LayerSubset(layers=2, teacher=DistillationConfig(source=str(tmp_path / "teacher")), training=TRAINING)
    assert torch.isfinite(logits(method.compress(model, job(tmp_path / "student")).model)).all()
    for refused in (method, Quantization()):
        with pytest.raises(MethodError, match="quantize last"):
            refused.plan(tiny.spec(made))
    with pytest.raises(MethodError, match="quantize last"):
        Checkpoint(source=str(tmp_path / "teacher")).plan(tiny.spec(model))
    with pytest.raises(MethodError, match="quantize last"):
        train_on_task(made, job(tmp_path / "no"), TRAINING, "no")
    assert not (tmp_path / "no").exists()


def test_what_cannot_work_is_refused_in_words() -> None:
    with pytest.raises(MethodError, match="quantization is for a task with labels, and a corpus has none"):
        Quantization().plan(tiny.spec(tiny.masked_lm(), "masked_lm"))
    wrong_ones: tuple[dict[str, Any], ...] = ({"examples": 0}, {"margin": -0.1}, {"margin": 1.0}, {"teacher": {}})
    for wrong in (*wrong_ones, {"percentile": 99.9}):
        with pytest.raises(RecipeError):
            validate(wrong, Quantization)


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
    """All steps, without the final benchmark."""
    checked = check(read_recipe(recipe_path, Recipe))
    record = run(checked, tmp_path / "run", until="steps")
    folder = tmp_path / "run" / "steps" / "01-quantization"
    model, tokenizer = plankwise.load(folder), load_tokenizer(str(folder))
    assert is_quantized(model.config)
    step, baseline = record.steps[0], record.baseline
    assert baseline is not None
    found = predict(model, tokenizer, checked.task, "development", Truncation(max_length=32))
    assert found.scores(["macro_f1"])["macro_f1"] == step.scores["macro_f1"]
    assert log_loss(found.labels, found.logits) == step.scores["log_loss"]
    assert step.details.model_dump()["fallback"]["unquantized"] - step.scores["macro_f1"] <= 0.05
    assert step.cost.parameters == baseline.cost.parameters
    assert step.cost.linear_flops_per_token == baseline.cost.linear_flops_per_token
    assert step.cost.size_bytes == (folder / "model.safetensors").stat().st_size < baseline.cost.size_bytes
    options = ["--recipe", recipe_path, "--split", "test", "--json"]
    assert tiny.call(monkeypatch, "evaluate", folder, *options) == 0
    document = json.loads(capsys.readouterr().out)
    tested = predict(model, tokenizer, checked.task, "test", Truncation(max_length=32))
    assert document["scores"]["macro_f1"]["value"] == tested.scores(["macro_f1"])["macro_f1"]


def test_a_recipe_that_starts_from_a_quantized_model_or_goes_on_with_one_is_refused(
    recipe_path: Path, tmp_path: Path
) -> None:
    recipe = json.loads(recipe_path.read_text())
    made, _ = made_by(Quantization(examples=16), tiny.model(), job(tmp_path))
    plankwise.save(made, tiny.tokenizer(), tmp_path / "int8")
    from_int8 = {**recipe, "model": {"source": str(tmp_path / "int8"), "max_length": 32}}
    with pytest.raises(ModelError, match=r"model\.source .*int8: the model is quantized"):
        check(validate(from_int8, Recipe))
    steps = [{"method": "quantization"}, {"method": "pruning"}]
    with pytest.raises(MethodError, match=r"steps\.1 \(pruning\): the model is quantized.*quantize last"):
        check(validate({**recipe, "steps": steps}, Recipe))
