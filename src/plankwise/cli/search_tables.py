"""Tables of searches under a budget, for the terminal."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.table import Table

from plankwise.cli.tables import print_table
from plankwise.core.intervals import format_interval
from plankwise.core.progress import duration
from plankwise.data.metric_names import agreement_name

NOT_MET = 3  # exit code: the budget is missed, and the best model found is saved


def print_outcome(document: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """Print a search's document, or its verdict, its table and further lines.

    Raises:
        typer.Exit: with code 3 if the budget is not met.
    """
    if as_json:
        typer.echo(json.dumps(document))
    else:
        typer.echo(lines[0])
        print_table(candidates_table(document))
        typer.echo("\n".join(lines[1:]))
    if not document["verdict"]["met"]:
        raise typer.Exit(NOT_MET)


def candidates_table(document: dict[str, Any]) -> Table:
    """Return the table of a search: every candidate on development, the chosen one marked."""
    original, metric = document["original"], document["metric"]
    table = Table(title=f"candidates on development, speed over {original['reference']}", title_justify="left")
    for column in ("candidate", metric, "retained [95 %]", agreement_name(metric), "faster [95 %]", "MB", "min"):
        table.add_column(column, justify="left" if column == "candidate" else "right", no_wrap=column != "candidate")
    for each in document["candidates"]:
        chosen, front = each == document["chosen"], each["candidate"]["name"] in document["front"]
        speed, retained = each["speedup"], each["retained"]
        table.add_row(
            f"{'→ ' if chosen else '· ' if front else '  '}{each['candidate']['name']}",
            f"{each['scores'][metric]:.3f}",
            format_interval(retained["value"], retained["low"], retained["high"]),
            f"{each['agreement']:.3f}",
            format_interval(speed["value"], speed["low"], speed["high"], digits=2, unit="×"),
            f"{each['size_bytes'] / 1e6:.1f}",
            f"{each['seconds'] / 60:.1f}",
            style="bold" if chosen else None,
        )
    for each in document["failures"]:
        table.add_row(f"  {each['candidate']['name']}", "left out", each["fault"], "", "", "", "")
    spent = duration(document["spent_seconds"])
    table.caption = f"→ chosen, · on the front; {spent} spent, ended because {document['ended']}"
    return table


def shrink_plan_table(rows: list[dict[str, Any]]) -> Table:
    """Return the table of what a search would try."""
    table = Table(
        title="Plan; nothing has been measured. Later rungs depend on what earlier ones show", title_justify="left"
    )
    for column in ("candidate", "about", "within the time"):
        table.add_column(column, justify="left" if column == "candidate" else "right")
    for row in rows:
        table.add_row(row["stage"], duration(row["seconds"]), "yes" if row["fits"] else "no")
    return table
