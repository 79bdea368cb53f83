"""Every command and every YAML block in README and guide: the command line takes the one, recipes the other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from plankwise.cli import app
from plankwise.core.recipe import validate
from plankwise.run.domain.settings import Domain
from plankwise.run.recipe import Recipe
from plankwise.search.study import Study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
TOPS: dict[str, type[Any]] = {"language_model": Domain, "seeds": Study, "model": Recipe}  # by a key that others lack


def blocks(*languages: str) -> list[Any]:
    found = []
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text("utf-8"))):
            if match[1] in languages:
                found.append(pytest.param(match[2], id=f"{page.stem}-{number}"))
    return found


def commands() -> list[Any]:
    found = []
    for block in blocks("sh", "bash", ""):
        lines = str(block.values[0]).replace("\\\n", " ").splitlines()
        shown = [line for line in lines if line.strip().startswith("plankwise ")]
        found += [pytest.param(line, id=f"{block.id}-{number}") for number, line in enumerate(shown)]
    return found


@pytest.mark.parametrize("line", commands())
def test_the_command_line_takes_it(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    while getattr(command, "commands", None):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    command.make_context("plankwise", words)  # refuses options that do not exist, and arguments that are missing


def whole_recipes() -> list[Any]:
    """Collect the blocks that are a whole recipe, study or experiment; of parts the prose says the rest."""
    found = []
    for block in blocks("yaml"):
        text = str(block.values[0])
        data = yaml.safe_load(text)
        kind = next((kind for key, kind in TOPS.items() if isinstance(data, dict) and key in data), None)
        if kind is not None and "..." not in text and (kind is not Recipe or "task" in data):
            found.append(pytest.param({"name": "x", **data}, kind, id=block.id))
    return found


@pytest.mark.parametrize(("data", "kind"), whole_recipes())
def test_recipes_take_it(data: dict[str, Any], kind: type[Any]) -> None:
    assert validate(data, kind).name == data["name"]


def test_there_is_something_to_check() -> None:
    assert len(commands()) > 15
    assert {each.values[1] for each in whole_recipes()} == {Recipe, Study}
