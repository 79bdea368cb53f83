"""Results by class of machine: a class follows from the recorded environment, and each has its own file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import headline
import picture
import tables
from results import RESULTS, class_of, describe, last_document, machine_class, results_of, store

FAST = {"cpu": {"model": "fast", "cores": 2, "flags": ["avx2", "avx512f", "avx512_vnni", "avx512_bf16"]}, "gpu": None}
SLOW = {"cpu": {"model": "slow", "cores": 2, "flags": ["avx2"]}, "gpu": None}


def domain_step(value: float, environment: dict[str, Any]) -> dict[str, Any]:
    sizes = {"compression_over_plain": value, "fine_tuning_speedup": value}
    return {"bert_base": sizes, "mini": sizes, "environment": environment}


@pytest.mark.parametrize(
    ("flags", "cores", "expected"),
    [
        (["avx2", "avx512f", "avx512_vnni", "avx512_bf16"], 2, "vnni-bf16-2cores"),
        (["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"], 16, "amx-bf16-16cores"),
        (["avx2", "avx_vnni"], 8, "vnni-8cores"),
        (["avx2", "avx512f"], 2, "avx512-2cores"),
        (["avx2"], 1, "avx2-1core"),
        (["asimddp", "bf16"], 4, "dotprod-bf16-4cores"),
        (["sse4_2"], 2, "other-2cores"),
        ([], 2, "unknown"),
        (["avx2"], None, "unknown"),
    ],
)
def test_a_class_names_int8_instructions_bf16_and_cores(flags: list[str], cores: int | None, expected: str) -> None:
    assert machine_class({"cpu": {"model": "any", "cores": cores, "flags": flags}}) == expected


def test_the_class_comes_from_wherever_a_result_records_its_machine() -> None:
    assert class_of({"environment": FAST}) == "vnni-bf16-2cores"
    assert class_of({"environment": SLOW}) == "avx2-2cores"
    assert class_of({"ran": False, "why": "no GPU"}) == "unknown"
    gpu = {**FAST, "gpu": {"name": "NVIDIA H100 80GB HBM3", "cuda": "12.8"}}
    assert class_of({"device": "NVIDIA H100 80GB HBM3", "environment": gpu}) == "nvidia-h100-80gb-hbm3"
    assert class_of({"device": "cpu", "environment": gpu}) == "vnni-bf16-2cores"


def test_a_slower_machine_leaves_the_file_of_a_faster_one(tmp_path: Path) -> None:
    first = store("domain_step", domain_step(0.5, FAST), tmp_path)
    before = first.read_bytes()
    second = store("domain_step", domain_step(0.9, SLOW), tmp_path)
    assert first.read_bytes() == before
    assert [path.parent.name for path in (first, second)] == ["vnni-bf16-2cores", "avx2-2cores"]


def test_classes_are_ordered_from_fast_to_unknown(tmp_path: Path) -> None:
    order = ["nvidia-h100", "amx-bf16-2cores", "vnni-bf16-8cores", "vnni-bf16-2cores", "vnni-2cores", "avx2-16cores"]
    for name in [*order[::-1], "unknown"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "demo.json").write_text("{}")
    assert [*results_of("demo", tmp_path)] == [*order, "unknown"]


def test_a_table_shows_each_class_with_its_machine_and_command(tmp_path: Path) -> None:
    store("domain_step", domain_step(0.9, SLOW), tmp_path)
    store("domain_step", domain_step(0.5, FAST), tmp_path)
    shown = tables.filled("<!-- table: domain_step -->\nold\n<!-- end -->", tmp_path)
    assert "old" not in shown
    fast, slow = shown.index("| 0.50 | 0.50 |"), shown.index("| 0.90 | 0.90 |")
    assert fast < shown.index(f"`python benchmarks/domain_step.py` on {describe(FAST)}") < slow
    assert slow < shown.index(f"on {describe(SLOW)} (class `avx2-2cores`)")
    assert tables.filled(shown, tmp_path) == shown


def test_a_result_that_is_missing_is_said_and_an_unknown_table_refused(tmp_path: Path) -> None:
    assert tables.block("gpu", tmp_path) == "Not measured yet: `python benchmarks/gpu.py`."
    with pytest.raises(SystemExit, match="no table 'nothing'"):
        tables.block("nothing", tmp_path)


def test_quick_results_and_other_output_are_not_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="--quick"):
        store("throughput", {"quick": True, "environment": FAST}, tmp_path)
    assert [*tmp_path.iterdir()] == []
    assert last_document(["round 1\n", '{"a": 1}\n']) == {"a": 1}
    assert capsys.readouterr().err == "round 1\n"
    for lines in (["round 1\n"], [], ["[1]\n"]):
        with pytest.raises(SystemExit, match="not a JSON object"):
            last_document(lines)


@pytest.mark.parametrize("key", ["official_f", "germeval_f1"])
def test_both_names_of_germevals_metric_are_shown_alike(key: str) -> None:
    path = next(RESULTS.glob("*/methods_germeval2018.json"))
    result = json.loads(path.read_text("utf-8"))
    result["metric"] = key
    for scores in (result["majority"], result["bag_of_words"]["scores"]):
        scores[key] = 0.5
    assert tables.TABLES["methods_germeval2018"](result).startswith("| method | GermEval F1, test |")


def test_the_picture_shows_every_way_and_is_current_until_a_result_changes(tmp_path: Path) -> None:
    kept, speed = {"value": 0.9, "low": 0.8, "high": 1.0}, {"ONNX Runtime fp32": 3.0}
    families = {"original": "", "Theseus, pruning": "TP", "all": "VTDPQ", "NNCF static int8": "peer"}
    ways = {name: {"families": each, "retained": kept, "speedup": speed} for name, each in families.items()}
    result = {"encoder": "minilm-l6", "task": "tweets", "ways": ways, "environment": FAST}
    store("combinations_minilm_l6", result, tmp_path)
    ready = {"recipe": "fast", "retained": kept, "speedup": {"ONNX Runtime fp32": {"value": 3.0}}}
    store("shrink_minilm_l6", {**result, "runs": [ready]}, tmp_path)
    place = "minilm-l6, tweets"
    drawn = [("two families", "TP"), ("three or more", "VTDPQ"), ("other tools", "NNCF"), (picture.READY, "fast")]
    assert picture.points(tmp_path) == [
        picture.Point(f"{place}, vnni-bf16-2cores", family, 3.0, 0.9, 0.8, 1.0, label) for family, label in drawn
    ]
    slower = {**ready, "speedup": {"ONNX Runtime fp32": {"value": 2.0}}}
    store("shrink_minilm_l6", {**result, "environment": SLOW, "runs": [slower]}, tmp_path)
    [*_, last] = picture.points(tmp_path)
    assert (last.panel, last.faster) == (f"{place}, avx2-2cores", 2.0), "speeds of two machines do not compare"
    svg = tmp_path / "picture.svg"
    assert not picture.is_current(svg, tmp_path)
    picture.draw(svg, tmp_path)
    assert picture.is_current(svg, tmp_path)
    assert "VTDPQ" in svg.read_text("utf-8")
    speed["ONNX Runtime fp32"] = 2.5
    store("combinations_minilm_l6", result, tmp_path)
    assert not picture.is_current(svg, tmp_path)


def test_importing_the_results_module_does_not_import_torch() -> None:
    code = "import sys, results; sys.exit('torch' in sys.modules)"
    benchmarks = str(Path(headline.__file__).parent)
    assert subprocess.run([sys.executable, "-c", code], cwd=benchmarks, check=False).returncode == 0
