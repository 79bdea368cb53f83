from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNTED = """
import sys
import openvino, torch
from openvino_telemetry.backend.backend_ga4 import GA4Backend
from openvino_telemetry.main import Telemetry
sent = []
GA4Backend.send = lambda self, message: sent.append(message)
if sys.argv[1] == "off":
    import plankwise
openvino.convert_model(torch.nn.Linear(2, 2), example_input=torch.ones(1, 2))
Telemetry().sender.executor.shutdown(wait=True)
print(len(sent))
"""
FIRST = "import plankwise, openvino, sys; print(sys.modules['openvino_telemetry'])"


def printed_by(code: str, home: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(home)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("switched", ["on", "off"])
def test_a_program_that_imported_openvino_first_sends_no_more(tmp_path: Path, switched: str) -> None:
    sent = int(printed_by(COUNTED, tmp_path, switched))
    assert sent > 5 if switched == "on" else sent == 0


def test_importing_plankwise_first_leaves_nothing_to_send_with(tmp_path: Path) -> None:
    assert printed_by(FIRST, tmp_path) == "None"
    assert not list(tmp_path.iterdir())
    assert os.environ["DO_NOT_TRACK"]  # of this process, which has imported plankwise
