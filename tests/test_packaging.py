"""What pyproject.toml declares against what the source imports, and what the repository's own pages link to."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from plankwise.core.packages import EXTRAS

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
# Modules that are named differently from their distribution.
MODULES = {"pyyaml": "yaml", "scikit-learn": "sklearn", "py-cpuinfo": "cpuinfo", "psycopg2-binary": "psycopg2"}
BY_PLATFORM = {"cpuinfo"}  # imported where Linux' /proc/cpuinfo is missing
WITH_OTHERS = {
    "MySQLdb",
    "google",
    "markupsafe",
    "pydantic_core",
    "sentencepiece",
    "sqlalchemy",
}  # of a dependency or extra


def declared() -> set[str]:
    """Return the modules of the base dependencies; `tomllib` needs Python 3.11, so the list is read by a pattern."""
    listed = re.search(r"^dependencies = \[\n(.*?)^\]", PROJECT, re.S | re.M)
    assert listed is not None
    names = re.findall(r'"([A-Za-z0-9-]+)', listed[1])
    return {MODULES.get(name, name.replace("-", "_")) for name in names}


def imported() -> dict[str, Path]:
    """Return every third-party module that the source imports anywhere, with one file that does."""
    found: dict[str, Path] = {}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""] if node.level == 0 else []
            else:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {name.partition(".")[0]: path for name in names}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names and name != "plankwise"}


def test_every_import_is_declared_or_belongs_to_an_extra() -> None:
    known = declared() | EXTRAS.keys() | WITH_OTHERS
    undeclared = {name: str(path) for name, path in imported().items() if name not in known}
    assert undeclared == {}


def test_every_base_dependency_is_imported() -> None:
    assert declared() - imported().keys() - BY_PLATFORM == set()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: path.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)\s]*\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_the_readme_fits_on_a_screen_and_a_half() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
