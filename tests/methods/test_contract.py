"""What every method promises, run over every method. A new one adds a line to SETTINGS."""

from __future__ import annotations

import dataclasses
import functools
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

import plankwise
import tiny
from plankwise.core.errors import MethodError
from plankwise.core.recipe import to_plain
from plankwise.data.task import Task
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.cost import (
    compressed_size_bytes,
    count_bytes,
    count_nonzero,
    count_parameters,
    weights_size_bytes,
)
from plankwise.encoder.shapes import is_plain
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.methods.checkpoint import Checkpoint
from plankwise.methods.distillation import Distillation, Sizes, Student
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.learned_pruning import LearnedPruning
from plankwise.methods.low_rank import LowRank
from plankwise.methods.method import Compressed, Method, StepLog
from plankwise.methods.pruning import Pruning
from plankwise.methods.quantization import Quantization
from plankwise.methods.recovery import ReplacingConfig
from plankwise.methods.registry import METHODS, method_of
from plankwise.methods.theseus import Theseus
from plankwise.methods.unstructured import Unstructured
from plankwise.methods.vocabulary import TrimmedVocabulary
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training

TRAINING = Training(epochs=2, batch_size=16, learning_rate=2e-3, precision="fp32", evaluations_per_epoch=2)
LONGER = dataclasses.replace(TRAINING, epochs=4)  # for trainings of two parts, each as long as TRAINING
QUICK = dataclasses.replace(TRAINING, epochs=1, evaluations_per_epoch=1)  # for pairs, of which there are many
STEPS = 8  # of TRAINING; it is evaluated, and leaves a checkpoint, after every second
SCRATCH = Path(tempfile.mkdtemp(prefix="plankwise-tests-"))
OTHER = tiny.save_source(SCRATCH / "other", layers=3)
MEASURES: dict[str, tuple[Callable[[PreTrainedModel], int], Callable[[Path], int]]] = {
    "parameters": (count_parameters, weights_size_bytes),
    "nonzero": (count_nonzero, compressed_size_bytes),
    "bytes": (count_bytes, weights_size_bytes),
}


@dataclass(frozen=True)
class Case:
    """A method under the contract, and what is expected of it.

    Attributes:
        method: its settings; trained ones by TRAINING.
        plain: whether plain Transformers loads what it returns; else `plankwise.load` alone does.
        smaller: what it makes fewer of: parameters, or only nonzero ones, or bytes of each.
        seeded: whether another seed gives other weights.
        paired: whether it is combined with all others; of several settings of a method one is enough.
    """

    method: Method
    plain: bool = True
    smaller: Literal["parameters", "nonzero", "bytes"] = "parameters"
    seeded: bool = True
    paired: bool = True


SETTINGS: dict[str, Case] = {
    "theseus": Case(Theseus(modules=2, training=TRAINING)),
    "theseus-paper": Case(Theseus(preset="paper", modules=2, training=TRAINING), paired=False),
    "theseus-blend": Case(Theseus(modules=2, mode="blend", train_embeddings=True, training=TRAINING), paired=False),
    "layer-subset": Case(LayerSubset(layers=2, training=TRAINING)),
    "checkpoint": Case(Checkpoint(source=str(OTHER), training=TRAINING)),
    "learned-pruning": Case(LearnedPruning(target=1.3, search=0.5, training=LONGER), plain=False),
    "learned-pruning-movement": Case(
        LearnedPruning(gates="movement", search=0.5, training=LONGER), plain=False, paired=False
    ),
    "distillation": Case(Distillation(student=Student(layers=2), training=TRAINING)),
    "distillation-inside": Case(
        Distillation(
            student=Student(sizes=Sizes(hidden_size=8, num_hidden_layers=2, intermediate_size=16)),
            teacher=DistillationConfig(hidden=1.0, relations=1.0, cosine=0.5),
            training=TRAINING,
        ),
        paired=False,
    ),
    "theseus-teacher": Case(
        Theseus(modules=2, teacher=DistillationConfig(relations=0.5), training=TRAINING), paired=False
    ),
    "theseus-baseline": Case(Theseus(modules=2, predecessor="baseline", training=TRAINING), paired=False),
    "pruning": Case(Pruning(target=2.0, neuron_step=4, examples=48), plain=False),
    "pruning-recovered": Case(
        Pruning(target=3.0, neuron_step=1, examples=48, teacher=DistillationConfig(), training=TRAINING),
        plain=False,
        paired=False,
    ),
    "pruning-replaced": Case(
        Pruning(
            target=3.0,
            neuron_step=1,
            examples=48,
            teacher=DistillationConfig(hidden=0.5, cosine=0.5),
            training=TRAINING,
            replacing=ReplacingConfig(),
        ),
        plain=False,
        paired=False,
    ),
    "pruning-plain": Case(
        Pruning(target=1.3, measure="parameters", shape="plain", importance="magnitude", examples=48, neuron_step=1),
        seeded=False,
        paired=False,
    ),
    "unstructured": Case(Unstructured(sparsity=0.6, training=TRAINING), smaller="nonzero"),
    "unstructured-movement": Case(
        Unstructured(sparsity=0.6, importance="movement", scope="layer", end=0.5, training=TRAINING),
        smaller="nonzero",
        paired=False,
    ),
    "unstructured-one-shot": Case(
        Unstructured(sparsity=0.6, schedule="one_shot", training=None), smaller="nonzero", seeded=False, paired=False
    ),
    "low-rank": Case(LowRank(embeddings=0.5, feed_forward=0.5, training=TRAINING), plain=False),
    "low-rank-svd": Case(LowRank(feed_forward=0.5, weighting="none"), plain=False, seeded=False, paired=False),
    "low-rank-replaced": Case(
        LowRank(embeddings=0.5, feed_forward=0.5, training=TRAINING, replacing=ReplacingConfig(mode="blend")),
        plain=False,
        paired=False,
    ),
    "vocabulary": Case(TrimmedVocabulary(minimum_count=16), seeded=False),
    "vocabulary-trained": Case(TrimmedVocabulary(max_tokens=30, training=TRAINING), paired=False),
    "quantization": Case(Quantization(examples=48), plain=False, smaller="bytes"),
    "quantization-margin": Case(Quantization(examples=48, margin=0.1), plain=False, smaller="bytes", paired=False),
    "quantization-aware": Case(
        Quantization(examples=48, teacher=DistillationConfig(relations=0.5), training=TRAINING),
        plain=False,
        smaller="bytes",
        paired=False,
    ),
    "quantization-replaced": Case(
        Quantization(
            examples=48, teacher=DistillationConfig(relations=0.5), training=TRAINING, replacing=ReplacingConfig()
        ),
        plain=False,
        smaller="bytes",
        paired=False,
    ),
}
REFUSED: dict[tuple[str, str], str] = {  # orders that cannot work: what `plan` says of them, as a regular expression
    ("vocabulary", "checkpoint"): "has a tokenizer of its own, and a step before trims it",
    ("low-rank", "low-rank"): "low rank already",
    ("low-rank", "pruning"): "low-rank",
    ("low-rank", "learned-pruning"): "low-rank",
    ("low-rank", "vocabulary"): "low rank",
}
PAIRED = [name for name, case in SETTINGS.items() if case.paired]
REFUSED |= {("quantization", name): "the model is quantized.*quantize last" for name in PAIRED}
each_method = pytest.mark.parametrize("name", SETTINGS)


class Killed(BaseException):
    """A process that ends without warning."""


class Kill(TrainerCallback):  # type: ignore[misc]
    """Ends the process at the beginning of a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._step:
            raise Killed


@functools.cache
def task(train: int = 64, other: int = 16) -> Task:
    return tiny.task(train, other).without_test()


def compress(
    method: Method,
    given: Compressed,
    folder: Path,
    *,
    seed: int = 1,
    data: Task | None = None,
    callbacks: tuple[TrainerCallback, ...] = (),
) -> Compressed:
    """Run a method on a model with its tokenizer."""
    own = tiny.job(folder, task=data or task(), tokenizer=given.tokenizer, seed=seed, callbacks=callbacks)
    return method.compress(given.model, own)


def start(layers: int = 4) -> Compressed:
    return Compressed(tiny.model(layers=layers), tiny.tokenizer(), StepLog())


@functools.cache
def given_and_finished(name: str) -> tuple[Compressed, Compressed]:
    """Compress the tiny model with seed 1; return what was passed in and the result, which no test changes."""
    given = start()
    return given, compress(SETTINGS[name].method, given, SCRATCH / "finished" / name)


def finished(name: str) -> Compressed:
    return given_and_finished(name)[1]


@functools.cache
def saved(name: str) -> Path:
    return save(finished(name), SCRATCH / "saved" / name)


def quick(name: str) -> Method:
    method = SETTINGS[name].method
    return method if method.training is None else dataclasses.replace(method, training=QUICK)  # type: ignore[type-var]


@functools.cache
def first_of_pair(name: str) -> Compressed:
    return compress(quick(name), start(layers=6), SCRATCH / "first" / name, data=task(16, 8))


def same_weights(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def logits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return the logits of some texts, [texts, labels], by the model's own tokenizer."""
    texts = [str(row["text"]) for row in tiny.rows(4)]
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        return found


def save(result: Compressed, folder: Path) -> Path:
    plankwise.save(result.model, result.tokenizer, folder)
    return folder


def test_every_registered_method_is_under_contract() -> None:
    assert {type(case.method) for case in SETTINGS.values()} == set(METHODS)


@each_method
def test_the_model_passed_in_is_not_changed(name: str) -> None:
    model, before = given_and_finished(name)[0].model, start().model
    assert same_weights(model, before)
    assert [value.requires_grad for value in model.parameters()] == [each.requires_grad for each in before.parameters()]
    assert model.training == before.training
    assert model.config.to_dict() == before.config.to_dict()
    assert torch.equal(logits(model, tiny.tokenizer()), logits(before, tiny.tokenizer()))


@each_method
def test_the_result_is_smaller_and_called_the_same_way(name: str, tmp_path: Path) -> None:
    large, small, method = start(), finished(name), SETTINGS[name].method
    config = small.model.config
    assert (
        len(layers_of(small.model))
        == config.num_hidden_layers
        == method.plan(tiny.spec(large.model)).config.num_hidden_layers
    )
    assert config.id2label == large.model.config.id2label
    assert not small.model.training
    assert all(value.requires_grad for value in small.model.parameters())
    assert logits(small.model, small.tokenizer).shape == logits(large.model, large.tokenizer).shape
    count, count_bytes = MEASURES[SETTINGS[name].smaller]
    assert count(small.model) < count(large.model)
    assert count_bytes(saved(name)) < count_bytes(save(large, tmp_path / "large"))


@each_method
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(name: str, tmp_path: Path) -> None:
    case = SETTINGS[name]
    assert same_weights(finished(name).model, compress(case.method, start(), tmp_path / "same").model)
    if case.seeded and case.paired:
        other = compress(case.method, start(), tmp_path / "other", seed=2)
        assert not same_weights(finished(name).model, other.model)


@pytest.mark.parametrize(
    ("name", "kill_at"),
    [
        *((name, 3) for name, case in SETTINGS.items() if case.method.training is not None),  # between two checkpoints
        ("theseus", STEPS - 1),
        ("learned-pruning", STEPS - 1),
    ],
)
def test_a_killed_run_ends_at_the_same_weights(name: str, kill_at: int, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        compress(SETTINGS[name].method, start(), tmp_path, callbacks=(Kill(kill_at),))
    resumed = compress(SETTINGS[name].method, start(), tmp_path)
    assert same_weights(finished(name).model, resumed.model)
    assert logits(resumed.model, resumed.tokenizer).equal(logits(finished(name).model, finished(name).tokenizer))
    assert resumed.log.training is not None
    assert len(resumed.log.training.history) == STEPS // 2


@each_method
def test_it_reloads_as_it_was_saved(name: str) -> None:
    small = finished(name)
    again = plankwise.load(saved(name))
    assert same_weights(small.model, again)
    assert torch.equal(logits(small.model, small.tokenizer), logits(again, load_tokenizer(str(saved(name)))))


@each_method
def test_plain_transformers_loads_it_or_names_what_does(name: str) -> None:
    small = finished(name)
    if SETTINGS[name].plain:
        again = AutoModelForSequenceClassification.from_pretrained(saved(name))
        assert same_weights(small.model, again)
        assert torch.equal(logits(small.model, small.tokenizer), logits(again, small.tokenizer))
    else:
        for ignored in (False, True):  # sizes that do not match; plain Transformers would draw such weights at random
            with pytest.raises(Exception, match=r"plankwise\.load"):
                AutoModelForSequenceClassification.from_pretrained(saved(name), ignore_mismatched_sizes=ignored)
    assert is_plain(small.model.config) == SETTINGS[name].plain


@pytest.mark.parametrize("second", PAIRED)
@pytest.mark.parametrize("first", PAIRED)
def test_every_pair_composes_or_is_refused_by_the_plan(first: str, second: str, tmp_path: Path) -> None:
    spec = SETTINGS[first].method.plan(tiny.spec(tiny.model(layers=6)))
    if (first, second) in REFUSED:
        with pytest.raises(MethodError, match=REFUSED[first, second]):
            SETTINGS[second].method.plan(spec)
        return
    last = compress(quick(second), first_of_pair(first), tmp_path / "work", data=task(16, 8))
    assert last.model.config.num_hidden_layers == SETTINGS[second].method.plan(spec).config.num_hidden_layers
    again = plankwise.load(save(last, tmp_path / "model"))
    assert torch.isfinite(logits(again, last.tokenizer)).all()
    assert torch.equal(logits(again, last.tokenizer), logits(last.model, last.tokenizer))


def test_a_chain_that_cannot_work_is_refused_by_the_plan() -> None:
    with pytest.raises(MethodError, match="3 modules do not fit a model of 2 layers; allowed: 1 to 2"):
        Theseus(modules=3).plan(LayerSubset(layers=2).plan(tiny.spec()))


def test_the_test_split_is_out_of_reach() -> None:
    assert set(task().splits) == {"train", "development"}  # all that any method here is given


@each_method
def test_settings_round_trip(name: str) -> None:
    method = SETTINGS[name].method
    assert method_of(to_plain(method)) == method
    assert eval(repr(method), dict(vars(sys.modules[type(method).__module__]))) == method
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.training = Training()


def test_every_method_has_its_card() -> None:
    folder = Path(__file__).parents[2] / "src" / "plankwise" / "methods"
    for method in METHODS:
        assert (folder / f"{method.__module__.rpartition('.')[2]}.md").read_text().startswith("# ")
