"""The solver of heads: its minimum, its left-out predictions, and that the same rows give the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from app.model.probabilities import log_softmax
from app.model.solver import (
    MAX_DISTANCE,
    TOLERANCE,
    Examples,
    fit_softmax,
    ridge_left_out,
    softmax_left_out,
    spectrum,
    weigh_classes,
    with_constant,
)

STRENGTHS = (1e-4, 1e-2)


def make_examples(count: int = 60, channels: int = 7, classes: int = 3) -> Examples:
    random = np.random.default_rng(1)
    truth = np.arange(count) % classes
    rows = random.normal(size=(count, channels)) + 2 * np.eye(classes, channels)[truth]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Examples(rows.astype(np.float32), truth, weigh_classes(truth, classes), classes)


def refit(examples: Examples, kept: np.ndarray, strength: float) -> np.ndarray:
    rows, weights = with_constant(examples.rows[kept]), examples.weights[kept]
    targets = np.eye(examples.class_count)[examples.classes[kept]]
    gram = rows.T @ (rows * weights[:, None]) + strength * np.eye(rows.shape[1])
    return np.linalg.solve(gram, (rows * weights[:, None]).T @ targets)


def test_classes_weigh_the_same_and_all_add_up_to_1() -> None:
    weights = weigh_classes(np.array([0, 0, 0, 2]), 3)
    assert weights[:3].sum() == pytest.approx(0.5)
    assert weights[3] == pytest.approx(0.5)


def test_left_out_scores_are_those_of_a_fit_without_the_group() -> None:
    examples = make_examples()
    # The first has more rows than there are channels.
    groups = np.array([0] * 12 + [number // 3 if number < 30 else number for number in range(12, 60)])
    found = np.full((len(STRENGTHS), 60, 3), np.nan)
    for members, scores in ridge_left_out(examples, spectrum(examples), groups, STRENGTHS):
        found[:, members] = scores
    for place, strength in enumerate(STRENGTHS):
        for group in np.unique(groups):
            head = refit(examples, groups != group, strength)
            expected = with_constant(examples.rows[groups == group]) @ head
            assert found[place, groups == group] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("strength", [1e-7, 1e-5, 1e-3, 1e-1])
def test_the_softmax_head_has_no_slope_left(strength: float) -> None:
    examples = make_examples()
    weight = fit_softmax(examples, strength, spectrum(examples))
    rows = with_constant(examples.rows)
    slope = np.exp(log_softmax(rows @ weight.T)) - np.eye(3)[examples.classes]
    gradient = (slope * examples.weights[:, None]).T @ rows + strength * weight
    assert np.linalg.norm(gradient) <= min(TOLERANCE, MAX_DISTANCE * strength)


def test_another_start_leads_to_the_same_head() -> None:
    examples = make_examples()
    like = spectrum(examples)
    start = np.random.default_rng(2).normal(size=(3, 8))
    first, second = fit_softmax(examples, 1e-2, like), fit_softmax(examples, 1e-2, like, start)
    # The second derivative is at least the strength.
    assert np.linalg.norm(first - second) <= 2 * TOLERANCE / 1e-2


def test_the_same_rows_give_the_same_numbers() -> None:
    heads = [fit_softmax(make_examples(), 1e-3, spectrum(make_examples())) for _ in range(2)]
    assert heads[0].tobytes() == heads[1].tobytes()


def test_chunks_and_whole_rows_give_the_same_head(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = make_examples()
    like = spectrum(examples)
    whole = fit_softmax(examples, 1e-2, like)
    monkeypatch.setattr("app.model.solver.CHUNK_ROWS", 7)
    monkeypatch.setattr("app.model.solver.MAX_KEPT_BYTES", 0)
    assert np.linalg.norm(fit_softmax(examples, 1e-2, like) - whole) <= 2 * TOLERANCE / 1e-2


@pytest.mark.parametrize("columns", [1, 6, 128])
def test_folds_side_by_side_are_as_each_alone(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr("app.model.solver._MAX_COLUMNS", columns)
    examples, folds, strength = make_examples(), np.arange(60) % 5, 1e-3
    like = spectrum(examples)
    left_out = np.full((60, 3), np.nan)
    for members, logits in softmax_left_out(examples, folds, strength, fit_softmax(examples, strength, like)):
        left_out[members] = logits
    for fold in range(5):
        kept = folds != fold
        classes = examples.classes[kept]
        part = Examples(examples.rows[kept], classes, weigh_classes(classes, 3), 3)
        expected = with_constant(examples.rows[~kept]) @ fit_softmax(part, strength, like).T
        assert left_out[~kept] == pytest.approx(expected, abs=3 * TOLERANCE / strength)
