"""The loss against a teacher: its parts, its gradients, and the model afterwards."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

import tiny
from plankwise.core.errors import MethodError
from plankwise.data.batching.examples import Collator, encode
from plankwise.data.batching.inputs import Batch
from plankwise.data.truncation import Truncation
from plankwise.encoder.anatomy import layers_of, query_key_value_of
from plankwise.encoder.surgery import rebuild
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.distillation.distillation_loss import PROJECTIONS, Supervision, distillation
from plankwise.training.distillation.losses import softmax_logits_loss
from plankwise.training.distillation.teacher import Teacher
from plankwise.training.objectives.losses import task_loss

EXAMPLES = encode(tiny.task().splits["train"].select(range(24)), tiny.tokenizer(), Truncation(max_length=32))


def teacher(model: PreTrainedModel | None = None) -> Teacher:
    return Teacher((model or tiny.model()).eval(), tiny.tokenizer(), "input", True)


def taught_by(
    student: PreTrainedModel,
    teacher: Teacher,
    config: DistillationConfig,
    cache: Path,
    layers: Sequence[nn.Module] | None = None,
) -> AbstractContextManager[Supervision]:
    return distillation(
        student,
        layers or list(layers_of(student)),
        teacher,
        config,
        task_loss=task_loss("single_label"),
        logits_loss=softmax_logits_loss,
        examples=EXAMPLES,
        pooling=None,
        cache=cache,
        seed=1,
    )


def batch() -> Batch:
    return Collator(tiny.tokenizer())(EXAMPLES[:5])


def loss_of(student: PreTrainedModel, supervision: Supervision) -> torch.Tensor:
    rows = batch()
    outputs = student(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"])
    return supervision.loss(outputs, rows)


def log_of(supervision: Supervision) -> dict[str, Any]:
    assert supervision.log is not None
    return supervision.log.as_dict()


@pytest.mark.parametrize(
    "config",
    [
        DistillationConfig(),
        DistillationConfig(hidden=1.0, cosine=1.0, cache="hidden"),
        DistillationConfig(hidden=1.0, cosine=1.0, relations=1.0),
    ],
    ids=["logits", "cached", "online"],
)
def test_no_hook_and_no_projection_is_left(config: DistillationConfig, tmp_path: Path) -> None:
    student, master = tiny.model(layers=2, hidden_size=8), teacher()
    before = [tiny.hooks_of(student), tiny.hooks_of(master.model)]
    names = set(dict(student.named_parameters()))
    context = taught_by(student, master, config, tmp_path)
    context.__enter__()
    assert (PROJECTIONS in dict(student.named_children())) == config.compares_hidden
    assert (tiny.hooks_of(student) > before[0]) == config.compares_layers
    assert context.__exit__(KeyError, KeyError(), None) is False
    assert [tiny.hooks_of(student), tiny.hooks_of(master.model)] == before
    assert set(dict(student.named_parameters())) == names


def test_the_loss_is_the_weighted_sum_of_its_parts(tmp_path: Path) -> None:
    student, master = tiny.model(layers=2, seed=5), teacher()

    def value(**weights: Any) -> float:
        config = DistillationConfig(**{"task": 0.0, "logits": 0.0, "cache": "none", **weights})
        with taught_by(student, master, config, tmp_path) as supervision:
            return loss_of(student, supervision).item()

    alone = {name: value(**{name: 1.0}) for name in ("task", "logits", "hidden", "relations", "cosine")}
    assert min(alone.values()) > 1e-4
    factors = {"task": 0.3, "logits": 2.0, "hidden": 0.7, "relations": 1.5, "cosine": 0.2}
    expected = sum(factor * alone[name] for name, factor in factors.items())
    assert value(**factors) == pytest.approx(expected, rel=1e-5)


def test_relations_may_differ_in_width_and_heads(tmp_path: Path) -> None:
    student = tiny.model(layers=2, hidden_size=24, num_attention_heads=3).train()
    config = DistillationConfig(task=0.0, logits=0.0, relations=1.0)
    with taught_by(student, teacher(), config, tmp_path) as supervision:
        torch.autograd.backward(loss_of(student, supervision))
    learned = {name for name, each in student.named_parameters() if each.grad is not None and each.grad.any()}
    assert any("layer.1.attention.self.query" in name for name in learned)
    assert not any("layer.1.output" in name for name in learned)


def test_relation_heads_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    config = DistillationConfig(relations=1.0, relation_heads=3)
    with (
        pytest.raises(MethodError, match=r"relation_heads 3 does not divide.*divisors of 16"),
        taught_by(tiny.model(layers=2), teacher(), config, tmp_path),
    ):
        pass


def test_frozen_layers_alone_may_be_compared(tmp_path: Path) -> None:
    """As a step of Theseus may draw them: their loss has no gradient, and the step must not fail."""
    student = tiny.model(layers=2)
    student.base_model.requires_grad_(False)
    config = DistillationConfig(task=0.0, logits=0.0, hidden=1.0)
    with taught_by(student, teacher(), config, tmp_path) as supervision:
        torch.autograd.backward(loss_of(student, supervision))
    assert student.classifier.weight.grad is not None
    assert not student.classifier.weight.grad.any()


@pytest.mark.parametrize("idle", [0, 1])
def test_a_layer_that_does_not_run_is_not_compared(idle: int, tmp_path: Path) -> None:
    """As in a step of module replacing that draws its predecessor."""
    student, master = tiny.model(layers=2, seed=5), teacher()
    layers = list(layers_of(student))
    layers[idle] = copy.deepcopy(layers[idle])  # not part of the student, so that nothing runs it

    def value(which: list[nn.Module], **changes: Any) -> float:
        config = DistillationConfig(**{"task": 0.0, "logits": 0.0, "cache": "none", **changes})
        with taught_by(student, master, config, tmp_path, layers=which) as supervision:
            return loss_of(student, supervision).item()

    pairs = [(0, 1), (1, 3)]
    other = value(list(layers_of(student)), hidden=1.0, layer_map=[pairs[1 - idle]])
    assert value(layers, hidden=1.0, layer_map=pairs) == pytest.approx(other / 2)  # the weight of a pair stays
    cosine = value(list(layers_of(student)), cosine=1.0)
    assert value(layers, cosine=1.0) == (0.0 if idle == 1 else pytest.approx(cosine))
    assert value(list(layers_of(student)), relations=1.0) > 0
    assert value(layers, relations=1.0) == 0.0  # they follow from the input of the last layer, and so from all layers


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
def test_every_architecture_teaches_and_learns(kind: str, tmp_path: Path) -> None:
    model = tiny.model(kind)
    student = rebuild(model, [(0,), (3,)]).train()
    config = DistillationConfig(relations=1.0, hidden=1.0, cosine=1.0)
    with taught_by(student, teacher(copy.deepcopy(model)), config, tmp_path) as supervision:
        loss = loss_of(student, supervision)
        torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    learned = {id(each) for each in student.parameters() if each.grad is not None and each.grad.any()}
    for layer in layers_of(student):
        projections = {linear for linear, _, _ in query_key_value_of(student, layer)}
        assert all(id(linear.weight) in learned for linear in projections)


def test_a_model_taught_by_itself_has_nothing_to_learn(tmp_path: Path) -> None:
    model = tiny.model()
    student = copy.deepcopy(model)
    config = DistillationConfig(task=0.0, relations=1.0, hidden=1.0, cosine=1.0, cache="none")
    with taught_by(student, teacher(model), config, tmp_path) as supervision:
        assert loss_of(student, supervision).item() == pytest.approx(0, abs=1e-6)


def test_the_log_of_a_teacher_that_runs_at_every_step(tmp_path: Path) -> None:
    config = DistillationConfig(logits=0.0, hidden=1.0, relations=2.0)
    with taught_by(tiny.model(layers=2), teacher(), config, tmp_path) as supervision:
        assert supervision.online_model is not None
        assert not supervision.needs_example_numbers
        assert log_of(supervision) == {
            "source": "input",
            "weights": {"task": 0.5, "hidden": 1.0, "relations": 2.0},
            "asked": "at every step",
            "hidden_layers": [[0, 1], [1, 3]],
            "relation_layers": [1, 3],
            "relation_heads": 2,
        }


def test_the_log_of_a_teacher_that_runs_once(tmp_path: Path) -> None:
    with taught_by(tiny.model(layers=2), teacher(), DistillationConfig(), tmp_path) as supervision:
        assert supervision.online_model is None
        assert supervision.needs_example_numbers
        log = log_of(supervision)
    assert 0 < log.pop("seconds") < 60
    expected = {"source": "input", "weights": {"task": 0.5, "logits": 0.5}, "asked": "once", "examples": 24}
    assert log == expected
