"""What a study will be able to decide, before any trial is run."""

from __future__ import annotations

import json
import math
from collections import Counter

from plankwise.evaluation.noise import DECIDED
from plankwise.search.study_plan import StudyPlan


def smallest_effects(plan: StudyPlan) -> dict[str, float]:
    """Estimate the smallest difference between one value of a parameter and the others that the study would decide.

    That is 2.8 standard errors of the difference of two means, which 80 % of such studies find at the 5 % level. Trials
    are compared with the same seed and with the other parameters equal, so that the noise is that of a single trial. It
    is a lower bound where the effect itself differs from seed to seed.

    Args:
        plan: of a grid, with its `noise`.

    Returns:
        By parameter, for its value with the fewest trials; empty without a grid or noise.
    """
    noise = plan.study.noise
    if noise is None or not plan.grid:
        return {}
    found = {}
    for key in plan.keys:
        counts = Counter(json.dumps(setting[key], sort_keys=True) for setting in plan.grid)
        if len(counts) > 1:
            fewest, others = min(counts.values()), len(plan.grid) - min(counts.values())
            share = (1 / fewest + 1 / others) / len(plan.study.seeds)
            found[key] = DECIDED * noise * math.sqrt(share)
    return found
