"""Calibration error, coverage and the reliability diagram, against numbers worked out by hand."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from app.measuring.diagram import draw_reliability
from app.measuring.reliability import BINS, measure_reliability

SVG = "{http://www.w3.org/2000/svg}"
# 10 photos at 0.95, of which 8 are right, and 10 at 0.55, of which 5 are.
PROBABILITIES = np.array([0.95] * 10 + [0.55] * 10)
RIGHT = np.array([True] * 8 + [False] * 2 + [True] * 5 + [False] * 5)


def test_the_error_is_the_weighted_distance_of_the_bins() -> None:
    found = measure_reliability(PROBABILITIES, RIGHT)
    assert found.error == pytest.approx(10.0)  # half of 15 and half of 5
    filled = [(each.photos, each.probability, each.accuracy) for each in found.bins if each.photos]
    assert filled == [(10, 55.0, 50.0), (10, 95.0, 80.0)]
    assert len(found.bins) == BINS


@pytest.mark.parametrize(("probability", "place"), [(1.0, 14), (1 / 15, 0), (0.067, 1), (0.0, 0)])
def test_a_bin_includes_its_upper_end(probability: float, place: int) -> None:
    bins = measure_reliability(np.array([probability]), np.array([True])).bins
    assert [each.photos for each in bins].index(1) == place


def test_coverage_is_the_share_with_95_percent_right() -> None:
    probabilities = np.arange(100, 0, -1) / 100
    right = np.arange(100) < 90
    assert measure_reliability(probabilities, right).coverage == 94.0  # 90 right and 4 wrong photos
    assert measure_reliability(probabilities, ~right).coverage == 0.0


@pytest.mark.parametrize("true_error", [0.0, 0.1])
def test_the_interval_holds_the_true_error(true_error: float) -> None:
    hits = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        probabilities = rng.uniform(0.3, 1, 500)
        found = measure_reliability(probabilities, rng.random(500) < probabilities - true_error)
        hits += found.low <= 100 * true_error <= found.high
    assert hits >= 17


def test_the_diagram_has_a_bar_and_its_gap_for_each_filled_bin() -> None:
    found = measure_reliability(PROBABILITIES, RIGHT)
    root = ET.fromstring(draw_reliability("a <b> & c", [("confidences", found), ("probabilities", found)]))
    assert root.findtext(f"{SVG}title") == "a <b> & c"
    bars = [float(bar.attrib["height"]) for bar in root.iterfind(f".//{SVG}rect[@class='bar']")]
    gaps = [float(gap.attrib["height"]) for gap in root.iterfind(f".//{SVG}rect[@class='gap']")]
    assert bars == [150.0, 240.0] * 2  # of 300 pixels
    assert gaps == [15.0, 45.0] * 2
    assert "confidences: calibration error 10.00 %" in "".join(root.itertext())
