"""Quantization: linear layers compute in int8, and word embeddings are stored in it.

Weights have one scale for each output feature; inputs have one range for each tensor, the least and the largest value
that texts of train gave (min-max; Wu et al. 2020, arXiv 2004.09602, compare calibrations). Where that costs too much,
the most sensitive projections stay in fp32 until the development score is back within a margin, or the model trains on
while it computes with rounded numbers (Jacob et al. 2018, arXiv 1712.05877), or both.
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
from plankwise.methods.sensitivity import fewest_kept, logits_of, sensitivities
from plankwise.training.distillation.config import DistillationConfig, check_taught
from plankwise.training.fit import Training
from plankwise.training.on_task import train_on_task

logger = logging.getLogger(__name__)
RANKED_EXAMPLES = 64  # of the calibration texts; each group takes one pass over them


class QuantizationLog(StepLog):
    """What quantization did.

    Attributes:
        quantized: the number of `projections`, and whether `embeddings` are.
        kept: projections that stayed in fp32.
        sensitivities: for a margin, how far predictions move if a group alone is quantized; the most sensitive first.
        fallback: for a margin, what was tried on the development split, as in `sensitivity.Fallback`.
    """

    quantized: Mapping[str, int | bool]
    kept: Sequence[str]
    sensitivities: Mapping[str, float] | None = None
    fallback: Mapping[str, Any] | None = None


@settings
class Quantization(Method):
    """Settings of quantization to int8.

    Attributes:
        embeddings: whether word embeddings are stored in int8; a margin gives them up last of all.
        examples: training texts, at most, whose activations give the ranges.
        margin: how much of the development score, on the task's first metric, may be lost before training; the most
            sensitive projections stay in fp32 for it. Null quantizes all of them.
        portable: whether weights of linear layers get 7 bits, with which every processor computes what was scored here;
            in 8 bits, sums saturate on processors without VNNI.
        teacher: what training learns beside the task.
        training: of the model while it computes with rounded numbers; null trains nothing.
    """

    method: Literal["quantization"] = "quantization"
    embeddings: bool = True
    examples: Rows = 256
    margin: LessThanAll | None = None
    portable: bool = True
    teacher: DistillationConfig | None = None
    training: Training | None = None

    @pydantic.model_validator(mode="after")
    def _teacher_needs_training(self) -> Quantization:
        check_taught(self.teacher, self.training)
        return self

    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Plan the quantized model; what a margin keeps in fp32, only the scores can say.

        Raises:
            MethodError: if the model is quantized already.
        """
        refuse_quantized(spec.config)
        if not spec.objective.has_labels:
            raise MethodError(
                "quantization is for a task with labels, and a corpus has none; fine-tune what the corpus gave, and "
                "quantize that"
            )
        quantized = Quantized(embeddings=self.embeddings, portable=self.portable)
        return planned(self, spec, with_quantized(spec.config, quantized))

    def examples_used(self, available: int) -> int:
        """Return how many training texts give the ranges."""
        return min(available, self.examples)

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Observe inputs, choose what stays in fp32, train if asked to, and round for good."""
        if not self.portable and saturates():
            logger.warning(
                "quantization: portable: false, and this processor has none of %s: what is scored here is exact "
                "arithmetic, an exported model's sums saturate on it; portable: true is the same on both",
                ", ".join(INT8_FLAGS),
            )
        rounding, seconds = FakeQuantized(model, self.portable), dict[str, float]()
        log, measured = StepLog(), dict[str, Any]()
        begun = time.perf_counter()
        examples = self._observe(rounding, job)
        seconds["calibration"] = time.perf_counter() - begun
        wanted = [name for name in rounding.names() if self.embeddings or name != EMBEDDINGS]
        if self.margin is not None:
            wanted, measured = self._within(self.margin, wanted, rounding, job, seconds)
        rounding.quantize(wanted)
        if not wanted:
            hint = "; embeddings: false may change that" if self.embeddings else ""
            logger.warning(
                "quantization: nothing can be quantized within margin %s, so nothing is%s", self.margin, hint
            )
        elif self.training is not None:
            title = "quantization-aware"
            log = train_on_task(rounding.network, job, self.training, title, teacher=self.teacher, given=model)
        whole = QuantizationLog(
            **{**dict(log), **measured, "seconds": seconds, "examples": examples},
            quantized={"projections": len({*wanted} - {EMBEDDINGS}), "embeddings": EMBEDDINGS in wanted},
            kept=[name for name in rounding.names() if name not in {*wanted, EMBEDDINGS}],
        )
        return Compressed(rounding.finished().eval(), job.tokenizer, whole)

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
        self, margin: float, wanted: list[str], rounding: FakeQuantized, job: Job, seconds: dict[str, float]
    ) -> tuple[list[str], dict[str, Any]]:
        """Choose what is quantized so that the development score falls by no more than the margin."""
        begun = time.perf_counter()
        groups = {name: parts for name, parts in rounding.groups().items() if parts[0] in wanted}
        changes = sensitivities(rounding, groups, job, min(self.examples, RANKED_EXAMPLES))
        seconds["ranking"] = time.perf_counter() - begun
        # The table comes last: it was asked for, it costs no time, and in fp32 it is much of a small model's size.
        ranking = sorted(changes, key=lambda group: group == EMBEDDINGS)
        fallback = fewest_kept(rounding, groups, ranking, job, margin)
        seconds["development"] = time.perf_counter() - begun - seconds["ranking"]
        stay = {name for group in fallback.kept for name in groups[group]}
        measured = {"sensitivities": changes, "fallback": dataclasses.asdict(fallback)}
        return [name for name in wanted if name not in stay], measured
