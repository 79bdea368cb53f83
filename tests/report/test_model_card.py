"""The model card: metadata that the Hub's own library reads, and figures that follow from record and logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from sklearn.metrics import f1_score

from plankwise.core.records import Cost, Entry, Final, Interval, Record
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.saved_predictions import PREDICTIONS, save_predictions
from plankwise.report.model_card import FILE, metadata_of, model_card, write_model_card

COST = Cost(parameters=1_500_000, size_bytes=6_000_000, train_seconds=12.0)
LABELS = np.array([0, 1, 2] * 20)
BASELINE, COMPRESSED = np.eye(3)[LABELS], np.eye(3)[np.where(np.arange(60) < 12, 0, LABELS)]
PAIR = Pair(LABELS, BASELINE, COMPRESSED)


def entry(name: str) -> Entry:
    return Entry(
        name=name,
        settings={},
        scores={},
        scores_split="development",
        cost=COST,
        train_seconds=1.0,
        development_scores={},
    )


def record_of(source: str | None = "deepset/gbert-base", labels: tuple[str, ...] = ("a", "b|c", "<d>")) -> Record:
    interval = Interval(value=0.9, low=0.8, high=1.0)
    final = Final(
        scores={"macro_f1": 0.9, "accuracy": 0.91},
        score_intervals=dict.fromkeys(("macro_f1", "accuracy"), interval),
        baseline_intervals=dict.fromkeys(("macro_f1", "accuracy"), interval),
        majority_scores={"macro_f1": 0.2, "accuracy": 0.4},
        cost=COST,
        retained_performance={"macro_f1": interval, "accuracy": None},
        chance_corrected={"macro_f1": 0.987, "accuracy": None},
        behaviour={"negative_flip_rate": 0.02, "positive_flip_rate": 0.01, "label_loyalty": 0.95},
        compression_ratio=2.0,
        speedup=1.94,
        benchmark={"threads": 2},
        speedup_over={"ONNX Runtime fp32": 1.5},
    )
    task = {"name": "Mood of days", "labels": list(labels), "metrics": ["macro_f1", "accuracy"], "rows": {"test": 60}}
    return Record(
        name="halved",
        task=task,
        baseline=entry("baseline"),
        steps=[entry("theseus"), entry("pruning")],
        final=final,
        environment={"cpu": {"model": "AMD EPYC"}},
        data_hashes={},
        seed=3,
        recipe={"model": {"source": source}},
    )


def plain_metadata(source: str | None) -> dict[str, Any]:
    made: Any = metadata_of(record_of(source))
    return dict(made.to_dict())


def test_the_hubs_library_reads_the_metadata() -> None:
    card: Any = ModelCard(model_card(record_of(), PAIR, plain=True))
    data = card.data.to_dict()
    assert data["base_model"] == "deepset/gbert-base"
    assert data["pipeline_tag"] == "text-classification"
    assert data["library_name"] == "transformers"
    assert data["tags"] == ["plankwise", "compressed", "theseus", "pruning"]
    results = {each.metric_name: each for each in card.data.eval_results or ()}
    assert results["macro_f1"].metric_type == "f1"
    assert results["macro_f1"].metric_value == 0.9
    assert results["accuracy"].dataset_type == "mood-of-days"
    assert "license" not in data  # nothing is made up


def test_licence_language_and_base_of_a_local_source_are_carried_over(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(
        "---\nlicense: mit\nlanguage: [de, en]\nbase_model: intfloat/multilingual-e5-small\n---\n# e5\n"
    )
    data = plain_metadata(str(tmp_path))
    assert (data["license"], data["language"]) == ("mit", ["de", "en"])
    assert data["base_model"] == "intfloat/multilingual-e5-small"
    card = model_card(record_of(str(tmp_path)), PAIR, plain=True)
    assert str(tmp_path) not in card  # a path of this machine means nothing elsewhere


@pytest.mark.parametrize("text", ["no metadata", "---\n: [broken\n---\n", ""])
def test_a_source_without_readable_metadata_leaves_it_out(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    for source in (str(tmp_path), None, "not/an/id"):
        assert "base_model" not in plain_metadata(source)


def test_what_was_kept_and_lost_is_named() -> None:
    card = model_card(record_of(), PAIR, plain=True)
    assert "| macro_f1 | 0.900 [0.800, 1.000] | 0.900 [0.800, 1.000] | 0.900 [0.800, 1.000] | 0.987 |" in card
    assert "Always guessing the majority class scores 0.200 macro_f1, 0.400 accuracy." in card
    after = f1_score(LABELS, COMPRESSED.argmax(axis=1), average=None)
    assert f"| a | 1.000 | {after[0]:.3f} | {after[0] - 1:+.3f} |" in card
    assert rf"| b\|c | 1.000 | {after[1]:.3f} |" in card
    assert r"F1 fell by more than 0.02 for: a, b\|c, \<d\>." in card
    assert "2.0% of all answers were right and became wrong, 1.0% became right; 95.0% are the same" in card
    assert "On AMD EPYC, 2 threads: 1.94 times as fast in torch eager fp32" in card
    assert "1.50 times the baseline in ONNX Runtime fp32" in card
    same = model_card(record_of(), Pair(LABELS, BASELINE, BASELINE), plain=True)
    assert "F1 fell" not in same


def test_the_way_to_load_it_fits_the_model() -> None:
    assert "AutoModelForSequenceClassification.from_pretrained" in model_card(record_of(), PAIR, plain=True)
    shaped = model_card(record_of(), PAIR, plain=False)
    assert "plankwise.load" in shaped
    assert "AutoModelForSequenceClassification" not in shaped


def test_the_card_is_written_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_predictions(tmp_path / PREDICTIONS, [str(each) for each in range(60)], PAIR)
    write_model_card(tmp_path, tmp_path / "model", record_of(), plain=True)
    assert ModelCard.load(tmp_path / "model" / FILE).data.library_name == "transformers"
