"""A model that cannot be read rightly is refused by every verb, in one line, before anything is written."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from plankwise.encoder.checkpoint import save

VERBS: dict[str, list[str]] = {
    "run": ["recipe.yaml", "--out", "out"],
    "dry run": ["recipe.yaml", "--out", "out", "--dry-run"],
    "evaluate": ["m", "--recipe", "recipe.yaml"],
    "predict": ["m", "data.csv", "out.csv"],
    "export": ["m", "--out", "out", "--to", "torch", "--precision", "fp32", "--recipe", "recipe.yaml"],
    "bench": ["m", "--texts", "data.csv", "--rounds", "3", "--no-baselines", "--no-memory"],
}
RECIPE = """
name: tiny
task: {name: table, train: data.csv, metrics: [macro_f1]}
model: {source: m, max_length: 32}
baseline: {epochs: 1, batch_size: 16}
"""


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """Call a verb on the model `m`; give its one line."""
    monkeypatch.chdir(tmp_path)
    tiny.write_table(tmp_path, 60)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def call(verb: str) -> str:
        assert tiny.call(monkeypatch, verb.rpartition(" ")[2], *VERBS[verb]) == 2
        assert sorted(each.name for each in tmp_path.iterdir()) == ["data.csv", "m", "recipe.yaml"]
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("plankwise: ")]
        assert len(lines) == 1
        return lines[0]

    return call


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_without_tokenizer(refused: Callable[[str], str], verb: str) -> None:
    model = tiny.model(layers=1)
    model.config.id2label = {0: "bad", 1: "good"}
    model.save_pretrained("m")
    assert "m has no tokenizer, neither tokenizer.json nor vocab.txt" in refused(verb)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if "run" not in verb])
def test_a_model_of_two_numbers(refused: Callable[[str], str], verb: str) -> None:
    model = tiny.model(layers=1, labels=2)
    model.config.problem_type = "regression"
    save(model, tiny.tokenizer(), "m")
    assert "m answers with 2 numbers; allowed: one" in refused(verb)


@pytest.mark.parametrize("verb", VERBS)
def test_texts_of_another_language(refused: Callable[[str], str], verb: str) -> None:
    tiny.save_source(Path("m"), layers=1)
    with Path("data.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        rows.writerows(("ein schöner Tag" if at % 2 else "ein düsterer", ("bad", "good")[at % 2]) for at in range(60))
    assert "100% of the tokens of a sample of the texts are unknown to the tokenizer of" in refused(verb)
