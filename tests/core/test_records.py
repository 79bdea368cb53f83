"""Records: written atomically, read back as they were, refused when they are damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plankwise.core.errors import CheckpointError
from plankwise.core.records import FILE_NAME, Cost, Entry, Final, Interval, Record, read_record
from plankwise.core.step_log import StepLog

HALF = Interval(value=0.5, low=0.25, high=0.75)
COST = Cost(parameters=110_000_000, size_bytes=440_000_000, train_seconds=12.5)


def entry(name: str) -> Entry:
    return Entry(
        name=name,
        settings={"method": name, "modules": [[0, 1], [2, 3]]},
        scores={"macro_f1": 1 / 3},
        scores_split="development",
        cost=COST,
        train_seconds=0.1 + 0.2,
        development_scores={"macro_f1": 1 / 3},
        details=StepLog.model_validate({"redraws": 3, "curve": [0.1, 1e-300]}),
    )


def record(final: bool = True) -> Record:
    measured = Final(
        scores={"macro_f1": 0.5},
        score_intervals={"macro_f1": HALF},
        baseline_intervals={"macro_f1": HALF},
        majority_scores={"macro_f1": 0.1},
        cost=COST,
        retained_performance={"macro_f1": HALF},
        chance_corrected={"macro_f1": None},
        behaviour={"label_loyalty": 1.0},
        compression_ratio=1.67,
        speedup=1.94,
        benchmark={"latency": {"32": {"speedup": 2.0}}},
    )
    return Record(
        name="größe",
        task={"name": "tiny", "labels": ["a", "b"], "access": "open"},
        baseline=entry("baseline"),
        steps=[entry("theseus"), entry("layer_subset")],
        final=measured if final else None,
        environment={"gpu": None},
        data_hashes={"train": "00ff"},
        seed=7,
        recipe={"name": "größe"},
    )


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("name", ["", FILE_NAME])
def test_round_trip_by_folder_or_file(tmp_path: Path, final: bool, name: str) -> None:
    record(final).write(tmp_path)
    assert read_record(tmp_path / name) == record(final)


def test_a_record_of_before_was_timed_in_torch(tmp_path: Path) -> None:
    record().write(tmp_path)
    stored = json.loads((tmp_path / FILE_NAME).read_text(encoding="utf-8"))
    del stored["final"]["runtimes"], stored["final"]["speedup_over"]
    (tmp_path / FILE_NAME).write_text(json.dumps(stored))
    final = read_record(tmp_path).final
    assert final is not None
    assert final.timed_in.compressed == final.timed_in.baseline == "torch eager fp32"
    assert final.speedup_over == {}


def test_is_one_readable_json_file(tmp_path: Path) -> None:
    record().write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    data = json.loads((tmp_path / FILE_NAME).read_text(encoding="utf-8"))
    assert data["steps"][0]["settings"]["modules"] == [[0, 1], [2, 3]]
    assert data["final"]["retained_performance"]["macro_f1"] == {"value": 0.5, "low": 0.25, "high": 0.75}


def test_a_score_that_is_no_number_does_not_overwrite_a_good_record(tmp_path: Path) -> None:
    good, bad = record(), record()
    good.write(tmp_path)
    bad.steps[0].scores["macro_f1"] = float("nan")
    with pytest.raises(ValueError):
        bad.write(tmp_path)
    assert read_record(tmp_path) == good


@pytest.mark.parametrize("name", [".", "nowhere"])
def test_where_there_is_no_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=r"there is no run in .*is missing"):
        read_record(tmp_path / name)


def _without(key: str) -> bytes:
    return json.dumps({name: value for name, value in record().model_dump().items() if name != key}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        record().model_dump_json()[:-40].encode(),
        _without("seed"),
        json.dumps({**record().model_dump(), "surprise": 1}).encode(),
        json.dumps({**record().model_dump(), "seed": "many"}).encode(),
        b"\xff\xfe\x00",
    ],
    ids=["empty", "list", "truncated", "missing key", "unknown key", "wrong type", "binary"],
)
def test_what_is_no_record_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"record\.json is not a record of a run: \S"):
        read_record(tmp_path)


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(CheckpointError, match="is not a record of a run"):
        read_record(tmp_path)


def test_an_entry_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="speed"):
        Entry(**entry("x").model_dump(), speed=1)  # type: ignore[call-arg]


def test_a_record_from_before_texts_were_counted_is_read(tmp_path: Path) -> None:
    stored = json.loads(record().model_dump_json())
    for part in (stored["baseline"], stored["final"], *stored["steps"]):
        del part["texts_read"]
    (tmp_path / FILE_NAME).write_text(json.dumps(stored))
    read = read_record(tmp_path)
    assert read == record()
    assert read.final is not None
    assert read.final.texts_read is None
