"""A finished run of a tiny model, and a review of six made-up errors."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from plankwise.core.recipe import read_recipe
from plankwise.review.store import FILE, Item, ReviewStore
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe

RECIPE = """
name: tiny
task: {{name: table, train: {data}}}
model: {{source: {model}, max_length: 32}}
baseline: {{epochs: 0.1, batch_size: 16, learning_rate: 1.0e-3}}
steps: [{{method: layer_subset, layers: 1, training: {{epochs: 0.1, batch_size: 16}}}}]
evaluation: {{bootstrap: 100, rounds: 3, threads: 1, onnx_baseline: false}}
"""
TEXTS = [
    ("plain words", ("baseline", "compressed"), "false positive"),
    ("<script>document.title = 'broken'</script> & <b>bold</b>", ("baseline",), "false positive"),
    ("größer 好 😀", ("compressed",), "false positive"),
    ("one more", ("baseline", "compressed"), "false negative"),
    ("and another", ("compressed",), "false negative"),
    ("the last", ("baseline",), "false negative"),
]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reviewed")
    data, model = tiny.write_table(folder, 200), tiny.save_source(folder / "source")
    (folder / "recipe.yaml").write_text(RECIPE.format(data=data, model=model))
    run(check(read_recipe(folder / "recipe.yaml", Recipe)), folder / "run")
    return folder / "run"


@pytest.fixture
def store(tmp_path: Path) -> ReviewStore:
    items = [
        Item(number, f"row-{number}", text, None, "good", ("bad",), kind, models)
        for number, (text, models, kind) in enumerate(TEXTS, 1)
    ]
    meta = {"title": "Mood: bad", "class": "bad", "counts": {}, "access": "open", "run": "tiny", "seed": 0}
    return ReviewStore.create(tmp_path / FILE, items, ["irony", "quotation"], meta)
