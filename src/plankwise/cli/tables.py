"""Tables for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from plankwise.core.progress import duration
from plankwise.core.records import Entry, Final, Interval, Record


def print_table(table: Table) -> None:
    """Print to standard output, as wide as it needs to be where that is no terminal."""
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)


def record_table(record: Record, out: Path) -> Table:
    """Show a run: each trained model with its size and score, and what the last one kept."""
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
            test, faster = _interval(final.baseline_intervals[metric]), f"1.00×\n{final.timed_in.baseline}"
        elif final is not None and entry is entries[-1]:
            test, faster = (
                _interval(final.score_intervals[metric]),
                f"{final.speedup:.2f}×\n{final.timed_in.compressed}",
            )
            retained = _interval(final.retained_performance[metric])
        table.add_row(
            entry.name,
            *_cost(entry),
            f"{entry.development_scores[metric]:.3f}",
            test,
            retained,
            faster,
            f"{entry.train_seconds:.0f} s",
        )
    table.caption = str(out) if final is None else "; ".join([*_over(final), f"{out / 'report.html'}, {out / 'model'}"])
    return table


def _over(final: Final) -> list[str]:
    """Describe how much faster the last model is than the baseline in other runtimes."""
    return [f"{value:.2f}× the baseline in {name}" for name, value in final.speedup_over.items()]


def plan_table(plan: list[dict[str, Any]]) -> Table:
    """Show what a recipe would do and roughly what it costs on this machine."""
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
    """Show what each step of an extraction leaves, and what the splits hold."""
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
    """Show a timing of several models, a line for each."""
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
        table.add_row(
            f"{model['name']}\n{model['runtime']} {model['precision']}",
            _megabytes(model["size_bytes"]),
            _megabytes(model["peak_memory_bytes"]),
            *(_milliseconds(case.get(model["name"])) for case in timing["latency"].values()),
            f"{on_texts['ms_per_text']:.3g}",
            f"{on_texts['speedup']:.2f}× [{on_texts['spread'][0]:.2f}, {on_texts['spread'][1]:.2f}]",
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


def _interval(value: Interval | None) -> str:
    return "–" if value is None else str(value)


def _cost(entry: Entry) -> tuple[str, str]:
    return f"{entry.cost.parameters / 1e6:.2f} M", f"{entry.cost.size_bytes / 1e6:.1f} MB"
