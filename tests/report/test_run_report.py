"""The page and the table over runs, from records and saved logits alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plankwise.core.errors import CheckpointError
from plankwise.core.records import Cost, Entry, Final, Interval, Record, TextsRead
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.saved_predictions import PREDICTIONS, read_predictions, save_predictions
from plankwise.report.run_report import finished, markdown, table, write_report
from plankwise.report.run_sections import section_of

COST = Cost(parameters=1_500_000, size_bytes=6_000_000, train_seconds=12.0)
SIDE = {"p50_ms": 1.0, "p95_ms": 2.0, "ms_per_text": 0.5}
CASE: dict[str, Any] = {"baseline": SIDE, "compressed": SIDE, "speedup": 1.5, "spread": [1.4, 1.6], "texts": 20}
LABELS = np.array([0, 1] * 10)


def entry(name: str) -> Entry:
    scores = {"accuracy": 0.75}
    return Entry(
        name=name,
        settings={},
        scores=scores,
        scores_split="development",
        cost=COST,
        train_seconds=12.0,
        development_scores=scores,
    )


def write_run(
    folder: Path, *, name: str = "tiny", seed: int = 1, right: int = 15, final: bool = True, **of_final: Any
) -> Path:
    """Write a run whose baseline is right on every example and whose compressed model on the first `right`."""
    interval = Interval(value=0.75, low=0.5, high=1.0)
    measured = Final(
        scores={"accuracy": 0.75},
        score_intervals={"accuracy": interval},
        baseline_intervals={"accuracy": interval},
        majority_scores={"accuracy": 0.5},
        cost=COST,
        retained_performance={"accuracy": None},
        chance_corrected={"accuracy": None},
        behaviour={"label_loyalty": 0.123456},
        compression_ratio=2.0,
        speedup=1.5,
        benchmark={"threads": 1, "device": "cpu", "latency": {"32": CASE}, "throughput": CASE},
        **of_final,
    )
    record = Record(
        name=name,
        task={"name": "toy", "metrics": ["accuracy"], "rows": {"test": 20}},
        baseline=entry("baseline"),
        steps=[entry("01-<b>theseus</b>")],
        final=measured if final else None,
        environment={},
        data_hashes={},
        seed=seed,
        recipe={"name": name},
    )
    folder.mkdir()
    record.write(folder)
    logits = np.eye(2)[LABELS]
    compressed = np.where(np.arange(20)[:, None] < right, logits, logits[:, ::-1])
    save_predictions(folder / PREDICTIONS, [str(at) for at in range(20)], Pair(LABELS, logits, compressed))
    return folder


def test_seeds_are_pooled(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{seed}", seed=seed, right=right) for seed, right in ((1, 16), (2, 12))]
    (row,) = table([*runs])
    assert (row.name, row.seeds, row.parameters, row.speedup) == ("tiny", 2, 1_500_000, 1.5)
    assert row.baseline_score.value == 1.0
    assert row.score.value == pytest.approx(0.7)  # 16 and 12 of 20
    assert row.retained is not None
    assert row.retained.value == pytest.approx(0.7)
    header, _, line = markdown([row]).splitlines()
    assert header.startswith("| run | seeds | parameters | size |")
    assert line.startswith(
        f"| tiny | 2 | 1.50 M | 6.0 MB | 1.000 [1.000, 1.000] | {row.score} | {row.retained} | 2.00× "
    )
    assert line.endswith("| 1.50×, torch eager fp32 | 12 s |")


def test_the_page_is_whole_and_escapes_what_records_hold(tmp_path: Path) -> None:
    write_report([write_run(tmp_path / "run")], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert "<title>plankwise: tiny</title>" in page
    assert "01-&lt;b&gt;theseus" in page
    assert "0.750 [0.500, 1.000]" in page
    assert '<p class="verdict">tiny keeps 0.750 [' in page
    assert "At a margin of 0.01 it is inferior: the difference is -0.250 [" in page
    assert page.count("<svg ") == 3
    assert not re.search(r"""(src|href)=["']?(?!data:)""", page)  # nothing is loaded


def test_decisions_are_counted_by_true_label(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (pair,) = [read_predictions(run)[1]]
    found = section_of([finished(run)], [pair, pair])
    assert found.confusion == {"baseline": [[20, 0], [0, 20]], "compressed": [[16, 4], [6, 14]]}  # of two seeds
    assert found.found["seeds"] == 2
    undecided = section_of([finished(run)], [Pair(LABELS, pair.baseline, np.roll(pair.baseline, 2, axis=0))])
    assert "non-inferior" in undecided.verdict


def test_several_labels_have_no_confusion_matrix(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    flags = np.eye(2)[LABELS].astype(int)
    assert section_of([finished(run)], [Pair(flags, flags * 2.0 - 1, flags * 2.0 - 1)]).confusion is None


@pytest.mark.parametrize(
    ("read", "line"),
    [
        (
            TextsRead(texts=20, tokens=200, truncated=5, unread_tokens=20),
            "truncation cuts 5 of 20 texts (25.0%); 10.0%",
        ),
        (
            TextsRead(texts=20, tokens=200, thinned=1, unread_tokens=20),
            "windows.max_windows thins 1 of 20 texts",
        ),
        (TextsRead(texts=20, tokens=200), None),
        (None, None),
    ],
)
def test_the_page_shows_how_much_of_the_texts_was_read(
    tmp_path: Path, read: TextsRead | None, line: str | None
) -> None:
    write_report([write_run(tmp_path / "run", texts_read=read)], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert ("of all tokens are not read" in page) == (line is not None)
    assert line is None or f"Test split: {line}" in page


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", final=False)
    with pytest.raises(CheckpointError, match="is not finished; resume it with --resume"):
        finished(run)


def test_runs_named_twice_or_tested_on_other_examples_are_refused(tmp_path: Path) -> None:
    one, other = write_run(tmp_path / "one"), write_run(tmp_path / "other", seed=2)
    with pytest.raises(CheckpointError, match="named twice"):
        table([one, tmp_path / "other" / ".." / "one"])
    logits = np.eye(2)[LABELS]
    save_predictions(other / PREDICTIONS, [str(at) for at in range(1, 21)], Pair(LABELS, logits, logits))
    with pytest.raises(CheckpointError, match="the runs of tiny were tested on different examples"):
        table([one, other])
