"""Learned pruning: gates on heads, neurons and whole sublayers learn together with the weights, then are cut for real.

Xia, Zhong, Chen 2022, "Structured Pruning Learns Compact and Accurate Models" (CoFi), arXiv 2204.00408. A price on the
expected number of operations, set by two multipliers that learn too, drives the model to its target, which rises over
the first steps. What stays is then chosen under the exact budget, cut out, and fine-tuned for the other steps. Where
`pruning` decides once, from gradients, here weights and gates adapt to each other while the decision is made.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
import torch
from transformers import PreTrainedModel

from plankwise.core.errors import MethodError
from plankwise.core.numbers import Bounds, Factor, LessThanAll, Share, Width
from plankwise.core.recipe import settings
from plankwise.core.seeds import mix_seed
from plankwise.core.step_log import TrainingLog
from plankwise.encoder.gates import fold, gated_per_call
from plankwise.encoder.low_rank import has_low_rank
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.shapes import prune
from plankwise.methods.cost_table import flops_costs
from plankwise.methods.hard_concrete import Kind, LearnedGates
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, StepLog, planned
from plankwise.methods.pruning import sizes_of
from plankwise.methods.selection import cut_evenly
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training
from plankwise.training.on_task import train_on_task

GATES = "learned_gates"  # name of the gates' module in the network while it trains


class LearnedPruningLog(StepLog):
    """What learned pruning did.

    Attributes:
        search: the training of weights and gates; `training` holds the steps of both parts.
        pruning: operations before and after, the share that the gates expected, and each layer's heads and neurons.
    """

    search: TrainingLog
    pruning: Mapping[str, Any]


@settings
class LearnedPruning(Method):
    """Settings of learned pruning.

    Attributes:
        target: how many times fewer operations the linear layers of all Transformer layers need in the end.
        gates: which kind learns what stays.
        search: share of the steps in which gates learn; the rest fine-tunes what they left.
        warmup: share of all steps over which the target rises to the full one; part of the search.
        gate_learning_rate: peak rate of the gates; it follows the training's schedule.
        neuron_step: neurons stay in multiples of this, or all of a layer's.
        teacher: what is learned from a larger model beside the task, in both parts.
        training: of both parts; each warms up and cools down by itself.
    """

    method: Literal["learned_pruning"] = "learned_pruning"
    target: Factor = 2.0
    gates: Kind = "hard_concrete"
    search: Share = 0.6
    warmup: LessThanAll = 0.3
    gate_learning_rate: Annotated[float, Bounds(1e-12, 100.0, "the first step would decide")] = 0.05
    neuron_step: Width = 8
    teacher: DistillationConfig | None = None
    training: Training = Training()

    @pydantic.model_validator(mode="after")
    def _target_is_full_before_the_end(self) -> LearnedPruning:
        if self.warmup > self.search:
            raise ValueError(f"warmup {self.warmup} ends behind the search; allowed: up to {self.search}")
        return self

    @pydantic.model_validator(mode="after")
    def _heads_may_go(self) -> LearnedPruning:
        if self.teacher is not None and self.teacher.relations:
            raise ValueError("relations need heads in the last layer, and gates may shut all; allowed: 0")
        return self

    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Plan a model cut evenly; which layers lose how much, only training can say.

        Raises:
            MethodError: if the model's feed-forward layers are low-rank.
        """
        refuse_quantized(spec.config)
        if has_low_rank(spec.config, "feed_forward"):
            raise MethodError("learned_pruning cannot cut low-rank layers; put low_rank after it")
        return planned(self, spec, cut_evenly(spec.config, 1 / self.target))

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Train weights and gates, cut out what they left shut, and fine-tune the rest."""
        costs = flops_costs(model)
        budget = costs.full() / self.target
        if costs.fixed >= budget:
            raise MethodError(f"target {self.target:g} cannot be met: too much of the model is no head and no neuron")
        network = copy.deepcopy(model).requires_grad_(True)
        gates = LearnedGates(costs, self.gates, self.gate_learning_rate / self.training.learning_rate)
        network.add_module(GATES, gates.to(model.device))
        search = self._search(network, gates, model, job)
        kept = gates.choose(costs, budget, self.neuron_step)
        delattr(network, GATES)
        smaller = prune(network, kept.heads, kept.neurons)
        fold(smaller, gates.settled(kept))
        with torch.no_grad():
            cut = {**sizes_of(model, smaller), "expected_share": float(gates.expected_share())}
        tuned = self._tune(smaller, model, job)
        assert search.training is not None
        both = {**dict(tuned), "training": _both(search.training, tuned.training)}
        return Compressed(smaller.eval(), job.tokenizer, LearnedPruningLog(**both, search=search.training, pruning=cut))

    def _search(self, network: PreTrainedModel, gates: LearnedGates, model: PreTrainedModel, job: Job) -> StepLog:
        """Train weights and gates; the last weights count, since earlier ones never cost as little."""
        part = dataclasses.replace(
            self.training, epochs=self.training.epochs * self.search, keep="last", early_stopping_patience=None
        )

        def add_price(step: int, total: int) -> None:
            """Put the price's gradient where that of the step's batches will be added."""
            torch.autograd.backward(gates.price(self.goal(self.search * step / total, gates.first_share)))

        with gated_per_call(network, gates.factors):
            return train_on_task(network, job, part, "search", on_step=add_price, teacher=self.teacher, given=model)

    def goal(self, progress: float, first_share: float = 1.0) -> float:
        """Give the share of the operations that may be left after a share of all steps: from the first to 1/target."""
        risen = 1.0 if progress >= self.warmup else progress / self.warmup
        return first_share - risen * (first_share - 1.0 / self.target)

    def _tune(self, smaller: PreTrainedModel, model: PreTrainedModel, job: Job) -> StepLog:
        part = dataclasses.replace(self.training, epochs=self.training.epochs * (1 - self.search))
        seed = mix_seed(job.seed, "learned_pruning", "tuning")
        own = dataclasses.replace(job, folder=job.folder / "tuning", seed=seed)
        return train_on_task(smaller, own, part, "tuning", teacher=self.teacher, given=model)


def _both(search: TrainingLog, tuning: TrainingLog | None) -> TrainingLog:
    """Add the search's steps and seconds to the training that followed; scores are those of the cut model."""
    assert tuning is not None
    return TrainingLog(
        steps=search.steps + tuning.steps,
        planned_steps=search.planned_steps + tuning.planned_steps,
        train_seconds=search.train_seconds + tuning.train_seconds,
        best_step=search.steps + tuning.best_step,
        history=[{**each, "step": search.steps + each["step"]} for each in tuning.history],
        precision=tuning.precision,
    )
