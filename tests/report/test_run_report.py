"""The page and the table over runs, from records and saved logits alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from finished_run import LABELS, REVIEW, write_run
from plankwise.core.errors import CheckpointError
from plankwise.core.records import TextsRead
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.saved_predictions import PREDICTIONS, read_predictions, save_predictions
from plankwise.report.learning_curves import learning_pictures
from plankwise.report.run_report import finished, front_of, markdown, table, write_report
from plankwise.report.run_sections import section_of


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


def test_trainings_are_drawn_from_what_the_record_holds(tmp_path: Path) -> None:
    scores, losses, replaced = map(str, learning_pictures(finished(write_run(tmp_path / "run", trained=True))))
    assert scores.count("<polyline") == losses.count("<polyline") == 2  # the baseline's and the step's
    assert "development accuracy over training: baseline, from 0.6 to 0.7" in scores
    assert "loss over training: baseline, from 0.95 to 0.8" in losses
    assert "scheduled rate, from 0.5 to 1; share that was drawn, from 0.5 to 1" in replaced
    assert learning_pictures(finished(write_run(tmp_path / "old"))) == []  # a record of before curves were kept


def test_a_page_on_several_recipes_has_the_front_and_what_people_found(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "run", trained=True), write_run(tmp_path / "other", name="other", right=19)]
    write_report(runs, tmp_path / "page.html", reviews=[REVIEW])
    page = (tmp_path / "page.html").read_text()
    assert "the front: tiny 0.750 at 1.50×; other 0.950 at 1.50×" in page
    assert front_of(table(runs[:1])) is None
    assert "Errors that people looked at: toy: &lt;b&gt;bad" in page
    assert "<td>+1.5, new" in page
    assert "Ada and Bob: Cohen’s κ 0.40 on 3 errors" in page


def test_the_baseline_in_another_runtime_has_a_bar(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", speedup_over={"ONNX Runtime fp32": 1.2})
    record = json.loads((run / "record.json").read_text())
    record["final"]["benchmark"]["throughput"]["ONNX Runtime fp32"] = {"ms_per_text": 0.61}
    (run / "record.json").write_text(json.dumps(record))
    found = section_of([finished(run)], [read_predictions(run)[1]])
    assert "baseline, ONNX Runtime fp32 0.61 ms" in str(found.times)  # as it was timed, not 1.2 times 0.5 ms
