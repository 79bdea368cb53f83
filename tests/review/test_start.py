"""From a run to a review, and the verbs around it."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import processes
import tiny
from plankwise.core.claims import ExclusiveClaim
from plankwise.core.errors import CheckpointError, DataError, OutputError
from plankwise.evaluation.saved_predictions import read_predictions
from plankwise.review.server import LOCK, bound, serve
from plankwise.review.start import start_review
from plankwise.review.store import FILE, ReviewStore
from plankwise.review.summary import answered_reviews


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


def edited(run: Path, change: Callable[[Any], None]) -> Path:
    record = json.loads((run / "record.json").read_text())
    change(record)
    (run / "record.json").write_text(json.dumps(record))
    return run


def test_the_items_are_the_errors_of_the_run(run: Path) -> None:
    folder, drawn = start_review(run, count=5, error_classes=["irony", "irony", "other"])
    assert folder == run / "review"
    store = ReviewStore(folder / FILE)
    assert list(store.classes().values()) == ["irony", "other"]
    ids, pair = read_predictions(run)
    items = store.items()
    assert len(items) == len(drawn.errors)
    texts = {row["text"] for row in tiny.rows(200)}
    for item in items:
        place = ids.index(item.row_id)
        assert tiny.LABELS[pair.labels[place]] == item.gold
        for model, logits in (("baseline", pair.baseline), ("compressed", pair.compressed)):
            if model in item.models:
                assert tiny.LABELS[int(np.argmax(logits[place]))] in item.predicted
                assert item.gold not in item.predicted
        assert item.text in texts
    assert (folder.stat().st_mode & 0o077) == 0


def test_fewer_errors_than_asked_for_are_all_taken_and_said(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    start_review(run, count=1000)
    assert "fewer than 1000; all are taken" in caplog.text


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda record: record.update(final=None), CheckpointError, "is not finished"),
        (lambda record: record["recipe"]["task"].update(train="gone.csv"), CheckpointError, "the data of the run in"),
        (lambda record: record["data_hashes"].update(test="other"), CheckpointError, "has changed since"),
    ],
)
def test_a_run_that_cannot_be_reviewed_is_refused(
    run: Path, change: Callable[[Any], None], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        start_review(edited(run, change))
    assert not (run / "review").exists()


def test_a_class_that_is_not_there_and_a_second_review_are_refused(run: Path) -> None:
    with pytest.raises(DataError, match=r"--class ugly: .*bad, good"):
        start_review(run, class_name="ugly")
    start_review(run, count=3)
    with pytest.raises(OutputError, match="holds a review already"):
        start_review(run, count=3)


@pytest.mark.parametrize(("access", "shown"), [("open", 1), ("credentialed", 0)])
def test_a_report_shows_reviews_of_open_tasks_that_have_an_answer(run: Path, access: str, shown: int) -> None:
    assert answered_reviews([run]) == []
    start_review(edited(run, lambda record: record["task"].update(access=access)), count=3, error_classes=["irony"])
    assert answered_reviews([run]) == []
    ReviewStore(run / "review" / FILE).answer(1, "Ada", 1, "")
    assert len(answered_reviews([run])) == shown


def test_credentialed_text_stays_in_the_folder_of_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def protect(record: Any) -> None:
        record["task"]["access"] = record["recipe"]["task"]["access"] = "credentialed"

    edited(run, protect)
    with pytest.raises(OutputError, match="its text stays in"):
        start_review(run, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    folder, _ = start_review(run, count=3)
    store = ReviewStore(folder / FILE)
    store.answer(1, "Ada", store.add_class("irony"), "")
    before = {path for path in tmp_path.rglob("*") if run not in path.parents}
    assert tiny.call(monkeypatch, "review", "summary", folder, "--csv", tmp_path / "out.csv") == 2
    assert "its text stays in" in capsys.readouterr().err
    assert tiny.call(monkeypatch, "review", "summary", folder, "--csv", folder / "out.csv") == 0
    printed = capsys.readouterr()
    assert not any(item.text in f"{printed.out}{printed.err}" for item in store.items())
    assert {path for path in tmp_path.rglob("*") if run not in path.parents} == before


def test_a_port_in_use_and_a_second_server_are_refused(run: Path) -> None:
    folder, _ = start_review(run, count=3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=rf"port {port}: in use; allowed: another --port, or 0"):
            bound(port)
        with pytest.raises(OutputError, match=rf"port {port}: in use"):
            serve(folder, port, announce=lambda address: None)
    with ExclusiveClaim(folder / LOCK, folder), pytest.raises(OutputError, match="is being served already"):
        serve(folder, 0, announce=lambda address: None)
    with pytest.raises(CheckpointError, match="there is no review"):
        serve(run, 0, announce=lambda address: None)


def test_the_server_listens_on_loopback_alone() -> None:
    with bound(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_the_verbs_from_start_to_summary(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--count", 4, "--error-class", "irony", "--json"]
    assert tiny.call(monkeypatch, "review", "start", run, *given) == 0
    document = json.loads(capsys.readouterr().out)
    store = ReviewStore(Path(document["folder"]) / FILE)
    assert document["items"] == store.count()
    assert tiny.call(monkeypatch, "review", "summary", document["folder"]) == 2
    assert "no text has an answer yet" in capsys.readouterr().err
    for number in range(1, store.count() + 1):
        store.answer(number, "Ada", 1, "")
    studio = tmp_path / "studio.json"
    assert tiny.call(monkeypatch, "review", "summary", document["folder"], "--label-studio", studio) == 0
    assert "irony" in capsys.readouterr().out
    assert len(json.loads(studio.read_text())) == store.count()
    assert tiny.call(monkeypatch, "review", "serve", tmp_path) == 2
    assert "there is no review" in capsys.readouterr().err


def test_the_server_prints_its_address_and_ends_when_it_is_interrupted(run: Path, tmp_path: Path) -> None:
    import signal
    import urllib.request

    folder, _ = start_review(run, count=3)
    script = (
        "import sys; from pathlib import Path; from plankwise.review.server import serve; "
        f"serve(Path({str(folder)!r}), 0, announce=Path({str(tmp_path / 'address')!r}).write_text)"
    )
    process = processes.start(["-c", script], tmp_path)
    processes.wait_for(lambda: (tmp_path / "address").exists() and bool((tmp_path / "address").read_text()), process)
    address = (tmp_path / "address").read_text()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    assert "texts that one of two models got wrong" in opener.open(address, timeout=30).read().decode()
    assert process.pid is not None
    import os

    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    assert process.exitcode == 0
    assert not (folder / LOCK).exists()
