"""The four findings on tables in which each is true, false, open, or not tested."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plankwise.evaluation.effects import Estimate, table_of
from theseus_findings import Finding, Part, findings, main, verdict_of

START, FULL_AT, RATE = "steps.0.start", "steps.0.full_at", "steps.0.training.learning_rate"
KEYS = (START, FULL_AT, RATE)
STARTS, ENDS, RATES = (0.1, 0.2, 0.3, 0.5, 0.7), (0.5, 0.85, 1.0), (1e-4, 2e-4, 8e-4)


def rows(truth: dict[str, float], noise: float = 0.004, seeds: int = 3) -> list[dict[str, Any]]:
    """Make the shipped study's design; `truth` says by how much each finding is true."""
    generator = np.random.default_rng(7)
    settings = [*itertools.product(STARTS, ENDS, RATES), *itertools.product((1.0,), (1.0,), RATES)]
    made = []
    for (start, end, rate), seed in itertools.product(settings, range(seeds)):
        score = 0.6 + 0.01 * seed + noise * generator.standard_normal()
        score += truth.get("start", 0) * (start <= 0.3) + truth.get("end", 0) * (end == 0.85)
        score += truth.get("tuning", 0) * (end < 1) + truth.get("replacing", 0) * (start < 1)
        score += truth.get("rate", 0) * (rate == 2e-4)
        made.append(
            {START: start, FULL_AT: end, RATE: rate, "seed": seed, "score": score, "train_seconds": 9.0 + start}
        )
    return made


def verdicts(truth: dict[str, float], **rest: Any) -> list[str]:
    return [each.verdict for each in findings(table_of(rows(truth, **rest), KEYS))]


def test_all_four_hold_where_they_are_true() -> None:
    assert verdicts({"start": 0.03, "end": 0.03, "tuning": 0.03, "replacing": 0.03}) == ["holds"] * 4


def test_all_four_fail_where_the_opposite_is_true() -> None:
    wrong = {"start": -0.03, "end": -0.04, "tuning": -0.03, "replacing": -0.05, "rate": 0.2}
    assert verdicts(wrong) == ["does not hold"] * 4


def test_nothing_is_decided_where_nothing_is_true_or_one_seed_was_run() -> None:
    assert verdicts({}) == ["undecided"] * 4
    assert verdicts({"start": 0.03, "end": 0.03, "tuning": 0.03, "replacing": 0.03}, seeds=1) == ["undecided"] * 4


def test_both_phases_need_both_contrasts() -> None:
    found = findings(table_of(rows({"tuning": 0.05}), KEYS))[2]
    tuned, replaced = (part.estimate for part in found.parts)
    assert tuned is not None
    assert replaced is not None
    assert tuned.value == pytest.approx(0.05, abs=0.004)
    assert replaced.value == pytest.approx(0.05, abs=0.006)  # start 1 occurs with full_at 1 only
    assert tuned.paired
    assert replaced.paired


def test_what_the_space_lacks_is_not_tested() -> None:
    only_rate = [row for row in rows({}) if row[START] == 0.3 and row[FULL_AT] == 0.85]
    assert [each.verdict for each in findings(table_of(only_rate, (RATE,)))] == ["not tested"] * 4
    without_one = [row for row in rows({}) if row[START] < 1]
    assert findings(table_of(without_one, KEYS))[2].verdict == "not tested"


def test_a_verdict_follows_from_the_intervals() -> None:
    def part(low: float | None, high: float | None) -> Part:
        return Part("", Estimate(0.0, low, high, 9, 3, True))

    assert verdict_of([part(0.1, 0.2)]) == "holds"
    assert verdict_of([part(0.1, 0.2), part(-0.1, 0.2)]) == "undecided"
    assert verdict_of([part(0.1, 0.2), part(-0.2, -0.1)]) == "does not hold"
    assert verdict_of([part(0.1, 0.2), Part("", None)]) == "not tested"
    assert verdict_of([part(None, None)]) == "undecided"


def test_the_interval_is_shown_with_the_best_value() -> None:
    found: list[Finding] = findings(table_of(rows({"start": 0.03}), KEYS))
    assert found[0].note.startswith("best start: 0.")
    assert "5 of start" in found[3].note


def test_the_script_adds_the_findings_to_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`study.json` holds none; `make bench` adds them for the study of Theseus."""
    document = {"name": "study", "parameters": list(KEYS), "trials": rows({"start": 0.03})}
    (tmp_path / "study.json").write_text(json.dumps(document))
    monkeypatch.setattr(sys, "argv", ["theseus_findings.py", str(tmp_path / "study.json")])
    main()
    written = json.loads(capsys.readouterr().out)
    found = written.pop("findings")
    assert written.pop("findings_by_loss") is None
    assert written == document
    assert [len(each["more_trials"]) for each in found] == [0, 1, 2, 0]
    assert [each["verdict"] for each in found] == ["holds", "undecided", "undecided", "holds"]
    assert [len(each["parts"]) for each in found] == [1, 1, 2, 1]
    assert found[0]["parts"][0]["estimate"]["value"] == pytest.approx(0.03, abs=0.003)


def test_cross_entropy_decides_as_well_where_trials_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [{**row, "log_loss": 1 - row["score"]} for row in rows({"start": 0.03})]
    (tmp_path / "study.json").write_text(json.dumps({"parameters": list(KEYS), "trials": trials}))
    monkeypatch.setattr(sys, "argv", ["theseus_findings.py", str(tmp_path / "study.json")])
    main()
    written = json.loads(capsys.readouterr().out)
    verdicts = [[each["verdict"] for each in written[name]] for name in ("findings", "findings_by_loss")]
    assert verdicts[0] == verdicts[1]
