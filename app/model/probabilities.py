"""From logits to probabilities, in float64 and along the last axis: for one photo or for many."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Logits = npt.NDArray[np.floating]


def log_sum_exp(logits: Logits) -> Doubles:
    """Return the logarithm of the sum of the exponentials of the last axis, which is kept with length 1."""
    highest = logits.max(axis=-1, keepdims=True).astype(np.float64)
    return np.asarray(highest + np.log(np.exp(logits - highest).sum(axis=-1, keepdims=True)))


def log_softmax(logits: Logits) -> Doubles:
    """Return the logarithms of the probabilities."""
    return np.asarray(logits - log_sum_exp(logits))


def softmax(logits: Logits) -> Doubles:
    """Turn logits into probabilities that add up to 1."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True).astype(np.float64))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))
