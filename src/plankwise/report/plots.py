"""Plots of a study: main effects, pairs of parameters, importance, cost against score. Each is one PNG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from plankwise.evaluation.effects import Level, TrialTable, levels_of, short_names

INK, LINE, PALE = "#333333", "#2a6f97", "#d9d9d9"
COLUMNS = 3
MAIN_EFFECTS = "main_effects"


def draw_all(
    table: TrialTable, effects: dict[str, list[Level]], importances: dict[str, float], *, metric: str, folder: Path
) -> list[Path]:
    """Draw every plot that the trials support, as PNG files.

    Args:
        table: the finished trials.
        effects: of each parameter's values.
        importances: of each parameter, and of the seed.
        metric: name of the score.
        folder: of the files; created if needed.

    Returns:
        The files; a study that varies a single parameter has no plot of pairs, one that varies none only that of cost.
    """
    folder.mkdir(parents=True, exist_ok=True)
    varied = [key for key in table.keys if len(effects[key]) > 1]
    plots: dict[str, Callable[[], Figure]] = {
        MAIN_EFFECTS: lambda: main_effects_plot({key: effects[key] for key in varied}, metric),
        "pairs": lambda: pairs_plot(table, varied, metric),
        "importance": lambda: importance_plot(importances),
        "cost": lambda: cost_plot(table, varied, metric),
    }
    possible = {
        MAIN_EFFECTS: bool(varied),
        "pairs": len(varied) > 1,
        "importance": bool(varied and importances),  # empty while the first trials have equal scores
        "cost": True,
    }
    made = []
    for name, draw in plots.items():
        if possible[name]:
            made.append(folder / f"{name}.png")
            _save(draw(), made[-1])
    return made


def main_effects_plot(effects: dict[str, list[Level]], metric: str) -> Figure:
    """Draw the effects of each parameter's values with their intervals, on one scale for all parameters."""
    figure, axes = _panels(len(effects), 2.9, share=True)
    short = short_names(list(effects))
    for axis, (key, levels) in zip(axes, effects.items(), strict=False):
        places, values = np.arange(len(levels)), [level.effect.value for level in levels]
        axis.axhline(0, color=PALE, linewidth=1, zorder=0)
        for place, level in zip(places, levels, strict=True):
            if level.effect.low is not None and level.effect.high is not None:
                axis.plot([place, place], [level.effect.low, level.effect.high], color=LINE, linewidth=1.5, alpha=0.6)
        axis.plot(places, values, "o-" if _ordered(levels) else "o", color=LINE, markersize=5, linewidth=1)
        _name_levels(axis, [level.value for level in levels])
        axis.set_title(short[key], loc="left", fontsize=10, color=INK)
        axis.set_xlim(-0.5, len(levels) - 0.5)
    axes[0].set_ylabel(f"effect on {metric}", color=INK, fontsize=9)
    return figure


def pairs_plot(table: TrialTable, keys: list[str], metric: str) -> Figure:
    """Draw the mean score of each pair of values of two parameters, over everything else."""
    short = short_names(keys)
    pairs = list(itertools.combinations(keys, 2))
    means = [_pair_means(table, *pair) for pair in pairs]
    # One color scale for all panels; pairs of values that no trial has are not numbers.
    low, high = min(np.nanmin(each) for each in means), max(np.nanmax(each) for each in means)
    figure, axes = _panels(len(pairs), 3.2)
    for axis, (one, other), mean in zip(axes, pairs, means, strict=False):
        axis.imshow(mean, cmap="Blues", vmin=low, vmax=high, aspect="auto")
        dark = low + 0.6 * (high - low)
        for row, column in np.ndindex(*mean.shape):
            if np.isfinite(mean[row, column]):
                color = "white" if mean[row, column] > dark else INK
                axis.text(column, row, f"{mean[row, column]:.3f}", ha="center", va="center", color=color, fontsize=7)
        _name_levels(axis, levels_of(table, other)[0])
        names = levels_of(table, one)[0]
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_title(f"{short[one]} (down) and {short[other]} (across)", loc="left", fontsize=9, color=INK)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
    figure.suptitle(f"mean {metric}", x=0.01, ha="left", fontsize=9, color=INK)
    return figure


def _pair_means(table: TrialTable, one: str, other: str) -> Any:
    (names, rows), (others, columns) = levels_of(table, one), levels_of(table, other)
    frame = pd.DataFrame({"row": rows, "column": columns, "score": table.rows["score"].to_numpy(dtype=np.float64)})
    wide = frame.pivot_table(index="row", columns="column", values="score", aggfunc="mean")
    return wide.reindex(index=range(len(names)), columns=range(len(others))).to_numpy()


def importance_plot(importances: dict[str, float]) -> Figure:
    """Draw the share of the variance that each parameter explains alone."""
    figure, (axis,) = _panels(1, 0.6 + 0.4 * len(importances), width=6.0)
    names, short = list(importances)[::-1], short_names(list(importances))
    axis.barh(
        [short[name] for name in names],
        [importances[name] for name in names],
        color=[PALE if name == "seed" else LINE for name in names],
        height=0.6,
    )
    for place, name in enumerate(names):
        axis.text(importances[name] + 0.01, place, f"{importances[name]:.2f}", va="center", fontsize=8, color=INK)
    axis.set_xlim(0, max(0.1, *importances.values()) * 1.15)
    axis.set_xlabel("share of the variance explained alone (fANOVA)", color=INK, fontsize=9)
    return figure


def cost_plot(table: TrialTable, keys: list[str], metric: str) -> Figure:
    """Draw seconds of training against score, one point per trial, colored by the parameter that affects cost most."""
    figure, (axis,) = _panels(1, 3.6, width=6.0)
    seconds, scores = (table.rows[name].to_numpy(dtype=np.float64) for name in ("train_seconds", "score"))
    key = max(keys, key=lambda each: _explained(seconds, levels_of(table, each)[1]), default=None)
    names, levels = levels_of(table, key) if key is not None else ([""], np.zeros(len(scores), dtype=np.int64))
    shades = np.linspace(0.25, 0.9, len(names))
    for index, name in enumerate(names):
        chosen = levels == index
        axis.scatter(seconds[chosen], scores[chosen], s=18, color=_blue(shades[index]), label=name, linewidths=0)
    if key is not None:
        title = short_names(list(table.keys))[key]
        axis.legend(title=title, frameon=False, fontsize=8, title_fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    axis.set_xlabel("seconds of training", color=INK, fontsize=9)
    axis.set_ylabel(metric, color=INK, fontsize=9)
    return figure


def _explained(values: Any, levels: Any) -> float:
    means = pd.Series(values).groupby(levels).transform("mean")
    return float(np.var(means))


def _blue(shade: float) -> tuple[float, float, float]:
    return (0.85 - 0.75 * shade, 0.9 - 0.55 * shade, 0.95 - 0.4 * shade)


def _panels(count: int, height: float, width: float = 3.4, share: bool = False) -> tuple[Figure, list[Axes]]:
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share)
    axes = list(grid.flat)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8, colors=INK)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes


def _name_levels(axis: Axes, names: list[str]) -> None:
    crowded = sum(len(name) for name in names) > 30
    axis.set_xticks(
        range(len(names)), names, fontsize=8, rotation=40 if crowded else 0, ha="right" if crowded else "center"
    )


def _ordered(levels: list[Level]) -> bool:
    # Numbers and ranges ("0.1 to 0.3") are connected by a line; names are not, as they have no order.
    return all(
        level.value.split(" ")[0].replace(".", "").replace("-", "").replace("e", "").isdigit() for level in levels
    )


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)  # draws without a display, and without pyplot's global state
    # A page embeds the file: it must never see half of one.
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", dpi=130)
    temporary.replace(path)
