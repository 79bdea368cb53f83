"""The table of an error analysis by hand: error classes of both models, and how they moved."""

from __future__ import annotations

from typing import Any

from plankwise.review.sample import MODELS


def error_analysis(result: dict[str, Any]) -> str:
    """Write a row for each kind and class of error, those of most errors first."""
    lines = ["| kind | error class | baseline | compressed | change |", "| --- | --- | ---: | ---: | ---: |"]
    for kind in dict.fromkeys(each["kind"] for each in result["classes"]):
        rows = [each for each in result["classes"] if each["kind"] == kind]
        for row in sorted(rows, key=lambda each: -each["baseline"] - each["compressed"]):
            new = ", new" if row["new"] else ""
            cells = [
                kind,
                row["error_class"],
                f"{row['baseline']:g}",
                f"{row['compressed']:g}",
                f"{row['change']:+g}{new}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    drawn = [
        f"{model}: {there:,} {kind}s, of which {taken} are drawn"
        for model in MODELS
        for kind, (there, taken) in result["drawn"][model].items()
    ]
    readers = ", ".join(f"{name} ({count})" for name, count in result["progress"].items())
    lines += ["", f"{'; '.join(drawn)}. {result['items']} different examples in all; readers: {readers}."]
    return "\n".join(lines)


TABLES = {"error_analysis": error_analysis}
COMMANDS = {"error_analysis": "plankwise review summary runs/germeval2018-e5/review --json"}
