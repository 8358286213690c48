"""The load generator counts requests and measures from the moment at which each was due."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from app.measuring.load import (
    Load,
    MakeSender,
    RequestFailed,
    closed_loop,
    open_loop,
    parse_server_timing,
)
from app.measuring.plots import plot_loads

PHOTOS = [b"a", b"b", b"c"]


def counting_sender(sent: list[bytes]) -> MakeSender:
    def send(photo: bytes) -> dict[str, float]:
        sent.append(photo)
        time.sleep(0.002)  # an answer takes time; without it the loop would measure itself
        return {"infer": 2.0}

    return lambda: nullcontext(send)


def test_a_closed_loop_keeps_every_client_busy() -> None:
    sent: list[bytes] = []
    load = closed_loop(counting_sender(sent), PHOTOS, clients=3, seconds=0.2)
    assert (load.loop, load.level, load.requests, load.errors) == ("closed", 3, len(sent), 0)
    assert set(sent) == set(PHOTOS)
    assert load.throughput == pytest.approx(load.requests / 0.2, rel=0.5)
    assert 2.0 <= load.p50 <= load.p90 <= load.p99 <= load.slowest
    assert load.stages == {"infer": 2.0}


def test_an_open_loop_sends_at_its_rate_whatever_the_answers() -> None:
    sent: list[bytes] = []
    load = open_loop(counting_sender(sent), PHOTOS, rate=200, seconds=0.5)
    assert load.requests == len(sent)
    assert 60 <= load.requests <= 140  # a Poisson count of mean 100, four deviations wide


def test_an_open_loop_counts_from_the_moment_a_photo_was_due() -> None:
    gate, first = threading.Lock(), threading.Event()

    def send(photo: bytes) -> dict[str, float]:
        with gate:  # one at a time: the others wait for their turn, and that is their latency
            if not first.is_set():
                first.set()
                time.sleep(0.3)
            return {}

    load = open_loop(lambda: nullcontext(send), PHOTOS, rate=100, seconds=0.3)
    assert load.slowest >= 300
    assert load.p50 >= 100


def test_failures_are_counted_and_not_timed() -> None:
    outcomes = iter(range(10**9))

    def send(photo: bytes) -> dict[str, float]:
        if next(outcomes) % 2:
            raise RequestFailed(503)
        return {}

    load = closed_loop(lambda: nullcontext(send), PHOTOS, clients=1, seconds=0.05)
    assert load.errors == load.requests // 2


def test_cached_answers_are_counted_and_belong_to_no_stage() -> None:
    answers = iter([{"infer": 4.0, "total": 6.0}] + [{"cache": 0.0, "total": 1.0}] * 10**6)
    load = closed_loop(lambda: nullcontext(lambda photo: next(answers)), PHOTOS, clients=1, seconds=0.3)
    assert load.hits == load.requests - 1
    assert load.stages == {"infer": 4.0, "total": 1.0}


def test_nothing_answered_is_no_crash() -> None:
    def send(photo: bytes) -> dict[str, float]:
        raise OSError("refused")

    load = closed_loop(lambda: nullcontext(send), PHOTOS, clients=1, seconds=0.01)
    assert (load.throughput, load.p50, load.errors) == (0.0, 0.0, load.requests)


@pytest.mark.parametrize(
    ("header", "stages"),
    [
        ('decode;dur=1.25, infer;dur=10, batch;desc="1"', {"decode": 1.25, "infer": 10.0}),
        ("cache;desc=hit, total;dur=0.5", {"cache": 0.0, "total": 0.5}),
        ("", {}),
    ],
)
def test_server_timing_is_read(header: str, stages: dict[str, float]) -> None:
    assert parse_server_timing(header) == stages


def load_of(loop: str, level: float) -> Load:
    return Load(loop, level, 100, 0, 0, 10 * level, 5, 6, 7, 8, {})


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_plot_is_a_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plot.{suffix}"
    plot_loads([load_of("closed", 1), load_of("closed", 8), load_of("open", 20)], "test", path)
    assert path.stat().st_size > 5000
