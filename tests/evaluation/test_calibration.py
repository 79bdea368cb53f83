"""Calibration against hand arithmetic, and on logits whose temperature is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from plankwise.evaluation.calibration import (
    Bin,
    calibration_error,
    confidences,
    describe_calibration,
    fit_temperature,
    reliability,
    scaled_logits,
)


def drawn(rows: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from a model's own probabilities, and its logits times a temperature."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(rows, 3)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([draw.choice(3, p=row) for row in shares])
    return labels, logits * temperature


def test_the_error_equals_hand_arithmetic() -> None:
    shares = np.array([[0.9, 0.1], [0.8, 0.2], [0.35, 0.65], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 1])
    # Two bins of [0.5, 1]: 0.6 and 0.65 in the third quarter, 0.8 and 0.9 in the last; one of two is right in each.
    assert reliability(labels, np.log(shares), bins=4) == [
        Bin(pytest.approx(0.625), 0.5, 2),  # type: ignore[arg-type]
        Bin(pytest.approx(0.85), 0.5, 2),  # type: ignore[arg-type]
    ]
    assert calibration_error(labels, np.log(shares), bins=4) == pytest.approx((0.125 * 2 + 0.35 * 2) / 4)


def test_the_curve_agrees_with_scikit_learn() -> None:
    draw = np.random.default_rng(1)
    margin = draw.normal(size=400)
    labels, logits = (draw.random(400) < 0.6).astype(int), np.stack([np.zeros(400), margin], axis=1)
    confidence, right = confidences(labels, logits)
    accuracy, means = calibration_curve(right, confidence, n_bins=15)
    found = reliability(labels, logits)
    assert [each.accuracy for each in found] == pytest.approx(accuracy)
    assert [each.confidence for each in found] == pytest.approx(means)


def test_each_label_of_several_is_an_answer() -> None:
    confidence, right = confidences(np.array([[1, 0]]), np.array([[2.0, 1.0]]))
    assert confidence == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))])
    assert right.tolist() == [True, False]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_overconfident_logits_is_found(temperature: float) -> None:
    labels, logits = drawn(4000, temperature)
    assert fit_temperature(labels, logits) == pytest.approx(temperature, rel=0.07)
    found = describe_calibration([(labels, logits)], [drawn(4000, temperature, seed=1)])
    assert found["temperature"] == pytest.approx(temperature, rel=0.07)
    assert found["ece_scaled"] < 0.02
    assert found["fitted_on"] == "development"
    if temperature == 3.0:
        assert found["ece"] > 0.1


def test_without_development_no_example_chooses_its_own_temperature() -> None:
    labels, logits = drawn(400, 2.0)
    scaled, temperature = scaled_logits(labels, logits, None)
    odd = np.arange(400) % 2 == 1
    assert scaled[odd] == pytest.approx(logits[odd] / fit_temperature(labels[~odd], logits[~odd]))
    assert scaled[~odd] == pytest.approx(logits[~odd] / fit_temperature(labels[odd], logits[odd]))
    assert temperature == pytest.approx(2.0, rel=0.3)


def test_seeds_are_described_together_each_with_its_own_temperature() -> None:
    runs = [drawn(600, 0.5), drawn(600, 3.0, seed=2)]
    found = describe_calibration(runs)
    each = [describe_calibration([run]) for run in runs]
    for key in ("ece", "ece_scaled"):
        assert found[key] == pytest.approx(np.mean([one[key] for one in each]))
    assert found["temperature"] == pytest.approx(np.sqrt(each[0]["temperature"] * each[1]["temperature"]))
    assert sum(bin_["answers"] for bin_ in found["reliability"]) == 1200
