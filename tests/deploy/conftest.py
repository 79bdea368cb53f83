"""One small model and its artefacts, for all tests of the session."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from deployables import Artefacts


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_source(tmp_path_factory.mktemp("model") / "source", layers=2)


@pytest.fixture(scope="session")
def artefacts(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Artefacts:
    return Artefacts(source, tmp_path_factory.mktemp("artefacts"))
