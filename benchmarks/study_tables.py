"""The result tables of studies: findings and main effects."""

from __future__ import annotations

from typing import Any

from plankwise.evaluation.effects import shown_estimate


def study(result: dict[str, Any]) -> str:
    """Write the findings of a study, and under them the main effects."""
    lines = ["| claim | contrast [95 %] | verdict |", "| --- | ---: | --- |"]
    for finding in result["findings"]:
        contrasts = "; ".join(shown_estimate(part["estimate"]) for part in finding["parts"])
        lines.append(f"| {finding['claim']} | {contrasts} | {finding['verdict']} |")
    counts, seeds = result["counts"], result["seeds"]
    lines += [
        "",
        f"{counts['complete']} trials, {result['settings']} settings, seeds {', '.join(map(str, seeds))}.",
        "",
    ]
    return "\n".join([*lines, *effects(result)])


def effects(result: dict[str, Any]) -> list[str]:
    """List each level's mean development score and its effect against the mean of all levels."""
    lines = ["| parameter | value | mean | effect [95 %] |", "| --- | --- | ---: | ---: |"]
    for key, levels in result["effects"].items():
        name = key.rpartition(".")[2]
        lines += [
            f"| {name} | {each['value']} | {each['mean']:.4f} | {shown_estimate(each['effect'])} |" for each in levels
        ]
    return lines


def initialization(result: dict[str, Any]) -> str:
    lines = [*effects(result), "", f"{result['counts']['complete']} trials, {len(result['seeds'])} seeds each."]
    return "\n".join(lines)


TABLES = {"study_theseus": study, "study_initialization": initialization}
