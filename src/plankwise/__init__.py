"""plankwise makes BERT-class encoders small and fast, and proves what was kept."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plankwise.deploy.predictor import Prediction, Predictor
    from plankwise.encoder.checkpoint import load, save

__all__ = ["Prediction", "Predictor", "load", "save"]
_HOMES = {"Prediction": "plankwise.deploy.predictor", "Predictor": "plankwise.deploy.predictor"}
__version__ = version("plankwise")


def __getattr__(name: str) -> Any:
    """Import what is public when it is asked for, so that the command line starts at once."""
    if name not in __all__:
        raise AttributeError(f"module 'plankwise' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES.get(name, "plankwise.encoder.checkpoint")), name)
