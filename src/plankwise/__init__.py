"""plankwise makes BERT-class encoders small and fast, and proves what was kept."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from plankwise.core import telemetry

if TYPE_CHECKING:
    from plankwise.deploy.predictor import Prediction, Predictor
    from plankwise.encoder.checkpoint import load, save

    __version__: str

__all__ = ["Prediction", "Predictor", "load", "save"]
_HOMES = {"Prediction": "plankwise.deploy.predictor", "Predictor": "plankwise.deploy.predictor"}

telemetry.switch_off()


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line starts quickly."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("plankwise")
    if name not in __all__:
        raise AttributeError(f"module 'plankwise' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES.get(name, "plankwise.encoder.checkpoint")), name)
