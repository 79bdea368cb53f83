"""Which groups of a quantized model stay in fp32: the most sensitive ones, and as few of them as the score allows.

Groups are ranked without labels, by the change of the model's predictions when one of them alone is quantized. How many
have to stay is found on the development split: 0, 1, 2, 4 … until the score is within the margin, then by bisection
between the last number that was not and the first that was.
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
ROUNDING = 1e-12  # tolerance of comparisons, so that 0.81 is within 0.01 of 0.82 in floating point, too


@dataclass(frozen=True)
class Fallback:
    """The search on the development split, and its result.

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
    """Return the logits of a batch in double precision, [inputs, classes]."""
    logits: Tensor = network(**model_inputs(network, batch)).logits.double()
    return logits


@torch.no_grad()
def sensitivities(rounding: FakeQuantized, groups: Groups, job: Job, examples: int) -> dict[str, float]:
    """Measure the change of the predictions when one group alone is quantized.

    It is the objective's divergence from the predictions of the unquantized model, a mean over inputs; for
    classification the KL divergence over classes, or the mean of the binary ones where texts have several labels.

    Args:
        rounding: calibrated; all groups are unquantized at the end.
        groups: names of the matrices that are quantized together.
        job: of the step; texts come from its training split.
        examples: how many of them at most.

    Returns:
        The divergence by group, the most sensitive group first.
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
            # KL(before ‖ after): the unquantized predictions take the teacher's place.
            changes[group] = float(job.objective.logits_loss(after, before, temperature=1.0))
            shown(done)
    rounding.quantize(())
    return dict(sorted(changes.items(), key=lambda change: -change[1]))


def fewest_kept(
    rounding: FakeQuantized, groups: Groups, ranking: Sequence[str], job: Job, *, margin: float
) -> Fallback:
    """Find how many of the first groups have to stay in fp32 for a development score within `margin`.

    The search assumes that more groups in fp32 score no worse. Where this does not hold, the result is still a number
    whose score was measured. With all groups in fp32 nothing is quantized, so there is always such a number.

    Args:
        rounding: calibrated.
        groups: names of the matrices that are quantized together.
        ranking: the groups, the most sensitive first.
        job: of the step.
        margin: the largest loss of score, as a share: 0.005 is half a point.
    """
    tried: dict[int, float] = {}

    def score(kept: int) -> float:
        rounding.quantize([name for group in ranking[kept:] for name in groups[group]])
        return job.objective.score(rounding.network, job, DEVELOPMENT).scores[job.task.metrics[0]]

    unquantized = score(len(ranking))

    def is_within(kept: int) -> bool:
        tried[kept] = unquantized if kept == len(ranking) else score(kept)
        return tried[kept] >= unquantized - margin - ROUNDING

    missed, kept = -1, 0  # `missed` is always too few, `kept` becomes enough
    while not is_within(kept):
        missed, kept = kept, min(max(1, 2 * kept), len(ranking))
    while kept - missed > 1:
        middle = (missed + kept) // 2
        missed, kept = (missed, middle) if is_within(middle) else (middle, kept)
    agree(repr(ranking[:kept]), "the groups that stay in fp32")
    return Fallback(list(ranking[:kept]), unquantized, tried[0], tried[kept], list(tried.items()))
