"""What a study found: one JSON document, one page, its plots. All of it follows from the table of trials."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from markupsafe import Markup

from plankwise.core.files import write_json, write_text
from plankwise.evaluation.effects import Level, TrialTable, main_effects, short_names, table_of
from plankwise.evaluation.noise import in_place_of_score, noise_of
from plankwise.report.plots import MAIN_EFFECTS, draw_all
from plankwise.report.svg import interval_picture
from plankwise.report.templates import render
from plankwise.search.storage import SEED, distributions, encoded
from plankwise.search.study_folder import DOCUMENT, PLOTS, REPORT
from plankwise.search.study_plan import StudyPlan
from plankwise.search.trial_table import LOSS, TrialRow
from plankwise.search.worker import require_result

BEST = 5  # settings that are listed


def write_study(plan: StudyPlan, rows: Sequence[TrialRow], out: Path) -> dict[str, Any]:
    """Analyse the trials; write `study.json`, `plots/` and `report.html` into the study's folder.

    Returns:
        The document of `study.json`.

    Raises:
        CheckpointError: if no trial is complete; nothing is written then.
    """
    require_result(rows, str(out))
    table = table_of(rows, plan.keys)
    effects = {key: main_effects(table, key) for key in plan.keys}
    importances, metric = importance(plan, table), plan.task.metrics[0]
    losses = in_place_of_score(table, LOSS)
    on_loss = {} if losses is None else {key: main_effects(losses, key) for key in plan.keys}
    states = [row["state"] for row in rows]
    document = {
        "name": plan.study.name,
        "task": plan.task.name,
        "metric": metric,
        "split": "development",
        "sampler": plan.study.sampler,
        "parameters": plan.keys,
        "seeds": plan.study.seeds,
        "settings": plan.settings_count,
        "counts": {state: states.count(state) for state in ("complete", "failed", "running", "waiting")},
        "train_seconds": sum(row["train_seconds"] or 0.0 for row in rows),
        "best": _best(table),
        "effects": {key: [asdict(level) for level in levels] for key, levels in effects.items()},
        "loss_effects": {key: [asdict(level) for level in levels] for key, levels in on_loss.items()},
        "noise": noise_of(table),
        "importance": importances,
        "trials": list(rows),
    }
    write_json(out / DOCUMENT, document)
    plots = draw_all(table, effects, importances, metric=metric, folder=out / PLOTS)
    images = [
        (path.stem.replace("_", " "), base64.b64encode(path.read_bytes()).decode())
        for path in plots
        if path.stem != MAIN_EFFECTS  # the page draws them itself
    ]
    short = short_names(plan.keys)
    pictures = effect_pictures(effects, short, metric)
    write_text(out / REPORT, render("study.html.j2", study=document, images=images, short=short, pictures=pictures))
    return document


def effect_pictures(effects: Mapping[str, Sequence[Level]], short: Mapping[str, str], metric: str) -> list[Markup]:
    """Draw the effects of the values of each parameter that is varied; those of a single seed have no ends."""
    found = []
    for key, levels in effects.items():
        if len(levels) < 2:
            continue
        rows = []
        for level in levels:
            value, ends = level.effect.value, (level.effect.low, level.effect.high)
            low, high = (value if end is None else end for end in ends)
            rows.append((f"{short[key]} {level.value}", value, low, high))
        spoken = "; ".join(f"{name} {value:+.4f}" for name, value, *_ in rows)
        title = f"effect of {short[key]} on {metric}: {spoken}"
        found.append(interval_picture(rows, reference=0.0, title=title, digits=4))
    return found


def _best(table: TrialTable) -> list[dict[str, Any]]:
    """Return the settings with the best mean score, among those that were run with the most seeds."""
    # A setting that is still incomplete could win by a lucky seed: compare those with the most seeds only.
    grouped = table.rows.groupby(list(table.keys), dropna=False, sort=False)["score"]
    summary = grouped.agg(["mean", "min", "max", "count"]).reset_index()
    whole = summary[summary["count"] == summary["count"].max()].sort_values("mean", ascending=False).head(BEST)
    return [
        {
            "setting": {key: _plain(row[key]) for key in table.keys},
            **{name: float(row[name]) for name in ("mean", "min", "max")},
            "seeds": int(row["count"]),
        }
        for row in whole.to_dict("records")
    ]


def _plain(value: Any) -> Any:
    """Return a value of pandas as Python's own, which JSON can hold."""
    return value.item() if hasattr(value, "item") else value


def importance(plan: StudyPlan, table: TrialTable) -> dict[str, float]:
    """Compute fANOVA importances (Hutter et al. 2014): the share of variance that each parameter explains alone.

    The seed is one of the parameters: what explains less than the seed does is indistinguishable from noise. The forest
    is seeded.
    """
    if len(table.rows) < 2 or table.rows["score"].nunique() < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    spaces = distributions(plan)
    for row in table.rows.to_dict("records"):
        values = {key: encoded(_plain(row[key])) for key in (*table.keys, SEED)}
        study.add_trial(optuna.create_trial(params=values, distributions=spaces, value=float(row["score"])))
    found = optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(study)
    return {key: float(value) for key, value in found.items()}
