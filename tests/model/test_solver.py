"""The solver of heads: its minimum, its left-out predictions, and that the same rows give the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from app.model.probabilities import log_softmax
from app.model.solver import (
    Examples,
    fit_softmax,
    ridge_left_out,
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
    groups = np.array([number // 3 if number < 30 else number for number in range(60)])
    found = np.full((len(STRENGTHS), 60, 3), np.nan)
    for members, scores in ridge_left_out(examples, spectrum(examples), groups, STRENGTHS):
        found[:, members] = scores
    for place, strength in enumerate(STRENGTHS):
        for group in np.unique(groups):
            head = refit(examples, groups != group, strength)
            expected = with_constant(examples.rows[groups == group]) @ head
            assert found[place, groups == group] == pytest.approx(expected, abs=1e-9)


def test_the_softmax_head_has_no_slope_left() -> None:
    examples, strength = make_examples(), 1e-3
    weight = fit_softmax(examples, strength, spectrum(examples))
    rows = with_constant(examples.rows)
    slope = np.exp(log_softmax(rows @ weight.T)) - np.eye(3)[examples.classes]
    gradient = (slope * examples.weights[:, None]).T @ rows + strength * weight
    assert np.linalg.norm(gradient) <= 1e-5


def test_another_start_leads_to_the_same_head() -> None:
    examples = make_examples()
    like = spectrum(examples)
    start = np.random.default_rng(2).normal(size=(3, 8))
    first, second = fit_softmax(examples, 1e-2, like), fit_softmax(examples, 1e-2, like, start)
    assert first == pytest.approx(second, abs=5e-3)


def test_the_same_rows_give_the_same_numbers() -> None:
    heads = [fit_softmax(make_examples(), 1e-3, spectrum(make_examples())) for _ in range(2)]
    assert heads[0].tobytes() == heads[1].tobytes()


def test_chunks_and_whole_rows_give_the_same_head(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = make_examples()
    like = spectrum(examples)
    whole = fit_softmax(examples, 1e-2, like)
    monkeypatch.setattr("app.model.solver.CHUNK_ROWS", 7)
    monkeypatch.setattr("app.model.solver.MAX_KEPT_BYTES", 0)
    assert fit_softmax(examples, 1e-2, like) == pytest.approx(whole, abs=5e-3)
