"""How far probabilities can be relied on: calibration error, reliability per bin, coverage, and sure answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..model.calibration_fit import Bools, Doubles, last_accurate

BINS = 15
RESAMPLES = 1000
SEED = 0


@dataclass(frozen=True)
class Bin:
    """The photos whose first probability is in one of 15 equal parts of 0 to 1: how many, and two means in percent."""

    photos: int
    probability: float
    accuracy: float


@dataclass(frozen=True)
class Reliability:
    """The reliability of first probabilities, in percent.

    `error` is the expected calibration error over 15 bins of equal width (Guo et al., ICML 2017), `low` to `high` its
    95% interval. `coverage` is the largest share of photos, the most probable first, of which 95% are right.
    """

    error: float
    low: float
    high: float
    coverage: float
    bins: list[Bin]


def measure_reliability(probabilities: Doubles, right: Bools) -> Reliability:
    """Compare the probability of each photo's first class (n) with whether it is right (n); n is at least 1.

    The interval is the basic bootstrap's, which mirrors the percentiles of 1000 resamples at the estimate: resampling
    adds noise to every bin, so that the resamples' errors lie above the estimate as the estimate lies above the truth.
    """
    places = np.clip(np.ceil(probabilities * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = probabilities - right
    rng = np.random.default_rng(SEED)
    error = _error(places, gaps)
    drawn = []
    for _ in range(RESAMPLES):
        picked = rng.integers(0, len(gaps), len(gaps))
        drawn.append(_error(places[picked], gaps[picked]))
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Reliability(
        error=_percent(error),
        low=_percent(max(0.0, 2 * error - high)),
        high=_percent(max(error, 2 * error - low)),
        coverage=_percent(last_accurate(probabilities, right) / len(right)),
        bins=[_bin(probabilities[places == place], right[places == place]) for place in range(BINS)],
    )


def _error(places: npt.NDArray[np.int64], gaps: Doubles) -> float:
    """Return the sum of the bins' absolute mean gaps, each weighted with the bin's share of photos."""
    return float(np.abs(np.bincount(places, gaps)).sum() / len(gaps))


def _bin(probabilities: Doubles, right: Bools) -> Bin:
    if len(right) == 0:
        return Bin(0, 0.0, 0.0)
    return Bin(len(right), _percent(float(probabilities.mean())), _percent(float(right.mean())))


def _percent(share: float) -> float:
    return round(100 * share, 2)
