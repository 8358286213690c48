"""Ridge heads: their answers, their predictions for what was left out, and copies that count once."""

from __future__ import annotations

import numpy as np
import pytest
from calls import count_calls

from app.model import ridge as ridge_heads
from app.model.certainty import nearness
from app.model.heads import of_length_one
from app.model.ridge import MIN_PHOTOS, STRENGTHS, fit_ridge, thin_spectrum, weigh_groups
from app.model.solver import Examples, spectrum, with_constant


def clusters(photos: int, classes: int, channels: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw embeddings of length 1 around a centre for each class."""
    random = np.random.default_rng(5)
    centres = random.normal(0, 1, (classes, channels))
    truth = np.arange(photos) % classes
    rows = of_length_one(np.abs(centres[truth] + random.normal(0, spread, (photos, channels))).astype(np.float32))
    return rows, truth


def ridge(rows: np.ndarray, truth: np.ndarray, weights: np.ndarray, strength: float) -> np.ndarray:
    """Solve the normal equations as they stand in textbooks."""
    x, y = with_constant(rows), np.eye(truth.max() + 1)[truth]
    gram = x.T @ (x * weights[:, None]) + strength * np.eye(x.shape[1])
    return np.linalg.solve(gram, x.T @ (y * weights[:, None])).T


@pytest.mark.parametrize(("photos", "channels"), [(30, 64), (200, 16)])
def test_head_solves_the_normal_equations(photos: int, channels: int) -> None:
    rows, truth = clusters(photos, 3, channels, 1.0)
    groups = np.arange(photos)
    found = fit_ridge(rows, truth, groups, 3)
    direct = ridge(rows, truth, weigh_groups(truth, groups, 3), found.strength)
    scale = found.weight[0, 0] / direct[0, 0]
    assert found.weight == pytest.approx(direct * scale, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("photos", "channels"), [(24, 40), (90, 10)])
def test_left_out_logits_are_those_of_a_fit_without_the_group(photos: int, channels: int) -> None:
    rows, truth = clusters(photos, 3, channels, 1.0)
    groups = np.arange(photos) // 6  # three classes in each group, two photos of each
    found = fit_ridge(rows, truth, groups, 3)
    weights = weigh_groups(truth, groups, 3)
    direct = ridge(rows, truth, weights, found.strength)
    scale = found.weight[0, 0] / direct[0, 0]
    out = groups == 1
    without = ridge(rows[~out], truth[~out], weights[~out], found.strength)
    assert found.left_out[out] == pytest.approx(scale * with_constant(rows[out]) @ without.T, rel=1e-5, abs=1e-6)


def test_strength_is_one_of_those_that_are_tried() -> None:
    rows, truth = clusters(60, 2, 12, 1.5)
    assert fit_ridge(rows, truth, np.arange(60), 2).strength in STRENGTHS


def test_thin_spectrum_spans_the_same_space() -> None:
    rows, truth = clusters(20, 2, 50, 1.0)
    examples = Examples(rows, truth, weigh_groups(truth, np.arange(20), 2), 2)
    thin, whole = thin_spectrum(examples), spectrum(examples)
    assert thin.values == pytest.approx(whole.values[-len(thin.values) :], abs=1e-10)


def test_copies_of_a_photo_change_nothing() -> None:
    rows, truth = clusters(40, 2, 12, 1.0)
    once = fit_ridge(rows, truth, np.arange(40), 2)
    copied = fit_ridge(
        np.vstack([rows, rows[:1], rows[:1]]), np.append(truth, [0, 0]), np.append(np.arange(40), [0, 0]), 2
    )
    assert copied.weight == pytest.approx(once.weight, rel=1e-6, abs=1e-7)


def test_probabilities_are_calibrated_when_all_are_right() -> None:
    rows, truth = clusters(60, 3, 32, 0.1)
    found = fit_ridge(rows, truth, np.arange(60), 3)
    assert (found.left_out.argmax(axis=1) == truth).all()
    assert found.calibration.temperature == 1.0
    shares = np.exp(found.left_out) / np.exp(found.left_out).sum(axis=1, keepdims=True)
    assert 0.9 < shares.max(axis=1).mean() < 1.0


def test_photos_unlike_all_classes_are_far_from_their_centres() -> None:
    rows, truth = clusters(60, 3, 64, 0.4)
    strangers = of_length_one(np.abs(np.random.default_rng(9).normal(0, 1, (60, 64))).astype(np.float32))
    found = fit_ridge(rows, truth, np.arange(60), 3)
    limit = found.calibration.unlike_below
    assert limit is not None
    assert np.mean(nearness(rows, found.centres) < limit) <= 0.05
    assert np.mean(nearness(strangers, found.centres) < limit) > 0.9


def test_threshold_is_of_centres_without_the_photos_group() -> None:
    rows, truth = clusters(40, 2, 24, 1.0)
    groups = np.arange(40) // 4  # two photos of each class in a group
    found = fit_ridge(rows, truth, groups, 2)
    scores = []
    for photo in np.unique(np.stack([truth, groups]), axis=1, return_index=True)[1]:
        centres = found.centres.copy()
        rest = (truth == truth[photo]) & (groups != groups[photo])
        centres[truth[photo]] = rows[rest].mean(axis=0)
        scores.append(nearness(rows[photo], centres))
    assert found.calibration.unlike_below == pytest.approx(np.percentile(scores, 5), rel=1e-5)


def test_a_class_of_one_group_is_not_measured() -> None:
    rows, truth = clusters(10, 2, 12, 1.0)
    groups = np.where(truth == 1, 0, np.arange(10) + 1)
    found = fit_ridge(rows, truth, groups, 2)
    assert found.is_measured.tolist() == (truth == 0).tolist()


@pytest.mark.parametrize(("photos", "has_limit"), [(MIN_PHOTOS - 1, False), (MIN_PHOTOS, True)])
def test_nearness_is_computed_only_for_enough_photos(
    monkeypatch: pytest.MonkeyPatch, photos: int, has_limit: bool
) -> None:
    computed = count_calls(monkeypatch, ridge_heads, "left_out_nearness")
    rows, truth = clusters(photos, 2, 12, 1.0)
    found = fit_ridge(rows, truth, np.arange(photos), 2).calibration
    assert (bool(computed), found.unlike_below is not None) == (has_limit, has_limit)
