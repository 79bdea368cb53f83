"""Unstructured pruning: single weights become zero, more of them step by step, while the others are trained.

Zhu & Gupta 2017, "To prune, or not to prune", arXiv 1710.01878, for the gradual schedule (their equation 1) and for
magnitude as the importance; Sanh, Wolf & Rush 2020, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", arXiv
2005.07683, for learned scores: they drop the weights that training moves towards zero, however large these were.

The result is a dense model that contains zeros. Only its compressed file is smaller; it is not faster.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal

import pydantic
from transformers import PreTrainedModel

from plankwise.core.numbers import LessThanAll, Share, UpToAll
from plankwise.core.recipe import settings
from plankwise.core.schedules import Schedule, cubic
from plankwise.encoder.anatomy import anatomy_of
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.sparsity import Masks, matrices_of, sparsity_of
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, StepLog, planned
from plankwise.training.distillation.config import DistillationConfig, check_taught
from plankwise.training.fit import Training
from plankwise.training.on_task import train_on_task


class UnstructuredLog(StepLog):
    """What unstructured pruning did; `sparsity` is the share of zeros in each part."""

    sparsity: Mapping[str, float]


@settings
class Unstructured(Method):
    """Settings of unstructured pruning.

    Attributes:
        sparsity: share of zeros at the end among the weights of the linear layers in all Transformer layers.
        importance: a weight's `magnitude`, or its `movement`, which a learned score accumulates.
        scope: whether weights are ranked over all matrices together (`global`) or within each linear layer (`layer`).
        schedule: `cubic` raises the sparsity gradually, `one_shot` sets it before the first step.
        start: share of the steps at which `cubic` begins.
        end: share of the steps at which `cubic` reaches `sparsity`; the other steps train the remaining weights.
        embeddings: whether the table of word embeddings is pruned, too, ranked and counted like one more matrix.
        teacher: what training learns from, besides the task.
        training: of the whole model; null prunes in one shot and trains nothing.
    """

    method: Literal["unstructured"] = "unstructured"
    sparsity: Share = 0.5
    importance: Literal["magnitude", "movement"] = "magnitude"
    scope: Literal["global", "layer"] = "global"
    schedule: Literal["cubic", "one_shot"] = "cubic"
    start: LessThanAll = 0.1
    end: UpToAll = 0.7
    embeddings: bool = False
    teacher: DistillationConfig | None = None
    training: Training | None = Training()

    @pydantic.model_validator(mode="after")
    def _can_be_done(self) -> Unstructured:
        if self.start >= self.end:
            raise ValueError(f"start {self.start} is not before end {self.end}")
        if self.importance == "movement" and self.schedule == "one_shot":
            raise ValueError("importance 'movement' is learned in training; allowed with it: schedule 'cubic'")
        if self.training is None and self.schedule == "cubic":
            raise ValueError("training null leaves no steps to a schedule 'cubic'; allowed with it: 'one_shot'")
        check_taught(self.teacher, self.training)
        return self

    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Plan the sparse model; its configuration is that of the dense one."""
        anatomy_of(spec.config)
        refuse_quantized(spec.config)
        return planned(self, spec, copy.deepcopy(spec.config))

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Train a copy with masks that grow by the schedule, and write the zeros into its weights at the end."""
        log, sparse = StepLog(), copy.deepcopy(model).requires_grad_(True)
        matrices = matrices_of(sparse, self.embeddings)
        masks = Masks(sparse, matrices, self.importance == "movement", self.scope == "global")
        if self.training is not None:
            # Only weights of the final sparsity may be selected: less sparse ones score better by being less sparse.
            full_at = self.end if self.schedule == "cubic" else 0.0
            sparsify = Sparsifying(masks, self._schedule(), self.sparsity, full_at)
            log = train_on_task(
                sparse,
                job,
                self.training,
                "unstructured",
                on_step=sparsify,
                select_from=full_at,
                teacher=self.teacher,
                given=model,
            )
        masks.remove(self.sparsity)  # with the masks that the selected weights were evaluated with
        whole = UnstructuredLog(**dict(log), sparsity=sparsity_of(matrices))
        return Compressed(sparse.eval(), job.tokenizer, whole)

    def _schedule(self) -> Schedule:
        if self.schedule == "cubic":
            return cubic(self.sparsity, self.start, self.end)
        return lambda progress: self.sparsity


class Sparsifying:
    """Sets the masks before each step, from the step and the current weights or scores alone.

    It has no state of its own, so a run that is resumed sets the same masks.
    """

    def __init__(self, masks: Masks, schedule: Schedule, sparsity: float, full_at: float) -> None:
        self._masks, self._schedule, self._sparsity, self._full_at = masks, schedule, sparsity, full_at

    def __call__(self, step: int, total: int) -> None:
        """Set the masks of this step, and those with which the model is evaluated after it."""
        selectable = step + 1 >= self._full_at * total
        after = self._sparsity if selectable else self._schedule((step + 1) / total)
        self._masks.set(self._schedule(step / total), then=after)
