"""The result tables on pretrained encoders: ready recipes, and families of methods alone and combined."""

from __future__ import annotations

from typing import Any

from plankwise.core.intervals import MISSING
from score_tables import interval

ENCODERS = ("e5_small", "minilm_l6", "mpnet_base")
SCORERS = ("minilm_l6_sts", "e5_small_sts")  # the same on pairs with a score


def shrink(result: dict[str, Any]) -> str:
    """Write a line for each ready recipe and seed."""
    lines = [
        "| recipe | seed | original | score | retained [95 %] | chance-corrected | agreement | × ONNX Runtime fp32 "
        "| × torch eager fp32 | size | smaller | minutes | goal |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for each in result["runs"]:
        goal = each["goal"]
        alike = each.get("agreement", each.get("label_loyalty"))
        aim = f"{goal['retain']:g}, {goal['speedup']:g}×: {'met' if each['met'] else 'missed'}"
        lines.append(
            f"| {each['recipe']} | {each['seed']} | {each['original']['value']:.3f} | {interval(each['score'])} | "
            f"{interval(each['retained'])} | {share(each['chance_corrected'])} | "
            f"{alike:.3f} | {interval(each['speedup']['ONNX Runtime fp32'])} | "
            f"{interval(each['speedup']['torch fp32'])} | {each['size_bytes'] / 1e6:.1f} MB | "
            f"{result['original_bytes'] / each['size_bytes']:.1f}× | {each['minutes']:.0f} | {aim} |"
        )
    made = [f"- {each['recipe']}, seed {each['seed']}: {each['artefact']}" for each in result["runs"]]
    pooled = [
        f"{name} keeps {interval(kept)} over the seeds"
        for name, kept in result["retained_over_seeds"].items()
        if kept and sum(each["recipe"] == name for each in result["runs"]) > 1
    ]
    closing = f"{result['rows']} rows held back. " + (f"{'; '.join(pooled)}. " if pooled else "")
    return "\n".join([*lines, "", f"{closing.strip()} What was made:", "", *made])


def share(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def combinations(result: dict[str, Any]) -> str:
    """Write a line for each way of compressing, and under it what combinations lose beyond their parts."""
    lines = [
        "| way | macro-F1 | points lost [95 %] | retained [95 %] | chance-corrected | × ONNX Runtime fp32 "
        "| × torch eager fp32 | size | minutes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, each in result["ways"].items():
        corrected = share(each["chance_corrected"])
        lines.append(
            f"| {name} | {each['score']:.3f} | {interval(each['points_lost'])} | {interval(each['retained'])} | "
            f"{corrected} | {each['speedup']['ONNX Runtime fp32']:.2f} | {each['speedup']['torch eager fp32']:.2f} | "
            f"{each['size_bytes'] / 1e6:.1f} MB | {each['minutes']:.1f} |"
        )
    lines += ["", "| combination | points lost beyond the sum of its parts [95 %] | speed-up ÷ product of its parts |"]
    lines += ["| --- | ---: | ---: |"]
    for name, each in result["interactions"].items():
        lines.append(f"| {name} | {interval(each['points'])} | {each['speedup_over_product']:.2f} |")
    seeds = ", ".join(map(str, result["seeds"]))
    closing = f"{result['test_rows']} rows held back, seeds {seeds}. Always guessing the majority scores"
    return "\n".join([*lines, "", f"{closing} {result['majority']:.3f}."])


TABLES = {
    **{f"shrink_{encoder}": shrink for encoder in (*ENCODERS, *SCORERS)},
    **{f"combinations_{encoder}": combinations for encoder in ENCODERS},
}
COMMANDS = {
    f"{table}_{encoder}": f"python benchmarks/{script}.py {encoder.replace('_', '-')}"
    for table, script in (("shrink", "shrink_encoders"), ("combinations", "combinations"))
    for encoder in (*ENCODERS, *(SCORERS if table == "shrink" else ()))
}
