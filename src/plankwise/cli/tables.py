"""Tables for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from plankwise.core.intervals import format_interval
from plankwise.core.progress import duration
from plankwise.core.records import Record, format_optional


def print_table(table: Table) -> None:
    """Print to standard output; 140 columns wide if that is not a terminal."""
    console = Console()  # a pipe has no width: Rich would assume 80 columns and break numbers
    (console if console.is_terminal else Console(width=140)).print(table)


def record_table(record: Record, out: Path) -> Table:
    """Return the table of a run: each trained model with its size and score, and what the last one retained."""
    metric = record.task["metrics"][0]
    table = Table(title=f"{record.name}, seed {record.seed}: {metric} on {record.task['name']}", title_justify="left")
    for column in (
        "model",
        "parameters",
        "size",
        "development",
        "test [95 %]",
        "retained [95 %]",
        "faster",
        "training",
    ):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=column != "faster")
    final = record.final
    entries = [each for each in (record.baseline, *record.steps) if each is not None]
    for entry in entries:
        test = retained = faster = ""
        if final is not None and entry is record.baseline:
            test, faster = str(final.baseline_intervals[metric]), f"1.00×\n{final.timed_in.baseline}"
        elif final is not None and entry is entries[-1]:
            test, faster = str(final.score_intervals[metric]), f"{final.speedup:.2f}×\n{final.timed_in.compressed}"
            retained = format_optional(final.retained_performance[metric])
        table.add_row(
            entry.name,
            f"{entry.cost.parameters / 1e6:.2f} M",
            f"{entry.cost.size_bytes / 1e6:.1f} MB",
            f"{entry.development_scores[metric]:.3f}",
            test,
            retained,
            faster,
            f"{entry.train_seconds:.0f} s",
        )
    if final is None:
        table.caption = str(out)
    else:
        over = [f"{value:.2f}× the baseline in {name}" for name, value in final.speedup_over.items()]
        table.caption = "; ".join([*over, f"{out / 'report.html'}, {out / 'model'}"])
    return table


def plan_table(plan: list[dict[str, Any]]) -> Table:
    """Return the table of a dry run: the stages of a recipe and roughly what each costs on this machine."""
    table = Table(title="Plan; nothing has been trained", title_justify="left")
    for column in ("stage", "parameters", "steps", "s per step", "about"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for row in plan:
        table.add_row(
            row["stage"],
            f"{row['parameters'] / 1e6:.2f} M",
            str(row["steps"]),
            f"{row['seconds_per_step']:.3f}",
            duration(row["seconds"]),
        )
    table.add_row("all", "", "", "", duration(sum(row["seconds"] for row in plan)))
    return table


def counts_table(counts: dict[str, Any], out: Path) -> Table:
    """Return the table of an extraction: what each step leaves, and what the splits hold."""
    version = counts["leak_filter_version"]
    filtered = f", leak filter {version}" if version else ""
    table = Table(title=f"{counts['definition']}, seed {counts['seed']}{filtered}", title_justify="left")
    for column in ("step", "rows", "admissions", "patients", "died"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for step in counts["steps"]:
        table.add_row(*(str(step[name]) for name in ("step", "rows", "admissions", "patients")), "")
    table.add_section()
    for name, split in counts["splits"].items():
        table.add_row(name, "", *(str(split[key]) for key in ("admissions", "patients", "positive")))
    if "deaths_within_48h" in counts:
        table.add_section()
        table.add_row("died within the first 48 h", "", str(counts["deaths_within_48h"]), "", "")
    if counts["leak_filter"] is not None:
        table.add_section()
        unit = counts["leak_filter"]["counts"]
        for rule in counts["leak_filter"]["rules"]:
            for done in ("dropped", "cut"):
                if rule[done]:
                    number = (str(rule[done]), "") if unit == "notes" else ("", str(rule[done]))
                    table.add_row(f"{done}: told in the rule '{rule['rule']}'", *number, "", "")
    table.caption = str(out)
    return table


def timing_table(timing: dict[str, Any]) -> Table:
    """Return the table of a benchmark, one row per model."""
    texts = timing["batching"]["texts"]
    title = f"{timing['threads']} threads, {timing['rounds']} rounds, {texts} texts; times in ms, sizes in MB"
    table = Table(title=title, title_justify="left")
    table.add_column("model", overflow="fold")
    for column in (
        "size",
        "memory",
        *(f"1×{tokens}" for tokens in timing["latency"]),
        "a text",
        "faster",
        "of ceiling",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for model in timing["models"]:
        on_texts = timing["throughput"][model["name"]]
        caveat = "" if model["independent"] else ", answers vary by batch"
        table.add_row(
            f"{model['name']}\n{model['runtime']} {model['precision']}{caveat}",
            _megabytes(model["size_bytes"]),
            _megabytes(model["peak_memory_bytes"]),
            *(_milliseconds(case.get(model["name"])) for case in timing["latency"].values()),
            f"{on_texts['ms_per_text']:.3g}",
            format_interval(on_texts["speedup"], *on_texts["spread"], digits=2, unit="×"),
            "" if on_texts["percent_of_ceiling"] is None else f"{on_texts['percent_of_ceiling']:.0f} %",
        )
    batching, ceilings = timing["batching"], timing["ceiling_gops"]
    shown = ", ".join(f"{name} {'–' if value is None else f'{value:.0f}'}" for name, value in ceilings.items())
    table.caption = (
        f"single texts: p50 / p95; batches of up to {batching['budget']} tokens sorted by length, in arrival order "
        f"{batching['arrival_order']} texts; best matrix products, 10⁹ operations a second: {shown}"
    )
    return table


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f}"


def _milliseconds(case: dict[str, Any] | None) -> str:
    return "" if case is None else f"{case['p50_ms']:.3g} / {case['p95_ms']:.3g}"


def study_table(document: dict[str, Any]) -> Table:
    """Return the table of a study: the effect of each parameter's values."""
    from plankwise.evaluation.effects import short_names, shown_estimate  # pandas, which other tables do not need

    counts = ", ".join(f"{count} {state}" for state, count in document["counts"].items() if count)
    table = Table(title=f"{document['name']}: {counts}", title_justify="left")
    table.add_column("parameter")
    table.add_column("value", justify="right")
    table.add_column("effect [95 %]", justify="right")
    short = short_names(list(document["effects"]))
    for key, levels in document["effects"].items():
        for at, level in enumerate(levels):
            table.add_row("" if at else short[key], str(level["value"]), shown_estimate(level["effect"]))
    return table
