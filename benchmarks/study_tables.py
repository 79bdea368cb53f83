"""The result tables of studies: findings and main effects."""

from __future__ import annotations

from typing import Any

from plankwise.evaluation.effects import shown_estimate


def study(result: dict[str, Any]) -> str:
    """Write the findings of a study, and under them the main effects."""
    by_loss = result.get("findings_by_loss")
    lines = ["| claim | contrast [95 %] | verdict |", "| --- | ---: | --- |"]
    if by_loss:
        lines = [
            "| claim | contrast [95 %] | verdict | in cross-entropy | verdict |",
            "| --- | ---: | --- | ---: | --- |",
        ]
    for number, finding in enumerate(result["findings"]):
        cells = [finding["claim"], *judged(finding), *(judged(by_loss[number]) if by_loss else [])]
        lines.append(f"| {' | '.join(cells)} |")
    counts, seeds = result["counts"], result["seeds"]
    lines += [
        "",
        f"{counts['complete']} trials, {result['settings']} settings, seeds {', '.join(map(str, seeds))}.",
        "",
    ]
    return "\n".join([*lines, *effects(result)])


def judged(finding: dict[str, Any]) -> list[str]:
    """Return the contrasts of a finding and its verdict, with what it would take to decide it."""
    contrasts = "; ".join(shown_estimate(part["estimate"]) for part in finding["parts"])
    more = [each for each in finding.get("more_trials", ()) if each]
    return [contrasts, finding["verdict"] + (f", about {max(more)} more trials would decide" if more else "")]


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


TABLES = {"study_theseus": study, "study_theseus_e5": study, "study_initialization": initialization}
