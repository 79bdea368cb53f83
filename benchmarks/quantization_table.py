"""The table of README.md on what int8 costs in score."""

from __future__ import annotations

from typing import Any

from plankwise.core.intervals import format_interval


def quantization_germeval2018(result: dict[str, Any]) -> str:
    """Write one line for each way of quantizing each model, and what training brought back."""
    lines = [
        f"| model | numbers | size | {result['metric']}, test | points lost or won | retained | label loyalty | "
        "largest change of a probability |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for parent, variants in result["parents"].items():
        lines.append(f"| {parent} | fp32, torch | | {variants['fp32']['score']:.3f} | | | | |")
        for name, each in variants.items():
            if name == "fp32":
                continue
            kept = each["retained"]
            seeds = ", ".join(f"{value:+.1f}" for value in each["differences"])
            lines.append(
                f"| {parent} | {name} | {each['size_bytes'] / 1e6:.1f} MB | {each['score']:.3f} | "
                f"{each['difference']:+.2f} ({seeds}) | {format_interval(**kept)} | "
                f"{each['loyalty']:.3f} | {each['probability_change']:.2f} |"
            )
    closing = (
        f"{len(result['seeds'])} seeds, in brackets the points of each. Scores are those of the exported model in its "
        f"own runtime; size is that of its files. Accuracy-aware: within {result['margin']} on development. Training: "
        f"{result['training']['epochs']:g} epoch with the fp32 baseline as teacher."
    )
    back = result["recovered"]
    said = (
        "Static int8 costs the smaller model nothing, so there was nothing for training to bring back."
        if back is None
        else f"Of what static int8 costs the smaller model, training brings back {100 * back:.0f} %."
    )
    return "\n".join([*lines, "", f"{closing} {said}"])


TABLES = {"quantization_germeval2018": quantization_germeval2018}
