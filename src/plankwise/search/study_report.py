"""What a study found: one JSON document, one page, one table for the terminal. All of it follows from the trials."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import optuna
from rich.table import Table as RichTable

from plankwise.core.files import write_json, write_text
from plankwise.evaluation.effects import Table, main_effects, short_names, shown_estimate, table_of
from plankwise.report.plots import draw_all
from plankwise.search.settings import Plan, shown
from plankwise.search.storage import SEED, distributions, encoded
from plankwise.search.trials import Row
from plankwise.search.worker import refuse_without_result

DOCUMENT, REPORT, PLOTS = "study.json", "report.html", "plots"
Document = dict[str, Any]


def write_study(plan: Plan, rows: Sequence[Row], out: Path) -> Document:
    """Analyse the trials and write `study.json`, which it gives, `plots/` and `report.html` into the study's folder.

    Raises:
        CheckpointError: if no trial is complete; nothing is written then.
    """
    refuse_without_result(rows, str(out))
    table = table_of(rows, plan.keys)
    document = _document(plan, rows, table)
    write_json(out / DOCUMENT, document)
    plots: list[Path] = []
    if len(table.rows):
        effects = {key: main_effects(table, key) for key in plan.keys}
        plots = draw_all(table, effects, document["importance"], document["metric"], out / PLOTS)
    template = files("plankwise.search").joinpath("study.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(interval=shown_estimate, shown=shown)
    images = [(path.stem.replace("_", " "), base64.b64encode(path.read_bytes()).decode()) for path in plots]
    short = short_names([*plan.keys])
    write_text(out / REPORT, environment.from_string(template).render(study=document, images=images, short=short))
    return document


def _document(plan: Plan, rows: Sequence[Row], table: Table) -> Document:
    states = [row["state"] for row in rows]
    return {
        "name": plan.study.name,
        "task": plan.task.name,
        "metric": plan.task.metrics[0],
        "split": "development",
        "sampler": plan.study.sampler,
        "parameters": plan.keys,
        "seeds": plan.study.seeds,
        "settings": plan.settings_count,
        "counts": {state: states.count(state) for state in ("complete", "failed", "running", "waiting")},
        "train_seconds": sum(row["train_seconds"] or 0.0 for row in rows),
        "best": _best(table),
        "effects": {key: [asdict(level) for level in main_effects(table, key)] for key in plan.keys}
        if len(table.rows)
        else {},
        "importance": importance(plan, table),
        "trials": list(rows),
    }


def _best(table: Table) -> list[Row]:
    """Give the five settings with the best mean score over the seeds that all of them were run with."""
    if not len(table.rows):
        return []
    grouped = table.rows.groupby(list(table.keys), dropna=False, sort=False)["score"]
    summary = grouped.agg(["mean", "min", "max", "count"]).reset_index()
    whole = summary[summary["count"] == summary["count"].max()].sort_values("mean", ascending=False).head(5)
    return [
        {
            "setting": {key: _plain(row[key]) for key in table.keys},
            **{name: float(row[name]) for name in ("mean", "min", "max")},
            "seeds": int(row["count"]),
        }
        for row in whole.to_dict("records")
    ]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def importance(plan: Plan, table: Table) -> dict[str, float]:
    """Compute fANOVA importances (Hutter et al. 2014): the share of variance that each parameter explains alone.

    The seed is a parameter among the others: what matters less than it is lost in the noise. The forest is seeded.
    """
    study = optuna.create_study(direction="maximize")
    spaces = distributions(plan)
    for row in table.rows.to_dict("records"):
        values = {key: encoded(_plain(row[key])) for key in (*table.keys, SEED)}
        study.add_trial(optuna.create_trial(params=values, distributions=spaces, value=float(row["score"])))
    if len(table.rows) < 2 or table.rows["score"].nunique() < 2:
        return {}
    found = optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(study)
    return {key: float(value) for key, value in found.items()}


def study_table(document: Document, out: Path) -> RichTable:
    """Show the effect of each parameter's values, and under them the best setting and how many trials there are."""
    counts = ", ".join(f"{count} {state}" for state, count in document["counts"].items() if count)
    table = RichTable(title=f"{document['name']}: {counts}", title_justify="left")
    for column, justify in (("parameter", "left"), ("value", "right"), ("effect [95 %]", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    short = short_names([*document["effects"]])
    for key, levels in document["effects"].items():
        for at, level in enumerate(levels):
            table.add_row("" if at else short[key], str(level["value"]), shown_estimate(level["effect"]))
    best = document["best"][:1]
    lines = [
        f"best: {shown(each['setting'])}: {document['metric']} {each['mean']:.4f}, {each['seeds']} seeds"
        for each in best
    ]
    table.caption = "\n".join([*lines, str(out / REPORT)])
    return table
