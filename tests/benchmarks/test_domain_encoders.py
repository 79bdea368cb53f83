"""Seeds of a domain experiment that were made one by one say the same as if they had been made together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domain_encoders import keep_seed, merged
from finished_run import write_run
from plankwise.report.domain_table import summarize

VARIANTS = ("theseus-6", "theseus-6-pruned")


def experiment(out: Path, seed: int, variants: tuple[str, ...] = VARIANTS) -> Path:
    """Write what `plankwise domain` leaves of one seed, models left out."""
    out.mkdir()
    models = {"large": write_run(out / "language-model", trained=True)}
    for name in variants:
        models[name] = write_run(out / f"language-model-{name}", trained=True)
    runs = {name: [write_run(out / f"coarse-{name}-{seed}", seed=seed, right=14 + seed)] for name in variants}
    document = summarize("by the file", models, {"coarse": runs})
    document["tasks"]["coarse"]["runtimes"] = {"large": {}}
    (out / "domain.json").write_text(json.dumps({**document, "preparation": None}))
    return out


def test_seeds_are_merged_from_what_they_left(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    for seed in (1, 2):
        keep_seed(experiment(tmp_path / f"work-{seed}", seed), kept / f"seed-{seed}", "by the file")
    found = merged(kept)
    together = {name: [tmp_path / f"work-{seed}" / f"coarse-{name}-{seed}" for seed in (1, 2)] for name in VARIANTS}
    models = {"large": tmp_path / "work-1/language-model"}
    models |= {name: tmp_path / f"work-1/language-model-{name}" for name in VARIANTS}
    expected = summarize("by the file", models, {"coarse": together})
    assert found["seeds"] == 2
    assert found["tasks"]["coarse"]["variants"] == expected["tasks"]["coarse"]["variants"]
    assert found["language_models"] == expected["language_models"]
    size = sum(each.stat().st_size for each in kept.rglob("*") if each.is_file())
    assert size < 200_000  # it is committed


def test_a_seed_of_other_variants_is_refused(tmp_path: Path) -> None:
    keep_seed(experiment(tmp_path / "one", 1), tmp_path / "kept/seed-1", "x")
    keep_seed(experiment(tmp_path / "other", 2, VARIANTS[:1]), tmp_path / "kept/seed-2", "x")
    with pytest.raises(SystemExit, match="seed-2 has other tasks or variants than seed-1"):
        merged(tmp_path / "kept")
