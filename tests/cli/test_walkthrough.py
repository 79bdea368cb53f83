"""The commands and snippets of README and guide, run one after the other as a reader would, on a tiny model.

Commands that take long whatever the model's size are left to tests of their own: `shrink`, `search`, `study`, `review
serve`, and `export` where it tries every runtime. That the command line takes these lines as they are written is
checked in `test_docs.py`.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch

import plankwise
import tiny
from plankwise.core.errors import MethodError
from plankwise.core.recipe import validate
from plankwise.encoder.anatomy import layers_of
from plankwise.methods.method import Method
from plankwise.methods.registry import METHODS, union_of
from plankwise.review.store import ReviewStore
from test_docs import BLOCK, PAGES, commands

ORDER = ("run", "export", "predict", "compare", "review", "report")  # each needs what those before it have made
ELSEWHERE = ("shrink", "search", "study", "review serve", "export runs/mine/model --out mine-small")


def shown_commands() -> list[list[str]]:
    """Return the commands that are run here, as words after `plankwise`, in an order that works."""
    found = [shlex.split(str(each.values[0]), comments=True)[1:] for each in commands()]
    here = [words for words in found if not any(words[: len(left)] == left for left in map(str.split, ELSEWHERE))]
    assert {words[0] for words in here} == set(ORDER)
    return sorted(here, key=lambda words: ORDER.index(words[0]))


def snippets(language: str) -> list[str]:
    return [match[2] for page in PAGES for match in BLOCK.finditer(page.read_text("utf-8")) if match[1] == language]


def write_files(place: Path) -> None:
    """Write what README and guide speak of: tables of comments, texts, and a model where a Hub id would be."""
    for seed, name in enumerate(("train", "test", "comments", "unseen"), 1):
        with (place / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["id", "comment", "verdict", "label", "source"])
            for number, row in enumerate(tiny.rows(160 if name == "train" else 60, seed)):
                table.writerow([row["id"], row["text"], row["label"], row["label"], ("forum", "news")[number % 2]])
    (place / "comments.csv.gz").write_bytes(gzip.compress((place / "comments.csv").read_bytes()))
    (place / "texts.txt").write_text("a lovely day\nthe grim river\n")
    source, tokenizer = place / "deepset/gbert-base", tiny.tokenizer()
    tokenizer.model_max_length = 128
    tiny.model(layers=2, max_position_embeddings=136).save_pretrained(source)
    tokenizer.save_pretrained(source)
    (recipe,) = [each for each in snippets("yaml") if each.startswith("# recipe.yaml") and "verdict}" in each]
    (place / "recipe.yaml").write_text(recipe + "evaluation: {onnx_baseline: false}  # a quarter of this test's time\n")


def write_names(place: Path) -> None:
    """Link what was made so far under the names that other pages use."""
    (place / "fast").mkdir()
    links = {
        "my-classifier": "runs/mine/baseline",
        "fast/artefact": "mine-avx2",
        "mine-fast": "mine-avx2",
        **{f"base-{number}": "runs/mine/baseline" for number in (1, 2, 3)},
        **{f"small-{number}": "runs/mine/model" for number in (1, 2, 3)},
    }
    for name, target in links.items():
        (place / name).symlink_to(place / target)
    for number in (1, 2, 3):
        shutil.copytree(place / "runs/mine", place / f"runs/mine-{number}")


def test_readme_and_guide_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    named = False
    for words in shown_commands():
        if words[0] not in ("run", "export") and not named:
            write_names(tmp_path)
            named = True
        if words[:2] == ["review", "summary"]:  # `review serve` would have asked somebody
            store = ReviewStore(tmp_path / "runs/mine/review/review.sqlite")
            store.answer(1, "Ada", store.add_class("irony"), "")
        placed = [re.sub(r"^RUN\b", "runs/mine", word) for word in words]
        assert tiny.call(monkeypatch, *placed) == 0, shlex.join(words)
    assert parquet.read_table(tmp_path / "labels.parquet").num_rows == 60
    with (tmp_path / "labels.csv").open(newline="") as file:
        assert {row["predicted_label"] for row in csv.DictReader(file)} <= set(tiny.LABELS)

    (without_plankwise,) = [each for each in snippets("sh") if each.startswith("python mine-int8/predict.py")]
    command = without_plankwise.replace("python ", f"{shlex.quote(sys.executable)} ", 1)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, timeout=300)
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 2

    ran = [each for each in snippets("python") if "import plankwise" in each]
    assert len(ran) == 3
    for snippet in ran:
        exec(compile(snippet, "<snippet>", "exec"), {"texts": ["a lovely day", "the grim river"]})
    assert (tmp_path / "elsewhere/config.json").is_file()


def test_the_method_of_the_guide_is_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = [each for each in snippets("python") if "class TopLayerDropped" in each]
    (tmp_path / "top_layer_dropped.py").write_text(shown)
    monkeypatch.syspath_prepend(tmp_path)
    found = importlib.import_module("top_layer_dropped").TopLayerDropped
    method: Method = validate(
        {"method": "top_layer_dropped", "training": {"epochs": 1, "batch_size": 32}}, union_of((*METHODS, found))
    )
    model = tiny.model(layers=2)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    planned = method.plan(tiny.spec(model))
    made = method.compress(model, tiny.job(tmp_path / "work"))
    assert len(layers_of(made.model)) == planned.config.num_hidden_layers == 1
    assert made.log.training is not None
    assert made.log.training.steps == 3  # of 96 examples
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    plankwise.save(made.model, made.tokenizer, tmp_path / "model")
    assert len(layers_of(plankwise.load(tmp_path / "model"))) == 1
    with pytest.raises(MethodError, match="the model has one layer; allowed: two or more"):
        method.plan(planned)
