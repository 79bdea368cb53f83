"""Learned pruning: gates on heads, neurons and whole sublayers learn together with the weights, then are cut for real.

Xia, Zhong, Chen 2022, "Structured Pruning Learns Compact and Accurate Models" (CoFi), arXiv 2204.00408. A penalty
on the expected number of operations, with two multipliers that learn too, drives the model to its target, which rises
over the first steps. Heads and neurons are then selected under the exact budget, the others are cut out, and the
remaining steps fine-tune the result. `pruning` decides once, from gradients; here weights and gates adapt to each other
while the decision is made.
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
from plankwise.methods.hard_concrete import GateKind, LearnedGates
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, StepLog, planned
from plankwise.methods.selection import cut_evenly, cut_summary
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training
from plankwise.training.on_task import train_on_task

GATES = "learned_gates"  # name of the gates' module in the network that trains, hence in its checkpoints


class LearnedPruningLog(StepLog):
    """What learned pruning did.

    Attributes:
        search: the training of weights and gates; `training` covers the steps of both parts.
        pruning: operations before and after, the gates' expected share of them, and each layer's heads and neurons.
    """

    search: TrainingLog
    pruning: Mapping[str, Any]


@settings
class LearnedPruning(Method):
    """Settings of learned pruning.

    Attributes:
        target: how many times fewer operations the linear layers of all Transformer layers need at the end.
        gates: kind of the gates.
        search: share of the steps in which gates learn; the other steps fine-tune the pruned model.
        warmup: share of all steps over which the target rises to its full value; part of the search.
        gate_learning_rate: peak rate of the gates; it follows the training's schedule.
        neuron_step: each layer keeps a multiple of this many neurons, or all of them.
        teacher: what both parts learn from a larger model, beside the task.
        training: of both parts; each has its own warm-up and decay.
    """

    method: Literal["learned_pruning"] = "learned_pruning"
    target: Factor = 2.0
    gates: GateKind = "hard_concrete"
    search: Share = 0.6
    warmup: LessThanAll = 0.3
    gate_learning_rate: Annotated[float, Bounds(1e-12, 100.0, "the first step would decide")] = 0.05
    neuron_step: Width = 8
    teacher: DistillationConfig | None = None
    training: Training = Training()

    @pydantic.model_validator(mode="after")
    def _target_is_full_before_the_end(self) -> LearnedPruning:
        if self.warmup > self.search:
            raise ValueError(f"warmup {self.warmup} ends after the search; allowed: up to {self.search}")
        return self

    @pydantic.model_validator(mode="after")
    def _heads_may_go(self) -> LearnedPruning:
        if self.teacher is not None and self.teacher.relations:
            raise ValueError("relations need heads in the last layer, and gates may close all of them; allowed: 0")
        return self

    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Plan a model that is cut evenly; only training decides how much each layer loses.

        Raises:
            MethodError: if the model's feed-forward layers are low-rank.
        """
        refuse_quantized(spec.config)
        if has_low_rank(spec.config, "feed_forward"):
            raise MethodError("learned_pruning cannot cut low-rank layers; put low_rank after it")
        return planned(self, spec, cut_evenly(spec.config, 1 / self.target))

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Train weights and gates, cut out what the gates closed, and fine-tune the rest.

        Raises:
            MethodError: if the target is out of reach even without heads and neurons.
        """
        costs = flops_costs(model)
        budget = costs.full() / self.target
        if costs.fixed >= budget:
            raise MethodError(f"target {self.target:g} cannot be met: heads and neurons are too little of the model")
        # Gates are a submodule of the network, so optimizer and checkpoints treat them like its weights.
        network = copy.deepcopy(model).requires_grad_(True)
        gates = LearnedGates(costs, self.gates, self.gate_learning_rate / self.training.learning_rate)
        network.add_module(GATES, gates.to(model.device))
        search = self._search(network, gates, model, job)
        selection = gates.select(costs, budget, self.neuron_step)
        delattr(network, GATES)  # what is cut and returned is the plain network
        smaller = prune(network, selection.heads, selection.neurons)
        fold(smaller, gates.deterministic_factors(selection))  # factors below 1 go into the output projections
        with torch.no_grad():
            cut = {**cut_summary(model, smaller), "expected_share": float(gates.expected_share())}
        tuned = self._tune(smaller, model, job)
        assert search.training is not None
        both = {**dict(tuned), "training": _both(search.training, tuned.training)}
        return Compressed(smaller.eval(), job.tokenizer, LearnedPruningLog(**both, search=search.training, pruning=cut))

    def _search(self, network: PreTrainedModel, gates: LearnedGates, model: PreTrainedModel, job: Job) -> StepLog:
        """Train weights and gates; the last weights count, because earlier ones cost more than the target."""
        part = dataclasses.replace(
            self.training, epochs=self.training.epochs * self.search, keep="last", early_stopping_patience=None
        )

        def add_penalty(step: int, total: int) -> None:
            """Compute the penalty's gradient once a step; the gradients of the step's batches are added to it."""
            torch.autograd.backward(gates.penalty(self.goal(self.search * step / total, gates.initial_share)))

        with gated_per_call(network, gates.factors):
            return train_on_task(network, job, part, "search", on_step=add_penalty, teacher=self.teacher, given=model)

    def goal(self, progress: float, initial_share: float = 1.0) -> float:
        """Return the allowed share of operations, linear in `progress` from `initial_share` to 1/target."""
        risen = 1.0 if progress >= self.warmup else progress / self.warmup
        return initial_share - risen * (initial_share - 1.0 / self.target)

    def _tune(self, smaller: PreTrainedModel, model: PreTrainedModel, job: Job) -> StepLog:
        part = dataclasses.replace(self.training, epochs=self.training.epochs * (1 - self.search))
        # A seed and folder of its own: other batches than in the search, and no mix-up of checkpoints.
        seed = mix_seed(job.seed, "learned_pruning", "tuning")
        own = dataclasses.replace(job, folder=job.folder / "tuning", seed=seed)
        return train_on_task(smaller, own, part, "tuning", teacher=self.teacher, given=model)


def _both(search: TrainingLog, tuning: TrainingLog | None) -> TrainingLog:
    """Add the search's steps and seconds to those of the tuning; scores are those of the pruned model."""
    assert tuning is not None
    return TrainingLog(
        steps=search.steps + tuning.steps,
        planned_steps=search.planned_steps + tuning.planned_steps,
        train_seconds=search.train_seconds + tuning.train_seconds,
        best_step=search.steps + tuning.best_step,
        history=[{**each, "step": search.steps + each["step"]} for each in tuning.history],
        precision=tuning.precision,
        losses=[*search.losses, *({**each, "step": search.steps + each["step"]} for each in tuning.losses)],
    )
