"""The thesis' claims against made-up results: verdicts from intervals, and what was not measured says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from thesis_tables import CLAIMS, judged, thesis

AVX2 = {"cpu": {"model": "x", "cores": 2, "flags": ["avx2"]}}


def store(root: Path, name: str, document: dict[str, Any]) -> None:
    path = root / "avx2-2cores" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**document, "environment": AVX2}))


def rows(root: Path, claim: str) -> list[list[str]]:
    """Return the cells of a claim's rows, its own words left out."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in thesis(root).splitlines()[2:]]
    first = next(at for at, line in enumerate(lines) if line[0].startswith(claim))
    after = next((at for at in range(first + 1, len(lines)) if lines[at][0]), len(lines))
    return [line[2:] for line in lines[first:after]]


@pytest.mark.parametrize(
    ("bounds", "verdict"), [((0.98, 1.0), "holds"), ((0.9, 0.97), "does not hold"), ((0.97, 0.98), "undecided")]
)
def test_the_whole_interval_decides(bounds: tuple[float, float], verdict: str) -> None:
    assert judged(bounds, 0.975) == verdict


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    assert thesis(tmp_path).count("not measured yet") == len(CLAIMS)


def test_a_domain_result_answers_three_claims_and_as_it_comes_is_no_compressed_language_model(tmp_path: Path) -> None:
    spread = {"median": 2.2, "low": 1.9, "high": 2.4}
    variant = {
        "retained": {"value": 0.99, "low": 0.98, "high": 1.0},
        "fine_tuning_speedup": spread,
        "prediction_speedup": spread,
    }
    model = {"parameters": {"large": 110, "small": 66}}
    variants = {"theseus-6": variant, "as-it-comes": variant}
    document = {"tasks": {"coarse": {"variants": variants}}, "language_models": {"theseus-6": model}}
    store(tmp_path, "domain_e5", document)
    assert rows(tmp_path, "A language model") == [
        ["e5-small, coarse, theseus-6", "0.990 [0.980, 1.000]", "holds"],
    ]
    assert rows(tmp_path, "It is fine-tuned")[0][1:] == ["2.20× [1.90, 2.40] over seeds", "undecided"]
    assert rows(tmp_path, "It predicts")[0][-1] == "holds"
    assert rows(tmp_path, "It has 1.67")[0][1:] == ["1.67×", "holds"]  # 110 / 66


def test_one_way_that_gains_is_enough_against_always(tmp_path: Path) -> None:
    ways = {
        "original": {"retained": {"value": 1.0, "low": 1.0, "high": 1.0}},
        "distillation": {"retained": {"value": 1.01, "low": 1.001, "high": 1.02}},
        "pruning": {"retained": {"value": 0.98, "low": 0.97, "high": 0.99}},
        "int8": {"retained": {"value": 1.0, "low": 0.99, "high": 1.01}},
    }
    points = {"value": 0.4, "low": 0.1, "high": 0.8}
    store(tmp_path, "combinations_minilm_l6", {"ways": ways, "interactions": {"a, b": {"points": points}}})
    (row,) = rows(tmp_path, "Compressing always")
    assert row[1].startswith("of 3 ways 1 lose, 1 gain (distillation)")
    assert row[2] == "does not hold"
    assert rows(tmp_path, "Methods combine")[0][1:] == [
        "+0.40 [+0.10, +0.80] points beyond the sum of its parts",
        "does not hold",
    ]


@pytest.mark.parametrize(
    ("change", "new", "verdict"), [(3.0, False, "holds"), (-4.0, False, "does not hold"), (1.0, True, "does not hold")]
)
def test_error_classes_may_move_by_three(tmp_path: Path, change: float, new: bool, verdict: str) -> None:
    classes = [
        {"error_class": "irony", "change": change, "new": new},
        {"error_class": "context", "change": 0.0, "new": False},
    ]
    store(tmp_path, "error_analysis", {"title": "germeval2018: offense", "classes": classes})
    (row,) = rows(tmp_path, "Errors are")
    assert row[0] == "germeval2018: offense"
    assert row[2] == verdict
