"""Switches off what other libraries report about their use, before they are imported.

OpenVINO and NNCF send each import, conversion and quantization to Google Analytics unless the user has opted out: each
event from a forked copy of the process, with an identifier that is kept in `~/intel`. No setting of theirs stops that
for one process; without the package that sends, both run on. The Hub's client and MLflow obey `DO_NOT_TRACK`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

SENDER = "openvino_telemetry"


def switch_off() -> None:
    """Keep this process from sending telemetry of OpenVINO, NNCF, the Hub's client and MLflow."""
    os.environ.setdefault("DO_NOT_TRACK", "true")
    modules: dict[str, Any] = sys.modules
    loaded = modules.setdefault(SENDER, None)  # None: importing it fails, as if it were not installed
    if loaded is not None:  # the program imported OpenVINO first
        loaded.main.TelemetrySender.send = lambda *message: None
