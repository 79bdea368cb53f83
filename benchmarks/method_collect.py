"""Collects finished runs of several methods and seeds: scores, retained performance, cost and speed."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from bag_of_words import bag_of_words
from plankwise.core.records import Cost, Entry, Final
from plankwise.data.task import Task
from plankwise.encoder.checkpoint import load_trained
from plankwise.evaluation.comparison import behaviour, retained_performance
from plankwise.evaluation.intervals import score_interval
from plankwise.evaluation.metrics import METRICS
from plankwise.evaluation.saved_predictions import read_predictions
from plankwise.report.run_report import finished
from plankwise.run.folder import cost_of, read_entry

RESAMPLES = 4000
Runs = dict[int, Path]  # by seed


def collected(task: Task, baselines: Runs, variants: dict[str, Runs], timing: dict[str, Any]) -> dict[str, Any]:
    """Compare the variants' runs with their baselines.

    Args:
        task: the task of all runs.
        baselines: stages of the uncompressed models.
        variants: finished runs of each variant.
        timing: result of `method_timing`, with its `variants`.
    """
    metric = task.metrics[0]
    costs = {seed: _baseline_cost(folder) for seed, folder in baselines.items() if folder.exists()}
    some = next(iter(variants.values()), {})
    result: dict[str, Any] = {
        "metric": metric,
        "rows": dict(task.splits.num_rows),
        "bag_of_words": bag_of_words(task),
        "baseline": _baseline(list(costs.values()), variants, metric),
        "timing": {key: value for key, value in timing.items() if key != "variants"},
        "variants": {
            name: {**_variant(runs, costs, metric), "timing": timing["variants"].get(name)}
            for name, runs in variants.items()
        },
    }
    if some:
        record = finished(next(iter(some.values())))
        assert record.final is not None
        result |= {"majority": record.final.majority_scores, "environment": record.environment}
    return result


def _baseline_cost(stage: Path) -> Cost:
    """Read the cost of a baseline; fields that an older version did not record are measured."""
    entry: Entry = read_entry(stage)
    if entry.cost.linear_flops_per_token is None or entry.cost.compressed_bytes is None:
        return cost_of(load_trained(str(stage)), stage, entry.train_seconds)
    return entry.cost


def _baseline(costs: list[Cost], variants: dict[str, Runs], metric: str) -> dict[str, Any]:
    """Score the baselines of all seeds that have a finished run; each run saves the logits of its baseline."""
    by_seed = {seed: run for runs in variants.values() for seed, run in runs.items()}
    pairs = [read_predictions(by_seed[seed])[1] for seed in sorted(by_seed)]
    labels, logits = [pair.labels for pair in pairs], [pair.baseline for pair in pairs]
    return {
        "score": score_interval(labels, logits, metric, RESAMPLES).model_dump() if pairs else None,
        "scores": {seed: METRICS[metric](*each) for seed, *each in zip(sorted(by_seed), labels, logits, strict=True)},
        **_cost(costs),
        "minutes": statistics.median(cost.train_seconds for cost in costs) / 60,
    }


def _variant(runs: Runs, baselines: dict[int, Cost], metric: str) -> dict[str, Any]:
    pairs = {seed: read_predictions(run)[1] for seed, run in runs.items()}
    finals = {seed: _final(run) for seed, run in runs.items()}
    labels, logits = [each.labels for each in pairs.values()], [each.compressed for each in pairs.values()]
    retained = retained_performance(list(pairs.values()), metric, RESAMPLES)
    speedups = sorted(final.speedup for final in finals.values())
    return {
        "seeds": sorted(runs),
        "score": score_interval(labels, logits, metric, RESAMPLES).model_dump(),
        "retained": None if retained is None else retained.model_dump(),
        "scores": {seed: METRICS[metric](pair.labels, pair.compressed) for seed, pair in pairs.items()},
        "behaviour": _mean([behaviour(pair) for pair in pairs.values()]),
        **_cost([final.cost for final in finals.values()]),
        "fewer_flops": statistics.median(_fewer(baselines[seed], final.cost) for seed, final in finals.items()),
        "minutes": statistics.median(final.cost.train_seconds for final in finals.values()) / 60,
        "own_speedups": {"median": statistics.median(speedups), "spread": [speedups[0], speedups[-1]]},
    }


def _cost(costs: list[Cost]) -> dict[str, Any]:
    """Return medians over seeds: pruning cuts a little differently in each."""
    names = ("parameters", "size_bytes", "compressed_bytes", "linear_flops_per_token")
    return {name: statistics.median_low([getattr(cost, name) or 0 for cost in costs]) for name in names}


def _fewer(baseline: Cost, cost: Cost) -> float:
    assert baseline.linear_flops_per_token is not None
    assert cost.linear_flops_per_token is not None
    return baseline.linear_flops_per_token / cost.linear_flops_per_token


def _final(run: Path) -> Final:
    final = finished(run).final
    assert final is not None
    return final


def _mean(each: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.mean(one[name] for one in each) for name in each[0] if name != "mcnemar_p"}
