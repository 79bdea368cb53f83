"""The folder of a run with several processes: what the main process refuses, all of them refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from plankwise.core.claims import ExclusiveClaim
from plankwise.run.folder import LOCK
from processes import run_ranks

RECIPE = """
name: tiny
task: {{name: table, train: {data}}}
model: {{source: {model}, max_length: 32}}
baseline: {{epochs: 1, batch_size: 32}}
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(data=tiny.write_table(tmp_path), model=tiny.save_source(tmp_path / "source")))
    return ["-m", "plankwise", "run", str(recipe), "--out", str(tmp_path / "out")]


def test_a_folder_in_use_ends_both_processes(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with ExclusiveClaim(tmp_path / "out" / LOCK, tmp_path / "out"):
        for code, said in run_ranks(command, tmp_path):
            assert code == 2, said
            assert "another process is writing to" in said
