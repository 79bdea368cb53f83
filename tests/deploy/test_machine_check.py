"""An artefact on another class of processor runs its stored inputs first, says what they show, and may refuse."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployables import FakeRuntime, fake_model
from plankwise.core.errors import ModelError
from plankwise.core.hardware import CPU_FLAGS
from plankwise.data.batching.inputs import Inputs
from plankwise.deploy.export.parity import check_of
from plankwise.deploy.machine_check import check_machine
from plankwise.deploy.manifest import FILE_NAME, Manifest, Parity
from plankwise.deploy.predictor import Predictor
from plankwise.deploy.standalone import CLASS

VNNI = ("avx2", "avx512f", "avx512_vnni")
PARITY = Parity(texts=4, source="", logit_error=0, probability_change=0, agreement=1, tolerance=0.25)
INPUTS: Inputs = {
    "input_ids": np.array([[5, 9, 7, 30], [20, 40, 0, 0]]),
    "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 0, 0]]),
}


class Other(FakeRuntime):
    """The same model on a processor where its first logit is larger; it counts its calls in `shapes`."""

    def __init__(self, above: float = 0.0) -> None:
        super().__init__()
        self._above = above

    def __call__(self, inputs: Inputs) -> Any:
        return super().__call__(inputs) + np.array([self._above, 0.0])


def manifest(**changes: Any) -> Manifest:
    stored = check_of(FakeRuntime(), INPUTS)
    update = {"cpu": {"flags": list(VNNI)}, "parity": PARITY, "check": stored, "rows": stored, **changes}
    return fake_model().manifest.model_copy(update=update)


def test_the_same_class_of_processor_runs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    runtime = Other(9.0)
    check_machine(manifest(), runtime, [*VNNI, "aes", "sse2"])
    assert (runtime.shapes, caplog.messages) == ([], [])


def test_another_class_runs_texts_and_random_input_and_says_in_one_line_what_it_finds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    runtime = Other()
    check_machine(manifest(), runtime, ["avx2"])
    [record] = caplog.records
    assert record.getMessage() == (
        "the model was exported on a processor with avx2, avx512f, avx512_vnni, and this one has avx2: on the compared "
        "texts probabilities differ by at most 0.0000, same labels 2 of 2; on random input probabilities differ by at "
        "most 0.0000, same labels 2 of 2"
    )
    assert record.levelname == "INFO"
    assert runtime.shapes == [(2, 4), (2, 4)]


def test_answers_that_changed_within_the_tolerance_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    check_machine(manifest(rows=None), Other(0.2), [*VNNI, "amx_int8"])
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "on random input probabilities differ by at most 0.0" in record.getMessage()
    assert "at most 0.0000" not in record.getMessage()
    assert "compared texts" not in record.getMessage()


def test_answers_beyond_the_tolerance_are_refused_and_so_is_nan() -> None:
    for above in (4.0, float("nan")):
        with pytest.raises(ModelError, match=r"this one has avx2, and .* differ by (0\.\d+|nan) .*; allowed: 0\.25"):
            check_machine(manifest(), Other(above), ["avx2"])


@pytest.mark.parametrize("lost", [{"check": None, "rows": None}, {"parity": None}])
def test_an_artefact_without_stored_answers_says_so(lost: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    check_machine(manifest(**lost), Other(), [])
    assert "this one has no instructions that are known; its answers cannot be checked" in caplog.text


def test_an_artefact_that_needs_instructions_is_content_with_any_of_them(caplog: pytest.LogCaptureFixture) -> None:
    needy = manifest(needs=("avx512_vnni", "avx_vnni"))
    check_machine(needy, Other(), VNNI)
    assert not caplog.records
    check_machine(needy, Other(), ["avx2"])
    assert "none of avx512_vnni, avx_vnni, which the model was exported for: its sums saturate" in caplog.text
    with pytest.raises(ModelError, match="Export it again with portable weights"):
        check_machine(needy, Other(4.0), ["avx2"])


def test_predict_py_knows_the_same_classes() -> None:
    assert set(CPU_FLAGS) == CLASS


def test_an_artefact_is_checked_when_it_is_opened(artefacts: Callable[..., Path], tmp_path: Path) -> None:
    folder = shutil.copytree(artefacts("onnx", "fp32"), tmp_path / "artefact")
    stored = json.loads((folder / FILE_NAME).read_text())
    stored["cpu"]["flags"] = ["avx2"] if stored["cpu"]["flags"] != ["avx2"] else ["avx2", "avx512f"]
    del stored["rows"]  # as in artefacts of before
    (folder / FILE_NAME).write_text(json.dumps(stored))
    Predictor(folder)
    stored["check"]["logits"][0][0] += 3.0  # as if the exporting machine had answered otherwise
    (folder / FILE_NAME).write_text(json.dumps(stored))
    with pytest.raises(ModelError, match=r"differ by 0\.\d+ from those it was exported with; allowed: 0\.001\. Export"):
        Predictor(folder)
