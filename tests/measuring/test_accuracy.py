"""The interval of an accuracy is that of the literature."""

from __future__ import annotations

import pytest

from app.model.shares import wilson_interval


# R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (score without continuity correction).
@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18)],
)
def test_intervals_are_those_of_a_published_table(hits: int, count: int, low: float, high: float) -> None:
    share = wilson_interval(hits, count)
    assert share.percent == pytest.approx(100 * hits / count, abs=0.005)
    assert (share.low, share.high) == (low, high)


def test_the_interval_of_all_mirrors_that_of_none() -> None:
    assert wilson_interval(20, 20).low == pytest.approx(100 - wilson_interval(0, 20).high)
