"""A share of photos with its confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Z_95 = 1.959964


@dataclass(frozen=True)
class Share:
    """A share of `count` photos in percent, with its 95% interval."""

    percent: float
    low: float
    high: float
    count: int = 0


def wilson_interval(hits: float, count: int) -> Share:
    """Return hits / count in percent with its 95% interval (Wilson, JASA 22, 1927); a hit may count in part."""
    if count == 0:
        return Share(0.0, 0.0, 100.0)
    z = Z_95
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    percent, low, high = (round(100 * value, 2) for value in (share, low, high))
    return Share(percent, low, high, count)


def share_right(are_right: npt.NDArray[np.bool_]) -> Share:
    """Return the share of photos that are right, with its interval."""
    return wilson_interval(int(are_right.sum()), len(are_right))
