"""The README's table of headline results, from results/."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import encoder_tables
from results import RESULTS, describe, environment_of, machine_class, results_of
from score_tables import interval

ENCODERS = tuple(f"shrink_{encoder}" for encoder in encoder_tables.ENCODERS)
DOMAINS = {"domain_e5": "e5-small", "domain_minilm": "minilm-l6", "domain_lm": "", "domain_lm_clinical": ""}
HALVED = ("theseus-6", "theseus-3", "compressed")  # what these experiments call the thesis' way
SOURCES = (*ENCODERS, *DOMAINS)


def fastest(name: str, root: Path = RESULTS) -> dict[str, Any]:
    """Return a result of the fastest class of machine that has it; empty if no machine has."""
    return next(iter(results_of(name, root).values()), {})


def headline(root: Path = RESULTS) -> str:
    """Write one row for each result on pretrained encoders and language models, from the fastest class of machine."""
    lines = [
        "| what | data | retained [95 %] | × torch eager | × ONNX Runtime fp32 | size | more |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
        *(f"| {' | '.join(row)} |" for row in (*encoder_rows(root), *domain_rows(root))),
    ]
    machines = sorted({describe(environment_of(fastest(name, root))) for name in SOURCES if fastest(name, root)})
    return "\n".join([*lines, "", f"Measured on {'; on '.join(machines)}."])


def row(what: str, data: str, more: str, **figures: str) -> list[str]:
    """Return the cells of a row; figures are `retained`, `eager`, `onnx`, `size`, empty where nothing was measured."""
    cells = [figures.get(name, "") for name in ("retained", "eager", "onnx", "size")]
    return [what, data, *cells, f"[{more}](docs/results/{more}.md)"]


def encoder_rows(root: Path) -> list[list[str]]:
    """Write a row for each ready recipe of each pretrained encoder."""
    rows = []
    for source in ENCODERS:
        result = fastest(source, root)
        for recipe in dict.fromkeys(each["recipe"] for each in result.get("runs", ())):
            runs = [each for each in result["runs"] if each["recipe"] == recipe]
            kept = result["retained_over_seeds"].get(recipe) or runs[0]["retained"]
            eager, onnx = (
                f"{statistics.median(each['speedup'][name]['value'] for each in runs):.2f}"
                for name in ("torch fp32", "ONNX Runtime fp32")
            )
            what = f"{result['encoder']}, `shrink --recipe {recipe}`, on {machine_class(environment_of(result))}"
            size = f"{statistics.median(each['size_bytes'] for each in runs) / 1e6:.0f} MB"
            size += f" of {result['original_bytes'] / 1e6:.0f}"
            figures = {"retained": interval(kept), "eager": eager, "onnx": onnx, "size": size}
            seeds = f"{len(runs)} seed{'' if len(runs) == 1 else 's'}"
            rows.append(row(what, f"{result['task']}, {seeds}", "encoders", **figures))
    return rows


def domain_rows(root: Path) -> list[list[str]]:
    """Write a row for each task that a language model was halved and fine-tuned for, the thesis' way."""
    found = [
        (encoder, name, each)
        for source, encoder in DOMAINS.items()
        for name, task in fastest(source, root).get("tasks", {}).items()
        for variant, each in task["variants"].items()
        if variant in HALVED
    ]
    return [
        row(
            f"language model{f' of {encoder}' if encoder else ''} halved once, then fine-tuned",
            name,
            "language-models",
            retained=interval(each["retained"]),
            eager=f"{each['prediction_speedup']['median']:.2f}",
        )
        for encoder, name, each in found
    ]
