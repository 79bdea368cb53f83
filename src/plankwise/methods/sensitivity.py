"""Which parts of a quantized model stay in fp32: the most sensitive ones, and no more of them than a score needs.

Parts are ranked without labels, by how far the model's predictions move if one of them alone is quantized. How many of
them have to stay is found on the development split: none, one, two, four … until the score is back within the margin,
then by halving what is left between the last number that missed it and the first that did not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from plankwise.core.distributed import agree
from plankwise.core.progress import bar
from plankwise.data.batching.inputs import Batch, model_inputs
from plankwise.data.task import DEVELOPMENT
from plankwise.encoder.fake_quantized import FakeQuantized
from plankwise.methods.method import Job

Groups = Mapping[str, tuple[str, ...]]
ROUNDING = 1e-12  # scores are compared as decimals are read: 0.81 is within 0.01 of 0.82


@dataclass(frozen=True)
class Fallback:
    """What was tried on the development split, and what came of it.

    Attributes:
        kept: the groups that stay in fp32, the most sensitive first.
        unquantized: the score to which the margin refers.
        quantized: the score with every group quantized.
        chosen: the score with `kept` in fp32.
        tried: every number of groups that was tried, with its score, in the order of the trials.
    """

    kept: list[str]
    unquantized: float
    quantized: float
    chosen: float
    tried: list[tuple[int, float]]


def logits_of(network: PreTrainedModel, batch: Batch) -> Tensor:
    """Give the logits, [inputs, classes], of a batch in double precision."""
    logits: Tensor = network(**model_inputs(network, batch)).logits.double()
    return logits


@torch.no_grad()
def sensitivities(rounding: FakeQuantized, groups: Groups, job: Job, examples: int) -> dict[str, float]:
    """Measure how far predictions move if one group alone is quantized; the most sensitive group comes first.

    The measure is the divergence of the model's own predictions from those with the group quantized, KL over classes
    or, where each label stands for itself, the mean of the binary ones; the mean over inputs.

    Args:
        rounding: calibrated; everything is switched off at the end.
        groups: names of what is quantized together.
        job: of the step; texts are of its training split.
        examples: how many of them at most.
    """
    network = rounding.network.eval()
    changes = {}
    with job.objective.sample(network, job, examples) as sample, bar("ranking", len(groups), job.progress) as shown:
        batches = list(sample.batches())
        rounding.quantize(())
        before = torch.cat([logits_of(network, batch) for batch in batches])
        for done, (group, names) in enumerate(groups.items(), 1):
            rounding.quantize(names)
            after = torch.cat([logits_of(network, batch) for batch in batches])
            changes[group] = float(job.objective.logits_loss(after, before, temperature=1.0))
            shown(done)
    rounding.quantize(())
    return dict(sorted(changes.items(), key=lambda change: -change[1]))


def fewest_kept(rounding: FakeQuantized, groups: Groups, ranking: Sequence[str], job: Job, margin: float) -> Fallback:
    """Find how many of the first groups have to stay so that the development score falls by no more than the margin.

    A larger number of groups is taken to score no worse; where it does, the number found was measured all the same.
    With all groups in fp32 nothing is quantized, so that there always is such a number.

    Args:
        rounding: calibrated.
        groups: names of what is quantized together.
        ranking: the groups, the most sensitive first.
        job: of the step.
        margin: as a share, such as 0.005 for half a point.
    """
    tried: dict[int, float] = {}

    def score(kept: int) -> float:
        rounding.quantize([name for group in ranking[kept:] for name in groups[group]])
        return job.objective.score(rounding.network, job, DEVELOPMENT).scores[job.task.metrics[0]]

    unquantized = score(len(ranking))

    def is_within(kept: int) -> bool:
        tried[kept] = unquantized if kept == len(ranking) else score(kept)
        return tried[kept] >= unquantized - margin - ROUNDING

    missed, kept = -1, 0
    while not is_within(kept):
        missed, kept = kept, min(max(1, 2 * kept), len(ranking))
    while kept - missed > 1:
        middle = (missed + kept) // 2
        missed, kept = (missed, middle) if is_within(middle) else (middle, kept)
    agree(repr(ranking[:kept]), "the groups that stay in fp32")
    return Fallback(list(ranking[:kept]), unquantized, tried[0], tried[kept], list(tried.items()))
