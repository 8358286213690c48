"""Admission limits requests, their bytes, and the time until an answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fakes import colour_png, fake_classifier
from shapes import assert_problem, form

from app import create_app
from app.errors import Overloaded
from app.queueing.admission import MAX_RETRY_SECONDS, Admission
from app.settings import Settings


def test_a_request_too_many_is_refused_at_once() -> None:
    admission = Admission(max_requests=2, max_bytes=100)
    leave = admission.enter(1)
    admission.enter(1)
    with pytest.raises(Overloaded, match="2 requests are waiting already"):
        admission.enter(1)
    leave()
    admission.enter(1)
    assert admission.requests == 2


def test_bytes_too_many_are_refused_at_once() -> None:
    admission = Admission(max_requests=10, max_bytes=1000)
    leave = admission.enter(900)
    with pytest.raises(Overloaded, match="900 bytes of photos are waiting already"):
        admission.enter(101)
    admission.enter(100)
    leave()
    assert (admission.requests, admission.bytes) == (1, 100)


def test_a_refusal_says_how_long_those_before_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("app.queueing.admission.time.monotonic", lambda: now[0])
    admission = Admission(max_requests=4, max_bytes=100)
    for _ in range(3):
        leaves = [admission.enter(1) for _ in range(4)]
        for leave in leaves:
            now[0] += 2.0
            leave()
        now[0] += 500.0  # idle time
    for _ in range(4):
        admission.enter(1)
    with pytest.raises(Overloaded) as refusal:
        admission.enter(1)
    assert refusal.value.retry_after_seconds == 8
    assert "Try again in 8 s." in refusal.value.detail


def test_retry_after_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("app.queueing.admission.time.monotonic", lambda: now[0])
    admission = Admission(max_requests=1, max_bytes=1)
    leave = admission.enter(1)
    now[0] += 1000
    leave()
    admission.enter(1)
    with pytest.raises(Overloaded) as refusal:
        admission.enter(1)
    assert refusal.value.retry_after_seconds == MAX_RETRY_SECONDS


def test_more_than_can_be_answered_in_time_is_refused_at_once() -> None:
    expected = [1.9]
    admission = Admission(10, 1000, max_seconds=2.0, expected_seconds=lambda: expected[0])
    admission.enter(1)
    expected[0] = 2.1
    with pytest.raises(Overloaded, match="1 requests are waiting already"):
        admission.enter(1)


@pytest.mark.parametrize(("share", "status"), [(0.69, 200), (0.71, 503)])
def test_a_photo_is_admitted_if_it_can_be_answered_in_time(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, share: float, status: int
) -> None:
    monkeypatch.setattr("app.queueing.scheduling.Slots.expected_seconds", 30 * share)
    client = create_app(make_settings(deadline_ms=30_000), fake_classifier()).test_client()
    answer = client.post("/api/v1/predict", **form(colour_png(9)))
    assert answer.status_code == status
    if status == 503:
        assert_problem(answer, 503, "overloaded")
