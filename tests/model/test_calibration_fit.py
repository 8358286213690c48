"""A calibration is found again in logits that were made with a known one."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pytest

from app.measuring.reliability import measure_reliability
from app.model.calibration_fit import (
    FitError,
    first_probabilities,
    fit_calibration,
    fit_temperature,
    last_accurate,
    sure_threshold,
)

pytestmark = pytest.mark.slow

Floats = npt.NDArray[np.float64]
CLASSES = 100


def made_with(temperature: float, count: int, seed: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Make logits whose true classes are drawn from the softmax of logits / temperature."""
    true, truths = drawn(count, seed)
    return true * temperature, truths


@functools.lru_cache(maxsize=2)  # what a test with several temperatures draws
def drawn(count: int, seed: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Draw logits, and the true classes from their softmax."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 1, (count, CLASSES))
    true[np.arange(count), rng.integers(0, CLASSES, count)] += rng.uniform(0, 12, count)
    # The largest of logits plus Gumbel noise is a draw from their softmax.
    truths = (true + rng.gumbel(size=true.shape)).argmax(axis=1)
    return true, truths


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_temperature_calibrates_fresh_photos(temperature: float) -> None:
    found = fit_temperature(*made_with(temperature, 5_000, seed=1))
    assert found == pytest.approx(temperature, rel=0.03)
    logits, truths = made_with(temperature, 50_000, seed=2)
    right = logits.argmax(axis=1) == truths
    judged = measure_reliability(first_probabilities(logits, found), right)
    assert judged.error <= 1.0
    if temperature != 1.0:  # without the temperature it would not be
        assert measure_reliability(first_probabilities(logits, 1.0), right).error > 5.0


def test_the_temperature_is_where_the_likelihood_is_highest() -> None:
    logits, truths = made_with(1.3, 400, seed=3)
    found = fit_temperature(logits, truths)

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        highest = scaled.max(axis=1)
        sums = np.log(np.exp(scaled - highest[:, None]).sum(axis=1)) + highest
        return float((sums - scaled[np.arange(400), truths]).mean())

    assert loss(found) < min(loss(found * 1.001), loss(found / 1.001))


def test_logits_in_float32_far_from_zero_are_no_problem() -> None:
    logits, truths = made_with(1.3, 400, seed=3)
    moved = (logits + 500).astype(np.float32)
    assert fit_temperature(moved, truths) == pytest.approx(fit_temperature(logits, truths), rel=1e-3)


def test_photos_without_a_mistake_fit_no_temperature() -> None:
    logits = np.eye(10)[np.arange(300) % 10] * 8
    with pytest.raises(FitError, match="no mistake"):
        fit_temperature(logits, np.arange(300) % 10)


def test_probabilities_in_place_of_logits_fit_no_temperature() -> None:
    logits, truths = made_with(1.0, 400, seed=4)
    with pytest.raises(
        FitError, match=r"No temperature from 0\.05 on fits: the model's numbers are too close together"
    ):
        fit_temperature(logits / 100, truths)


def test_answers_by_chance_fit_no_temperature() -> None:
    logits = np.eye(10)[np.arange(300) % 10] * 8
    with pytest.raises(FitError, match="by chance"):
        fit_temperature(logits, (np.arange(300) + 1) % 10)


@pytest.mark.parametrize(
    ("wrong", "threshold"),
    [
        ([], 0.001),
        ([999], 0.001),
        ([0], 0.001),
        (range(500, 1000), 0.477),  # 500 right ones bear 26 wrong ones less the added one
        (range(0, 1000, 2), 1.0),
    ],
)
def test_sure_is_the_least_probability_with_95_percent_right(wrong: list[int], threshold: float) -> None:
    probabilities = np.arange(1000, 0, -1) / 1000
    right = np.ones(1000, bool)
    right[list(wrong)] = False
    assert sure_threshold(probabilities, right) == pytest.approx(threshold, abs=0.0015)


@pytest.mark.parametrize(("count", "threshold"), [(17, 1.0), (18, 0.9)])
def test_a_few_right_photos_make_nothing_sure(count: int, threshold: float) -> None:
    assert sure_threshold(np.full(count, 0.9), np.ones(count, bool)) == threshold


def test_photos_of_one_probability_are_accepted_together() -> None:
    probabilities = np.array([0.9] * 95 + [0.8] * 20)
    right = np.array([True] * 100 + [False] * 15)
    assert last_accurate(probabilities, right) == 95
    assert last_accurate(probabilities, right[::-1]) == 0


def test_sure_photos_of_fresh_sets_are_right_in_95_percent() -> None:
    logits, truths = made_with(1.0, 20_000, seed=4)
    right, firsts = logits.argmax(axis=1) == truths, first_probabilities(logits, 1.0)
    rng, accuracies = np.random.default_rng(5), []
    for _ in range(100):
        fitted = rng.choice(len(truths), 300, replace=False)
        accuracies.append(right[firsts >= sure_threshold(firsts[fitted], right[fitted])].mean())
    assert np.mean(accuracies) == pytest.approx(0.95, abs=0.01)


def test_intervals_hold_the_true_numbers_in_95_percent() -> None:
    hits = []
    for seed in range(20):
        logits, truths = made_with(0.8, 400, seed=100 + seed)
        low, high = fit_calibration(logits, truths, source="Made.").intervals["temperature"]
        hits.append(low <= 0.8 <= high)
    assert sum(hits) >= 17


def test_all_numbers_come_with_intervals_and_the_same_each_time() -> None:
    logits, truths = made_with(1.2, 400, seed=6)
    scores = np.arange(400, dtype=float)
    found = fit_calibration(logits, truths, source="Made.", scores=scores)
    assert found == fit_calibration(logits, truths, source="Made.", scores=scores)
    assert found.photos == 400
    assert found.unlike_below == pytest.approx(19.95)
    for name in ("temperature", "sure_at", "unlike_below"):
        low, high = found.intervals[name]
        assert low < getattr(found, name) < high


def test_without_scores_unlike_is_not_measured() -> None:
    found = fit_calibration(*made_with(1.2, 400, seed=6), source="Made.")
    assert found.unlike_below is None
    assert found.intervals.keys() == {"temperature", "sure_at"}
