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
from typing import Literal

import pydantic
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.errors import MethodError
from plankwise.core.hardware import INT8_FLAGS, saturates
from plankwise.core.numbers import LessThanAll, Rows
from plankwise.core.progress import bar
from plankwise.core.recipe import settings
from plankwise.encoder.fake_quantized import EMBEDDINGS, FakeQuantized
from plankwise.encoder.quantized import Quantized, refuse_quantized, with_quantized
from plankwise.methods.calibration import sampled
from plankwise.methods.method import Job, train_on_task
from plankwise.methods.sensitivity import fewest_kept, logits_of, sensitivities
from plankwise.training.distillation.config import DistillationConfig, check_taught
from plankwise.training.fit import Training

logger = logging.getLogger(__name__)
CLASSIFIERS = "it is for tasks with labels, and a corpus has none; fine-tune what the corpus gave, and quantize that"
RANKED_EXAMPLES = 64  # of the calibration texts; each group takes one pass over them


@settings
class Quantization:
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

    def plan(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """Give the configuration of the quantized model; what a margin keeps in fp32, only the scores can say.

        Raises:
            MethodError: if the model is quantized already.
        """
        refuse_quantized(config)
        return with_quantized(config, Quantized(embeddings=self.embeddings, portable=self.portable))

    def compress(self, model: PreTrainedModel, job: Job) -> PreTrainedModel:
        """Observe inputs, choose what stays in fp32, train if asked to, and round for good."""
        if job.task.kind == "masked_lm":
            raise MethodError(f"quantization: {CLASSIFIERS}")
        self.plan(model.config)
        if not self.portable and saturates():
            logger.warning(
                "quantization: portable: false, and this processor has none of %s: what is scored here is exact "
                "arithmetic, an exported model's sums saturate on it; portable: true is the same on both",
                ", ".join(INT8_FLAGS),
            )
        rounding, seconds = FakeQuantized(model, self.portable), dict[str, float]()
        begun = time.perf_counter()
        self._observe(rounding, job)
        seconds["calibration"] = time.perf_counter() - begun
        wanted = [name for name in rounding.names() if self.embeddings or name != EMBEDDINGS]
        if self.margin is not None:
            wanted = self._within(self.margin, wanted, rounding, job, seconds)
        rounding.quantize(wanted)
        job.note("seconds", seconds)
        job.note("quantized", {"projections": len({*wanted} - {EMBEDDINGS}), "embeddings": EMBEDDINGS in wanted})
        job.note("kept", [name for name in rounding.names() if name not in {*wanted, EMBEDDINGS}])
        if not wanted:
            hint = "; embeddings: false may change that" if self.embeddings else ""
            logger.warning(
                "quantization: nothing can be quantized within margin %s, so nothing is%s", self.margin, hint
            )
        elif self.training is not None:
            train_on_task(rounding.network, job, self.training, "quantization-aware", teacher=self.teacher, given=model)
        return rounding.finished().eval()

    def _observe(self, rounding: FakeQuantized, job: Job) -> None:
        network = rounding.network.eval()
        with sampled(network, job, self.examples) as sample, torch.no_grad(), rounding.observing():
            job.note("examples", sample.examples)
            with bar("calibration", sample.examples, job.progress) as shown:
                done = 0
                for batch in sample.batches():
                    logits_of(network, batch)
                    done += len(batch["input_ids"])
                    shown(done)

    def _within(
        self, margin: float, wanted: list[str], rounding: FakeQuantized, job: Job, seconds: dict[str, float]
    ) -> list[str]:
        """Choose what is quantized so that the development score falls by no more than the margin."""
        begun = time.perf_counter()
        groups = {name: parts for name, parts in rounding.groups().items() if parts[0] in wanted}
        changes = sensitivities(rounding, groups, job, min(self.examples, RANKED_EXAMPLES))
        seconds["ranking"] = time.perf_counter() - begun
        # The table comes last: it was asked for, it costs no time, and in fp32 it is much of a small model's size.
        ranking = sorted(changes, key=lambda group: group == EMBEDDINGS)
        fallback = fewest_kept(rounding, groups, ranking, job, margin)
        seconds["development"] = time.perf_counter() - begun - seconds["ranking"]
        job.note("sensitivities", changes)
        job.note("fallback", dataclasses.asdict(fallback))
        stay = {name for group in fallback.kept for name in groups[group]}
        return [name for name in wanted if name not in stay]
