"""Quantization: linear layers compute in int8, and word embeddings are stored in it.

Weights have one scale for each output feature. Inputs have one range for each tensor: the smallest and the largest
value on texts of the training split (min-max calibration; Wu et al. 2020, arXiv 2004.09602, compare others). Where this
costs too much, the most sensitive projections stay in fp32 until the development score is within a margin, or the model
is trained while it computes with rounded numbers (Jacob et al. 2018, arXiv 1712.05877), or both.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pydantic
import torch
from transformers import PreTrainedModel

from plankwise.core.errors import MethodError
from plankwise.core.hardware import INT8_FLAGS, saturates
from plankwise.core.numbers import LessThanAll, Rows
from plankwise.core.progress import bar
from plankwise.core.recipe import settings
from plankwise.encoder.fake_quantized import EMBEDDINGS, FakeQuantized
from plankwise.encoder.quantized import Quantized, refuse_quantized, with_quantized
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, StepLog, planned
from plankwise.methods.recovery import ReplacingConfig, check_replacing, recover
from plankwise.methods.sensitivity import fewest_kept, logits_of, sensitivities
from plankwise.training.distillation.config import DistillationConfig, check_taught
from plankwise.training.fit import Training

logger = logging.getLogger(__name__)
RANKING_EXAMPLES = 64  # at most; the ranking makes one pass over them for each group


class QuantizationLog(StepLog):
    """What quantization did.

    Attributes:
        quantized: the number of quantized `projections`, and whether `embeddings` are quantized.
        kept: projections that stayed in fp32.
        sensitivities: with a margin, the change of the predictions when a group alone is quantized; the largest first.
        fallback: with a margin, the search on the development split, as in `sensitivity.Fallback`.
    """

    quantized: Mapping[str, int | bool]
    kept: Sequence[str]
    sensitivities: Mapping[str, float] | None = None
    fallback: Mapping[str, Any] | None = None


@settings
class Quantization(Method):
    """Settings of quantization to int8.

    Attributes:
        embeddings: whether word embeddings are stored in int8; with a margin they return to fp32 last.
        examples: training texts, at most, whose activations determine the ranges.
        margin: how much of the development score, by the task's first metric, may be lost before training; the most
            sensitive projections stay in fp32 to keep it. Null quantizes all of them.
        portable: whether weights of linear layers have 7 bits, so that every processor computes what is scored here;
            with 8 bits, sums saturate on processors without VNNI.
        teacher: what training learns from, besides the task.
        training: of the model while it computes with rounded numbers; null trains nothing.
        replacing: how training goes, by module replacing: at each step some layers run as they were, frozen, and others
            with rounded numbers, until all do. By default all layers are rounded from the first step.
    """

    method: Literal["quantization"] = "quantization"
    embeddings: bool = True
    examples: Rows = 256
    margin: LessThanAll | None = None
    portable: bool = True
    teacher: DistillationConfig | None = None
    training: Training | None = None
    replacing: ReplacingConfig | None = None

    @pydantic.model_validator(mode="after")
    def _teacher_needs_training(self) -> Quantization:
        check_taught(self.teacher, self.training)
        check_replacing(self.replacing, self.training)
        return self

    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Plan the quantized model; what a margin keeps in fp32 depends on scores, and is not planned.

        Raises:
            MethodError: if the model is quantized already, or the objective has no labels.
        """
        refuse_quantized(spec.config)
        if not spec.objective.has_labels:
            raise MethodError(
                "quantization is for a task with labels, and a corpus has none; fine-tune the language model and "
                "quantize the result"
            )
        quantized = Quantized(embeddings=self.embeddings, portable=self.portable)
        return planned(self, spec, with_quantized(spec.config, quantized))

    def examples_used(self, available: int) -> int:
        """Return how many training texts determine the ranges."""
        return min(available, self.examples)

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Calibrate, choose what stays in fp32, train if the settings say so, and round the weights."""
        if not self.portable and saturates():
            logger.warning(
                "quantization: portable is false and this processor has none of %s: scores here come from exact "
                "arithmetic, but the sums of an exported model saturate; with portable: true both are the same",
                ", ".join(INT8_FLAGS),
            )
        # A copy that computes as `model` does until groups of its matrices are switched to rounding.
        rounding, seconds = FakeQuantized(model, self.portable), dict[str, float]()
        log, measured = StepLog(), dict[str, Any]()
        begun = time.perf_counter()
        examples = self._observe(rounding, job)
        seconds["calibration"] = time.perf_counter() - begun
        names = [name for name in rounding.names() if self.embeddings or name != EMBEDDINGS]
        if self.margin is not None:
            names, measured = self._within(self.margin, names, rounding, job=job, seconds=seconds)
        rounding.quantize(names)
        if not names:
            hint = "; embeddings: false may change that" if self.embeddings else ""
            logger.warning(
                "quantization: nothing can be quantized within margin %s, so nothing is%s", self.margin, hint
            )
        elif self.training is not None:
            log = self._train(rounding.network, model, job, self.training)
        whole = QuantizationLog(
            **{**dict(log), **measured, "seconds": seconds, "examples": examples},
            quantized={"projections": len({*names} - {EMBEDDINGS}), "embeddings": EMBEDDINGS in names},
            kept=[name for name in rounding.names() if name not in {*names, EMBEDDINGS}],
        )
        return Compressed(rounding.finished().eval(), job.tokenizer, whole)

    def _train(self, network: PreTrainedModel, model: PreTrainedModel, job: Job, training: Training) -> StepLog:
        title = "quantization-aware"
        return recover(network, model, job, training, title=title, teacher=self.teacher, replacing=self.replacing)

    def _observe(self, rounding: FakeQuantized, job: Job) -> int:
        """Run the calibration texts through the model and return how many there are."""
        network, done = rounding.network.eval(), 0
        with (
            job.objective.sample(network, job, self.examples) as sample,
            torch.no_grad(),
            rounding.observing(),
            bar("calibration", sample.examples, job.progress) as shown,
        ):
            for batch in sample.batches():
                logits_of(network, batch)
                done += len(batch["input_ids"])
                shown(done)
            return sample.examples

    def _within(
        self, margin: float, names: list[str], rounding: FakeQuantized, *, job: Job, seconds: dict[str, float]
    ) -> tuple[list[str], dict[str, Any]]:
        """Return those of `names` that can be quantized within the margin, and the log of the search."""
        begun = time.perf_counter()
        groups = {name: parts for name, parts in rounding.groups().items() if parts[0] in names}
        changes = sensitivities(rounding, groups, job, min(self.examples, RANKING_EXAMPLES))
        seconds["ranking"] = time.perf_counter() - begun
        # Embeddings come last: they are quantized for size, of which they are much in a small model, and never slower.
        ranking = sorted(changes, key=lambda group: group == EMBEDDINGS)
        fallback = fewest_kept(rounding, groups, ranking, job, margin=margin)
        seconds["development"] = time.perf_counter() - begun - seconds["ranking"]
        stay = {name for group in fallback.kept for name in groups[group]}
        measured = {"sensitivities": changes, "fallback": dataclasses.asdict(fallback)}
        return [name for name in names if name not in stay], measured
