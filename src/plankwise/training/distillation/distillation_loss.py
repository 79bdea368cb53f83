"""The loss of a training with a teacher, and the hooks and projections that it needs.

The teacher runs at every step or, where the settings allow it, once before training (`cached_teacher.py`). Where
student and teacher differ in width, learned projections are part of the student while it trains, so that checkpoints
hold them. Projections and hooks are removed afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plankwise.core.seeds import mix_seed
from plankwise.data.batching.examples import Example
from plankwise.data.truncation import Pooling
from plankwise.encoder.anatomy import layers_of
from plankwise.training.distillation.activations import ActivationRecorder, add_to_outputs
from plankwise.training.distillation.cached_teacher import CachedTeacher, cached_teacher
from plankwise.training.distillation.config import WEIGHTS, DistillationConfig
from plankwise.training.distillation.layer_mapping import LayerMapping, map_layers, with_relation_heads
from plankwise.training.distillation.losses import LogitsLoss, cosine_loss, hidden_loss, relation_loss
from plankwise.training.distillation.online_teacher import OnlineTeacher, TargetSource, TeacherTargets
from plankwise.training.distillation.teacher import Teacher
from plankwise.training.objectives.losses import Loss

PROJECTIONS = "distillation"  # name of the projections' module in the student while it trains


@dataclass(frozen=True)
class TeacherLog:
    """The record's entry on a teacher; `None` where a field does not apply.

    Attributes:
        source: the teacher's name.
        weights: of the losses that are not 0, by name.
        asked: when the teacher runs.
        hidden_layers: pairs [student, teacher] with compared hidden states.
        relation_layers: the pair [student, teacher] with compared relations.
        relation_heads: heads of these relations.
        seconds: that it took to compute the targets before training, whenever that was.
        examples: number of texts with such targets.
    """

    source: str
    weights: dict[str, float]
    asked: Literal["once", "at every step"]
    hidden_layers: list[list[int]] | None = None
    relation_layers: list[int] | None = None
    relation_heads: int | None = None
    seconds: float | None = None
    examples: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document of the record, without what does not apply."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Supervision:
    """What a training learns from.

    Attributes:
        loss: `(outputs, batch) -> scalar`, to minimize.
        online_model: the teacher if it runs at every step; on a corpus its head has to see the same masked positions as
            the student's.
        needs_example_numbers: whether batches have to hold each example's number, as `example`.
        log: of the teacher, if there is one.
    """

    loss: Loss
    online_model: PreTrainedModel | None = None
    needs_example_numbers: bool = False
    log: TeacherLog | None = None


@contextmanager
def distillation(
    student: PreTrainedModel,
    layers: Sequence[nn.Module],
    teacher: Teacher,
    config: DistillationConfig,
    *,
    task_loss: Loss,
    logits_loss: LogitsLoss,
    examples: Sequence[Example] | None,
    pooling: Pooling | None,
    cache: Path,
    seed: int,
    bf16: bool = False,
) -> Iterator[Supervision]:
    """Let `student` learn from `teacher` while the context lasts.

    Args:
        student: the network to train.
        layers: of it that are compared with the teacher's; in each step those of them that run.
        teacher: the teacher.
        config: settings.
        task_loss: the loss of the task itself.
        logits_loss: compares logits, as the task's objective wants it.
        examples: encoded for the teacher, in the order of their numbers; `None` on a corpus, where masks change.
        pooling: of windows; the loss made here expects the student's logits to be pooled already.
        cache: folder of all targets that are kept on disk.
        seed: of projections.
        bf16: whether a teacher that runs at every step runs in bf16 autocast, as the student does.

    Raises:
        MethodError: if layers, widths or heads do not allow what `config` compares.
    """
    mapping, mine, theirs = _recorders(student, layers, teacher.model, config)
    cached = None
    if examples is not None and config.runs_once:
        cached = cached_teacher(teacher, examples, mapping.layers(1), pooling, cache=cache)
    source = cached or OnlineTeacher(teacher.model, theirs, mapping, pooling=pooling, bf16=bf16)
    with ExitStack() as stack:
        if config.compares_layers:
            stack.enter_context(_student_outputs(student, teacher.model, mine, mapping, seed=seed))
        if cached is None:
            stack.enter_context(theirs.on())
        yield Supervision(
            DistillationLoss(config, mapping, source, task_loss=task_loss, logits_loss=logits_loss),
            online_model=teacher.model if cached is None else None,
            needs_example_numbers=cached is not None,
            log=_log(config, teacher, mapping, cached),
        )


def _recorders(
    student: PreTrainedModel, layers: Sequence[nn.Module], teacher: PreTrainedModel, config: DistillationConfig
) -> tuple[LayerMapping, ActivationRecorder, ActivationRecorder]:
    """Return the layers to compare and the recorders of student and teacher, which are off."""
    own = list(layers_of(teacher))
    mapping = map_layers(config, len(layers), len(own))
    at = mapping.relations or (None, None)
    mine = ActivationRecorder(student, layers, mapping.layers(0), at[0])
    theirs = ActivationRecorder(teacher, own, mapping.layers(1), at[1])
    heads = int(teacher.config.num_attention_heads)
    return with_relation_heads(mapping, config, mine.widths(), theirs.widths(), teacher_heads=heads), mine, theirs


class DistillationLoss:
    """The weighted sum of the task's loss and those against the teacher.

    Args:
        config: the weights.
        mapping: the layers compared.
        source: of the teacher's targets.
        task_loss: the loss of the task itself.
        logits_loss: compares logits.
    """

    def __init__(
        self,
        config: DistillationConfig,
        mapping: LayerMapping,
        source: TargetSource,
        *,
        task_loss: Loss,
        logits_loss: LogitsLoss,
    ) -> None:
        self._config, self._mapping, self._source = config, mapping, source
        self._task_loss, self._logits_loss = task_loss, logits_loss

    def __call__(self, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Compute the loss of one batch, a scalar."""
        config = self._config
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
        targets = self._source.targets(batch, mask)
        total: Tensor = outputs.logits.new_zeros((), dtype=torch.float32)
        if config.task:
            total = total + config.task * self._task_loss(outputs, batch)
        if config.logits:
            difference = self._logits_loss(outputs.logits, targets.logits, config.temperature, config.form)
            total = total + config.logits * difference
        if config.compares_layers:
            total = total + self._layers(outputs.hidden_states, targets, mask)
            # A step of module replacing may run no layer that is compared; without this there would be no gradient.
            total = total + 0.0 * outputs.logits.float().sum()
        return total

    def _layers(self, student: Sequence[Tensor | None], targets: TeacherTargets, mask: Tensor) -> Tensor:
        """Compare the tensors that `_student_outputs` added, in their order; `None` is a layer that did not run.

        Hidden states are averaged over all pairs of the map, not over those that ran: a layer then learns from its
        teacher with the same weight in every step in which it runs, whichever other layers do.
        """
        config, mapping, compared = self._config, self._mapping, len(self._mapping.hidden)
        total = torch.zeros((), device=mask.device)
        for mine, (_, theirs) in zip(student[:compared], mapping.hidden, strict=True):
            if mine is not None:
                total = total + config.hidden * hidden_loss(mine, targets.hidden[theirs], mask) / compared
        if mapping.cosine is not None and (last := student[compared]) is not None:
            total = total + config.cosine * cosine_loss(last, targets.hidden[mapping.cosine[1]], mask)
        query_key_value = [] if mapping.relations is None else [each for each in student[-3:] if each is not None]
        if query_key_value:
            relations = relation_loss(query_key_value, targets.query_key_value, mask, mapping.relation_heads)
            total = total + config.relations * relations
        return total


@contextmanager
def _student_outputs(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    recorder: ActivationRecorder,
    mapping: LayerMapping,
    *,
    seed: int,
) -> Iterator[None]:
    """Make the student's outputs carry what is compared: hidden states, projected, then queries, keys and values.

    A layer that did not run is `None` there. Module replacing draws alike in all processes, so they agree on that, and
    `DistributedDataParallel` finds the same parameters unused in each.
    """

    def tensors() -> Iterator[Tensor | None]:
        for at, layer in enumerate(mapping.layers(0)):
            if not recorder.has_hidden(layer):
                yield None
                continue
            states = recorder.hidden(layer)
            # fp32, since hidden states may be bf16 and projections are not.
            yield projections[at](states.float()) if len(projections) else states
        if mapping.relations is not None:
            yield from recorder.query_key_value() if recorder.has_query_key_value() else [None] * 3

    with _projections(student, teacher, len(mapping.states), seed) as projections, recorder.on():
        handle = add_to_outputs(student, tensors)
        try:
            yield
        finally:
            handle.remove()


@contextmanager
def _projections(student: PreTrainedModel, teacher: PreTrainedModel, count: int, seed: int) -> Iterator[nn.ModuleList]:
    """Add learned projections to the teacher's width to the student, one for each pair, if the widths differ."""
    narrow, wide = int(student.config.hidden_size), int(teacher.config.hidden_size)
    projections = nn.ModuleList()
    if narrow == wide or not count:
        yield projections
        return
    # The student's own randomness must not depend on whether there are projections.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seed(seed, "distillation", "projections"))
        projections.extend(nn.Linear(narrow, wide, bias=False) for _ in range(count))
    student.add_module(PROJECTIONS, projections.to(student.device))
    try:
        yield projections
    finally:
        delattr(student, PROJECTIONS)


def _log(
    config: DistillationConfig, teacher: Teacher, mapping: LayerMapping, cached: CachedTeacher | None
) -> TeacherLog:
    relations = mapping.relations
    return TeacherLog(
        source=teacher.name,
        weights={name: getattr(config, name) for name in WEIGHTS if getattr(config, name)},
        asked="at every step" if cached is None else "once",
        hidden_layers=[list(pair) for pair in mapping.hidden] or None,
        relation_layers=None if relations is None else list(relations),
        relation_heads=None if relations is None else mapping.relation_heads,
        seconds=None if cached is None else cached.seconds,
        examples=None if cached is None else len(cached.logits),
    )
