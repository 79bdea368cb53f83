from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from plankwise.core.errors import DataError
from plankwise.core.packages import EXTRAS, missing, require

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it
    import tomli as tomllib

DECLARED = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("package", sorted(EXTRAS))
def test_the_extra_that_is_named_installs_the_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(each.replace("-", "_").startswith(package) for each in DECLARED[EXTRAS[package]])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError) as caught:
        require("this", package, error=DataError)
    assert str(caught.value) == f"this needs {package}: pip install 'plankwise[{EXTRAS[package]}]'"


def test_several_of_one_extra_and_one_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"a needs onnx and onnxruntime: pip install 'plankwise\[onnx\]'$"):
        require("a", "onnx", "onnxruntime", error=DataError)
    with pytest.raises(DataError, match=r"b needs MySQLdb: pip install mysqlclient$"):
        require("b", "MySQLdb", error=DataError)


def test_what_is_there_is_enough() -> None:
    assert missing("json", "no_such_module") == ["no_such_module"]
    require("this", "json", error=DataError)  # which would raise
