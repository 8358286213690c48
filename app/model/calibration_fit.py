"""Fit a calibration to the logits of labelled photos: temperature, thresholds, and their intervals.

Everything is computed in float64 from arrays alone, and the resampling is seeded: the same logits give the same
calibration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..errors import TopthreeError
from .calibration import Calibration
from .probabilities import Doubles, softmax

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

SURE_ACCURACY = 0.95
UNLIKE_PERCENTILE = 5.0
RESAMPLES = 1000
SEED = 0
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0

_STEPS = 50  # of Newton's method; about seven are needed
_TOLERANCE = 1e-9
_CHUNK = 2048  # photos whose probabilities are in memory at a time
# Temperatures of resamples are interpolated between these multiples of the fitted one.
_GRID = np.geomspace(0.5, 2.0, 41)


class FitError(TopthreeError):
    """No calibration fits these photos."""


def fit_calibration(
    logits: npt.NDArray[np.floating], truths: Ints, *, source: str, scores: Doubles | None = None
) -> Calibration:
    """Fit all numbers to the logits (n, classes) and true classes (n) of n photos.

    `scores` (n) are the photos' rejection scores; without them `unlike_below` is None. The intervals are the 2.5th and
    97.5th percentiles of 1000 resamples of the photos, each with its own temperature. Raises FitError.
    """
    temperature = fit_temperature(logits, truths)
    right = np.asarray(logits.argmax(axis=1) == truths)
    sure_at = sure_threshold(first_probabilities(logits, temperature), right)
    unlike = None if scores is None else float(np.percentile(scores, UNLIKE_PERCENTILE))
    rng = np.random.default_rng(SEED)
    grid = np.clip(temperature * _GRID, MIN_TEMPERATURE, MAX_TEMPERATURE)
    slopes = np.stack([_slopes(logits, truths, 1 / each) for each in grid], axis=1)
    firsts = np.stack([first_probabilities(logits, each) for each in grid], axis=1)
    drawn: dict[str, list[float]] = {"temperature": [], "sure_at": [], "unlike_below": []}
    for _ in range(RESAMPLES):
        picked = rng.integers(0, len(truths), len(truths))
        # The slopes fall as the temperature rises, and np.interp wants rising ones.
        place = float(np.interp(0.0, slopes[picked].mean(axis=0)[::-1], np.arange(len(grid))[::-1]))
        drawn["temperature"].append(float(np.interp(place, np.arange(len(grid)), grid)))
        drawn["sure_at"].append(sure_threshold(_between(firsts, place)[picked], right[picked]))
        if scores is not None:
            drawn["unlike_below"].append(float(np.percentile(scores[picked], UNLIKE_PERCENTILE)))
    intervals = {name: _interval(values) for name, values in drawn.items() if values}
    return Calibration(round(temperature, 4), round(sure_at, 4), unlike, source, len(truths), intervals)


def fit_temperature(logits: npt.NDArray[np.floating], truths: Ints, *, added: int = 0) -> float:
    """Return the temperature that makes the true classes (n) likeliest, given logits (n, classes).

    It minimises the mean negative log-likelihood (Guo et al., ICML 2017), which is convex in 1/T: Newton's method,
    halving the bracket where a step would leave it. `added` photos with the logits of all, but of any class, count as
    well: with them there is a temperature for photos that are all classified correctly. Raises FitError if the minimum
    is beyond a bound, as it is for such photos without them, or for photos that are named no better than by chance.
    """
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    share = added / (len(truths) + added)
    # The slope changes by this wherever it is: a photo of any class has the mean of its logits for its true one's.
    shift = share * float((logits[np.arange(len(truths)), truths] - logits.mean(axis=1)).mean())
    if _slopes(logits, truths, low).mean() + shift >= 0:
        raise FitError(
            f"No temperature up to {MAX_TEMPERATURE:g} fits: the model names these photos no better than by chance, "
            "or is certain of its mistakes."
        )
    if _slopes(logits, truths, high).mean() + shift <= 0:
        if (logits.argmax(axis=1) == truths).all():
            raise FitError(
                "The model makes no mistake on these photos, so that no temperature fits them; use harder ones."
            )
        raise FitError(
            f"No temperature from {MIN_TEMPERATURE:g} on fits: the model's numbers are too close together for logits."
        )
    inverse = 1.0
    for _ in range(_STEPS):
        slope, curvature = _slopes(logits, truths, inverse).mean() + shift, _curvature(logits, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= _TOLERANCE * inverse:
            break
        inverse = following
    return float(1 / inverse)


def first_probabilities(logits: npt.NDArray[np.floating], temperature: float) -> Doubles:
    """Return the probability of the likeliest class of each photo (n), the softmax of logits / temperature."""
    return np.concatenate([softmax(chunk / temperature).max(axis=1) for chunk in _chunks(logits)])


def sure_threshold(probabilities: Doubles, right: Bools) -> float:
    """Return the least t such that 95% of the photos with a probability of at least t are classified correctly.

    For each t, one right and one wrong photo are added (Laplace's rule of succession): few photos then need a better
    record, and 18 photos without a mistake are the least that reach 95%. Without such a t it is 1, which no softmax of
    several classes exceeds.
    """
    found = last_accurate(probabilities, right, added=1)
    return 1.0 if found == 0 else float(np.sort(probabilities)[-found])


def last_accurate(probabilities: Doubles, right: Bools, *, added: int = 0) -> int:
    """Return how many photos, the most probable first, can be accepted with 95% of them right; 0 if none can.

    Photos of one probability are accepted together. `added` right photos and as many wrong ones count as well.
    """
    order = np.argsort(-probabilities, kind="stable")
    counts = np.arange(1, len(order) + 1)
    accurate = np.cumsum(right[order]) + added >= SURE_ACCURACY * (counts + 2 * added)
    is_last_of_equals = np.append(np.diff(probabilities[order]) != 0, True)
    return int(counts[accurate & is_last_of_equals].max(initial=0))


def _slopes(logits: npt.NDArray[np.floating], truths: Ints, inverse: float) -> Doubles:
    """Return the derivative of each photo's negative log-likelihood in 1/T: the mean logit minus the true class's."""
    means = [(softmax(chunk * inverse) * chunk).sum(axis=1) for chunk in _chunks(logits)]
    return np.asarray(np.concatenate(means) - logits[np.arange(len(truths)), truths])


def _curvature(logits: npt.NDArray[np.floating], inverse: float) -> float:
    """Return the second derivative of the mean negative log-likelihood in 1/T: the mean variance of the logits."""
    total = 0.0
    for chunk in _chunks(logits):
        probabilities = softmax(chunk * inverse)
        mean = (probabilities * chunk).sum(axis=1, keepdims=True)
        total += float((probabilities * (chunk - mean) ** 2).sum())
    return total / len(logits)


def _chunks(logits: npt.NDArray[np.floating]) -> Iterator[Doubles]:
    for start in range(0, len(logits), _CHUNK):
        yield logits[start : start + _CHUNK].astype(np.float64)


def _between(columns: Doubles, place: float) -> Doubles:
    """Return a column between two neighbours, interpolated."""
    left = min(int(place), columns.shape[1] - 2)
    share = place - left
    return np.asarray(columns[:, left] * (1 - share) + columns[:, left + 1] * share)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return round(float(low), 4), round(float(high), 4)
