"""One tiny recipe for all tests of searches, and the searches of its two files."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_search
from plankwise.search.pareto.plan import SearchPlan, read_search


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_search.write(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="session")
def plan(place: Path) -> SearchPlan:
    return read_search(place / "search.yaml")


@pytest.fixture(scope="session")
def finite(place: Path) -> SearchPlan:
    return read_search(place / "finite.yaml")
