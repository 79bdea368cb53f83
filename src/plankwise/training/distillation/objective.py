"""A teacher's lesson: what `fit` minimizes in the place of the task's own loss, and the hooks that it needs.

A teacher is asked at every step or, where the settings allow it, once beforehand (`teacher_cache.py`). Learned
projections, for widths that differ, belong to the student while it trains, so that checkpoints hold them; they and all
hooks are gone afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plankwise.core.errors import MethodError
from plankwise.core.seeds import mix_seed
from plankwise.data.batching.examples import Example
from plankwise.data.batching.inputs import model_inputs
from plankwise.data.batching.pooling import pool
from plankwise.data.task import Kind
from plankwise.data.truncation import Pooling
from plankwise.training.distillation.activations import ActivationRecorder, Depth, deliver_with_outputs, depths_of
from plankwise.training.distillation.cached_teacher import CachedTeacher, cached_teacher
from plankwise.training.distillation.config import (
    WEIGHTS,
    DistillationConfig,
    Pair,
    check_layers,
    hidden_pairs,
    relation_pair,
)
from plankwise.training.distillation.losses import cosine_loss, hidden_loss, logits_loss, relation_loss
from plankwise.training.distillation.teacher import Teacher
from plankwise.training.objectives.losses import Loss

PROJECTIONS = "distillation"


@dataclass(frozen=True)
class Subject:
    """What is taught.

    Attributes:
        kind: of the task.
        loss: of the task itself.
        pooling: of windows; the loss made here sees the student's logits pooled already.
        examples: encoded for the teacher, in the order of their numbers; `None` on a corpus.
        cache: folder for the teacher's answers.
        seed: of projections.
        bf16: whether a teacher asked at every step runs in bf16, as the student does.
    """

    kind: Kind
    loss: Loss
    pooling: Pooling | None
    examples: Sequence[Example] | None
    cache: Path
    seed: int
    bf16: bool = False


@dataclass(frozen=True)
class Lesson:
    """What a training needs to know of a teacher.

    Attributes:
        loss: to minimize.
        asked: the teacher where it is asked at every step; on a corpus its head has to see what the student's sees.
        numbered: whether the loss wants each example's number, as `example`.
        about: for the record.
    """

    loss: Loss
    asked: PreTrainedModel | None = None
    numbered: bool = False
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Which layers are compared, and how."""

    hidden: list[Pair]
    last: Pair | None
    relations: Pair | None
    heads: int = 1

    def depths(self, side: int) -> list[int]:
        """List the depths whose hidden states are wanted, of the student (0) or the teacher (1)."""
        return [pair[side] for pair in (*self.hidden, *([self.last] if self.last else []))]


@contextmanager
def lesson(
    student: PreTrainedModel, depths: Sequence[Depth], expert: Teacher, teacher: DistillationConfig, subject: Subject
) -> Iterator[Lesson]:
    """Let `expert` teach `student` while the context lasts.

    Args:
        student: the network that trains.
        depths: its depths.
        expert: the teacher.
        teacher: settings.
        subject: what is taught.

    Raises:
        MethodError: if layers, widths or heads do not allow what is asked.
    """
    plan, own = _plan(teacher, len(depths), len(depths_of(expert.model))), depths_of(expert.model)
    recorders = [
        ActivationRecorder(model, places, plan.depths(side), None if plan.relations is None else plan.relations[side])
        for side, (model, places) in enumerate(((student, depths), (expert.model, own)))
    ]
    plan = _with_heads(plan, teacher, expert, recorders)
    once = subject.examples is not None and teacher.runs_once
    answers = None
    if once:
        layers = plan.depths(1) if teacher.cache == "hidden" else []
        answers = cached_teacher(expert, subject.examples or [], layers, subject.pooling, subject.cache)
    with ExitStack() as stack:
        if teacher.compares_insides:
            projections = stack.enter_context(_projections(student, expert.model, plan, subject.seed))
            heard = stack.enter_context(recorders[0].on())
            handle = deliver_with_outputs(student, lambda: _heard(heard, plan, projections))
            stack.callback(handle.remove)
        if not once:
            stack.enter_context(recorders[1].on())
        source: CachedTeacher | OnlineTeacher = answers or OnlineTeacher(expert.model, recorders[1], plan, subject)
        asked = None if once else expert.model
        yield Lesson(_Loss(teacher, subject, plan, source), asked, once, _about(teacher, expert, plan, answers))


def _plan(teacher: DistillationConfig, student_depth: int, teacher_depth: int) -> Plan:
    check_layers(teacher, student_depth, teacher_depth)
    return Plan(
        hidden_pairs(teacher, student_depth, teacher_depth),
        (student_depth - 1, teacher_depth - 1) if teacher.cosine else None,
        relation_pair(teacher, student_depth, teacher_depth),
    )


def _with_heads(
    plan: Plan, teacher: DistillationConfig, expert: Teacher, recorders: Sequence[ActivationRecorder]
) -> Plan:
    """Settle the relation heads: those asked for, or as many of the teacher's as divide every width."""
    if plan.relations is None:
        return plan
    for recorder, layer, whose in zip(recorders, plan.relations, ("student", "teacher"), strict=True):
        if not recorder.widths():
            raise MethodError(f"relation_layers {list(plan.relations)}: the {whose}'s layer {layer} has no heads left")
    widths = [width for recorder in recorders for width in recorder.widths()]
    heads = teacher.relation_heads or math.gcd(int(expert.model.config.num_attention_heads), *widths)
    if any(width % heads for width in widths):
        named = ", ".join(str(width) for width in sorted(set(widths)))
        raise MethodError(
            f"relation_heads {heads} does not divide all widths of queries, keys and values ({named}); "
            f"allowed: divisors of {math.gcd(*widths)}"
        )
    return Plan(plan.hidden, plan.last, plan.relations, heads)


@contextmanager
def _projections(student: PreTrainedModel, expert: PreTrainedModel, plan: Plan, seed: int) -> Iterator[nn.ModuleList]:
    """Give the student a learned projection to the teacher's width for each pair compared, if the widths differ."""
    narrow, wide = int(student.config.hidden_size), int(expert.config.hidden_size)
    made = nn.ModuleList()
    if narrow != wide:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix_seed(seed, "distillation", "projections"))
            made.extend(nn.Linear(narrow, wide, bias=False) for _ in plan.depths(0))
    if not len(made):
        yield made
        return
    student.add_module(PROJECTIONS, made.to(student.device))
    try:
        yield made
    finally:
        delattr(student, PROJECTIONS)


def _heard(recorder: ActivationRecorder, plan: Plan, projections: nn.ModuleList) -> Iterator[Tensor]:
    """Give what the student has to show, in one row: hidden states, projected, then queries, keys and values."""
    for at, depth in enumerate(plan.depths(0)):
        states = recorder.hidden(depth)
        yield projections[at](states.float()) if len(projections) else states
    if plan.relations is not None:
        yield from recorder.query_key_value()


class OnlineTeacher:
    """A teacher that runs at every step."""

    def __init__(self, model: PreTrainedModel, recorder: ActivationRecorder, plan: Plan, subject: Subject) -> None:
        self._model, self.recorder, self._plan, self._subject = model, recorder, plan, subject

    def logits_and_hidden(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[int, Tensor]]:
        """Run the teacher on a batch."""
        inputs = model_inputs(self._model, batch)
        device = batch["input_ids"].device.type
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=self._subject.bf16):
            logits: Tensor = self._model(**inputs).logits.float()
        if self._subject.pooling is not None:
            logits = pool(logits, batch["window_of"], self._subject.pooling)
        return logits, {depth: self.recorder.hidden(depth) for depth in self._plan.depths(1)}


class _Loss:
    """The weighted sum of the task's loss and those against the teacher."""

    def __init__(
        self, teacher: DistillationConfig, subject: Subject, plan: Plan, source: CachedTeacher | OnlineTeacher
    ) -> None:
        self._teacher, self._subject, self._plan, self._source = teacher, subject, plan, source

    def __call__(self, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Compute the loss of one batch."""
        teacher, plan = self._teacher, self._plan
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
        logits, states = self._answers(batch, mask)
        total: Tensor = outputs.logits.new_zeros((), dtype=torch.float32)
        if teacher.task:
            total = total + teacher.task * self._subject.loss(outputs, batch)
        if teacher.logits:
            difference = logits_loss(outputs.logits, logits, self._subject.kind, teacher.temperature, teacher.form)
            total = total + teacher.logits * difference
        if teacher.compares_insides:
            total = total + self._inside(outputs.hidden_states, states, mask)
        if plan.depths(0) or plan.relations:
            # Where every layer compared is a frozen one, as a step of Theseus may draw it, there is no other gradient.
            total = total + 0.0 * outputs.logits.float().sum()
        return total

    def _answers(self, batch: Mapping[str, Tensor], mask: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        if isinstance(self._source, OnlineTeacher):
            return self._source.logits_and_hidden(batch)
        states = self._source.hidden_of(batch["example"], mask) if self._source.layers else {}
        return self._source.logits_of(batch["example"]), states

    def _inside(self, heard: Sequence[Tensor], states: Mapping[int, Tensor], mask: Tensor) -> Tensor:
        """Compare hidden states, the last of them by their angle, and relations."""
        teacher, plan, compared = self._teacher, self._plan, len(self._plan.hidden)
        total = torch.zeros((), device=mask.device)
        if compared:
            pairs = zip(heard[:compared], plan.hidden, strict=True)
            errors = [hidden_loss(mine, states[theirs], mask) for mine, (_, theirs) in pairs]
            total = total + teacher.hidden * torch.stack(errors).mean()
        if plan.last is not None:
            total = total + teacher.cosine * cosine_loss(heard[compared], states[plan.last[1]], mask)
        if plan.relations is not None:
            assert isinstance(self._source, OnlineTeacher)
            theirs = self._source.recorder.query_key_value()
            total = total + teacher.relations * relation_loss(heard[-3:], theirs, mask, plan.heads)
        return total


def _about(teacher: DistillationConfig, expert: Teacher, plan: Plan, answers: CachedTeacher | None) -> dict[str, Any]:
    about: dict[str, Any] = {
        "source": expert.name,
        "weights": {name: getattr(teacher, name) for name in WEIGHTS if getattr(teacher, name)},
        "asked": "at every step" if answers is None else "once",
    }
    if plan.hidden:
        about["hidden_layers"] = [list(pair) for pair in plan.hidden]
    if plan.relations is not None:
        about |= {"relation_layers": list(plan.relations), "relation_heads": plan.heads}
    if answers is not None:
        about |= {"seconds": answers.seconds, "examples": len(answers.logits)}
    return about
