"""The manifest's file keeps its names, so that artefacts and copies of predict.py that exist go on working."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployables import fake_model
from plankwise.data.truncation import Truncation, Windows
from plankwise.deploy.manifest import FILE_NAME, read_manifest, write_manifest

STORED = {"max_length": 16, "truncation": "head", "windows": {"stride": 2, "pooling": "mean", "most": 3}}


def test_the_truncation_is_stored_under_the_names_of_format_1(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = fake_model(truncation=Truncation(max_length=16, windows=Windows(stride=2, max_windows=3))).manifest
    write_manifest(tmp_path, manifest)
    stored = json.loads((tmp_path / FILE_NAME).read_text())
    assert stored["reading"] == STORED
    assert "truncation" not in stored
    assert read_manifest(tmp_path) == manifest
    assert not caplog.messages  # these names are not old ones here


def test_without_windows(tmp_path: Path) -> None:
    manifest = fake_model(truncation=Truncation(max_length=16, truncation="tail")).manifest
    write_manifest(tmp_path, manifest)
    assert json.loads((tmp_path / FILE_NAME).read_text())["reading"]["windows"] is None
    assert read_manifest(tmp_path) == manifest
