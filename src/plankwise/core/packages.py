"""Optional packages, and the extra of plankwise that installs each."""

from __future__ import annotations

import importlib.util

from plankwise.core.errors import PlankwiseError

EXTRAS = {
    "duckdb": "mimic",
    "matplotlib": "study",
    "mlflow": "mlflow",
    "nncf": "openvino",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "openvino": "openvino",
    "optuna": "study",
    "psycopg2": "postgresql",
    "python_multipart": "review",
    "starlette": "review",
    "tensorboard": "tensorboard",
    "uvicorn": "review",
}
_OTHER_NAMES = {"MySQLdb": "mysqlclient"}  # modules with another name than their distribution


def missing(*packages: str) -> list[str]:
    """Return those of these modules that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def require(what: str, *packages: str, error: type[PlankwiseError]) -> None:
    """Check that packages are installed.

    Args:
        what: feature that needs them; the message begins with it.
        packages: names of modules.
        error: class of the error to raise.

    Raises:
        PlankwiseError: of class `error`, with the command that installs what is missing.
    """
    absent = missing(*packages)
    if absent:
        wanted = dict.fromkeys(_distribution(name) for name in absent)
        raise error(f"{what} needs {' and '.join(absent)}: pip install {' '.join(wanted)}")


def _distribution(name: str) -> str:
    return f"'plankwise[{EXTRAS[name]}]'" if name in EXTRAS else _OTHER_NAMES.get(name, name)
