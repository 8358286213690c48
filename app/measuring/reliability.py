"""How far probabilities can be relied on: calibration error, reliability per bin, coverage, and sure answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..model.calibration_fit import Bools, last_accurate
from ..model.probabilities import Doubles

BINS = 15
RESAMPLES = 1000
SEED = 0


@dataclass(frozen=True)
class Bin:
    """The photos whose first probability is in one of equal parts of 0 to 1: how many, and two means in percent."""

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
    """Compare the probability of each photo's first class (n) with whether it is right (n); n is at least 1."""
    places = _places(probabilities, BINS)
    error = _error(places, probabilities - right)
    low, high = _error_interval(probabilities, right, places)
    return Reliability(
        error=_percent(error),
        low=_percent(low),
        high=_percent(high),
        coverage=_percent(last_accurate(probabilities, right) / len(right)),
        bins=reliability_bins(probabilities, right, BINS),
    )


def reliability_bins(probabilities: Doubles, right: Bools, count: int) -> list[Bin]:
    """Return the bins of a reliability diagram: `count` equal parts of 0 to 1, also those without a photo."""
    places = _places(probabilities, count)
    return [_bin(probabilities[places == place], right[places == place]) for place in range(count)]


def _places(probabilities: Doubles, count: int) -> npt.NDArray[np.int64]:
    return np.clip(np.ceil(probabilities * count).astype(np.int64) - 1, 0, count - 1)


def _error_interval(probabilities: Doubles, right: Bools, places: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the 95% bootstrap interval of the calibration error, from 1000 resamples of the photos.

    Chance adds to the distance in each bin, and a resample adds it once more. So the ends are the basic bootstrap's
    lower one and the percentile's upper one less the mean excess of the resamples, and the lower end is 0 if answers
    that are right as often as their probability says give such an error by chance. In simulations of 300 and 1000
    photos with true errors of 0, 2, 4 and 10%, 92 to 98% of these intervals held the true error.
    """
    rng = np.random.default_rng(SEED)
    gaps = probabilities - right
    error = _error(places, gaps)
    drawn, by_chance = [], []
    for _ in range(RESAMPLES):
        picked = rng.integers(0, len(gaps), len(gaps))
        drawn.append(_error(places[picked], gaps[picked]))
        by_chance.append(_error(places, probabilities - (rng.random(len(gaps)) < probabilities)))
    excess = float(np.mean(drawn)) - error
    high = float(np.percentile(drawn, 97.5))
    low = 0.0 if error <= float(np.percentile(by_chance, 97.5)) else max(0.0, 2 * error - high)
    return low, max(error, high - excess)


def _error(places: npt.NDArray[np.int64], gaps: Doubles) -> float:
    """Return the sum of the bins' absolute mean gaps, each weighted with the bin's share of photos."""
    return float(np.abs(np.bincount(places, gaps)).sum() / len(gaps))


def _bin(probabilities: Doubles, right: Bools) -> Bin:
    if len(right) == 0:
        return Bin(0, 0.0, 0.0)
    return Bin(len(right), _percent(float(probabilities.mean())), _percent(float(right.mean())))


def _percent(share: float) -> float:
    return round(100 * float(share), 2)
