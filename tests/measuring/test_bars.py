"""Progress where there is no terminal: lines of a log."""

from __future__ import annotations

import re

import pytest

from app.commands import _progress
from app.measuring import bars
from app.queueing.scheduling import Counts


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the clock by the last number of a list."""
    numbers = [1000.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: numbers[-1])
    return numbers


def written(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines on standard error, without the time of day."""
    lines = capsys.readouterr().err.splitlines()
    return [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} ", "", line) for line in lines]


def test_a_long_step_has_a_line_every_half_minute(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with bars.showing_steps() as step:
        for second in range(0, 95, 5):
            now.append(1000.0 + second)
            step("Embedding", 100 + 10 * second, 7300)
    assert written(capsys) == [
        "Embedding: 400 of 7,300, 10.0/s, 12 min left",
        "Embedding: 700 of 7,300, 10.0/s, 11 min left",
        "Embedding: 1,000 of 7,300, 10.0/s, 10 min left",
    ]


def test_short_steps_have_no_line(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with bars.showing_steps() as step:
        for number in range(100):
            now.append(1000.0 + number)
            step(f"Step {number // 25}", number % 25, 25)
        step.say("A line.")
    assert written(capsys) == ["A line."]


def test_a_step_of_unknown_length_has_no_time_left(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with bars.showing_steps() as step:
        step("Classifying", 0, None)
        now.append(1030.0)
        step("Classifying", 45, None)
    assert written(capsys) == ["Classifying: 45, 1.5/s"]


def test_no_line_where_rows_show_the_progress(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with bars.showing_steps(is_wanted=False) as step:
        step("Classifying", 0, 10)
        now.append(1060.0)
        step("Classifying", 9, 10)
    assert written(capsys) == []


def test_a_job_names_what_failed_and_its_own_pace(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with _progress.showing("Classifying") as note:
        note(Counts(photos=1000, done=500))
        now.append(1030.0)
        note(Counts(photos=1000, done=560, failed=2, computed=60))
    assert written(capsys) == ["Classifying: 500 of 1,000", "Classifying, 2 failed: 560 of 1,000, 2.0/s, 4 min left"]
