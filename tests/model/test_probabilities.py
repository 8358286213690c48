"""From logits to probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from app.model.probabilities import log_softmax, log_sum_exp, softmax

LOGITS = np.array([[1000.0, 999.0, -1000.0], [0.0, 0.0, 0.0]], np.float32)


def test_softmax_survives_large_logits() -> None:
    probabilities = softmax(np.array([1000.0, 999.0, -1000.0], np.float32))
    assert probabilities == pytest.approx([0.731059, 0.268941, 0.0], abs=1e-6)


def test_logarithms_are_those_of_the_probabilities() -> None:
    probabilities = softmax(LOGITS)
    assert np.allclose(np.exp(log_softmax(LOGITS)), probabilities)
    assert np.allclose(log_sum_exp(LOGITS)[:, 0], [1000 + np.log(1 + np.exp(-1)), np.log(3)])
    assert np.array_equal(probabilities[0], softmax(LOGITS[0]))
