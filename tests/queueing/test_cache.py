"""The same question is computed once, kept within a bound of bytes, and no failure is kept."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from watching import WatchedDeadline

from app.errors import BrokenImage, ClientClosedRequest, DeadlineExceeded, Overloaded
from app.queueing.cache import ENTRY_BYTES, ResultCache
from app.queueing.scheduling import Deadline

PATIENCE_SECONDS = 20
ROOMY = 100 * ENTRY_BYTES


def forbidden() -> bytes:
    """Compute what must not be computed."""
    raise AssertionError("This was to be known already.")


class Held:
    """A computation that says when it began and ends when it is told to."""

    def __init__(self, outcome: bytes | Exception) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()
        self._outcome = outcome

    def __call__(self) -> bytes:
        self.began.set()
        assert self.go_on.wait(PATIENCE_SECONDS)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def test_the_same_question_is_answered_from_memory() -> None:
    cache = ResultCache(ROOMY)
    assert cache.get_or_compute("cat", lambda: b"tabby") == (b"tabby", "miss")
    assert cache.get_or_compute("cat", forbidden) == (b"tabby", "hit")
    assert cache.get_or_compute("dog", lambda: b"collie") == (b"collie", "miss")


def test_the_least_recently_used_response_makes_room() -> None:
    cache = ResultCache(2 * (ENTRY_BYTES + 1))
    for key in ("a", "b", "a", "c"):
        cache.get_or_compute(key, lambda: b"x")
    assert cache.get_or_compute("a", forbidden)[1] == "hit"
    assert cache.get_or_compute("b", lambda: b"y") == (b"y", "miss")


def test_the_bound_is_in_bytes() -> None:
    cache = ResultCache(10 * ENTRY_BYTES)
    for key in range(50):
        cache.get_or_compute(key, lambda: bytes(ENTRY_BYTES))
        assert cache.bytes <= 10 * ENTRY_BYTES
    assert cache.bytes == 10 * ENTRY_BYTES


def test_a_response_larger_than_the_cache_is_not_cached() -> None:
    cache = ResultCache(ROOMY)
    cache.get_or_compute("small", lambda: b"x")
    cache.get_or_compute("large", lambda: bytes(ROOMY))
    assert cache.get_or_compute("small", forbidden)[1] == "hit"
    assert cache.get_or_compute("large", lambda: b"again")[1] == "miss"


def test_without_room_nothing_is_cached() -> None:
    cache = ResultCache(0)
    assert [cache.get_or_compute("cat", lambda: b"tabby")[1] for _ in range(2)] == ["miss", "miss"]
    assert cache.bytes == 0


def test_a_failure_is_not_cached() -> None:
    cache = ResultCache(ROOMY)
    with pytest.raises(AssertionError):
        cache.get_or_compute("cat", forbidden)
    assert cache.get_or_compute("cat", lambda: b"tabby") == (b"tabby", "miss")


@pytest.mark.parametrize("max_bytes", [ROOMY, 0])
def test_many_at_once_are_computed_once(max_bytes: int) -> None:
    cache, held = ResultCache(max_bytes), Held(b"tabby")
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(cache.get_or_compute, "cat", held)
        assert held.began.wait(PATIENCE_SECONDS)
        watch = WatchedDeadline()
        rest = [pool.submit(cache.get_or_compute, "cat", forbidden, watch) for _ in range(7)]
        watch.wait_for_waits(7)
        held.go_on.set()
    assert first.result() == (b"tabby", "miss")
    assert [future.result() for future in rest] == [(b"tabby", "shared")] * 7


def test_a_photos_fault_is_shared_by_all_its_requests() -> None:
    cache, held = ResultCache(ROOMY), Held(BrokenImage("It is cut short."))
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(cache.get_or_compute, "cat", held)]
        assert held.began.wait(PATIENCE_SECONDS)
        watch = WatchedDeadline()
        futures += [pool.submit(cache.get_or_compute, "cat", forbidden, watch) for _ in range(2)]
        watch.wait_for_waits(2)
        held.go_on.set()
    assert [type(future.exception()) for future in futures] == [BrokenImage] * 3


@pytest.mark.parametrize(
    "failure", [DeadlineExceeded("Late."), ClientClosedRequest("Gone."), Overloaded("Full."), OSError("?")]
)
def test_another_failure_is_not_shared(failure: Exception) -> None:
    cache, held = ResultCache(ROOMY), Held(failure)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(cache.get_or_compute, "cat", held)
        assert held.began.wait(PATIENCE_SECONDS)
        watch = WatchedDeadline()
        rest = [pool.submit(cache.get_or_compute, "cat", lambda: b"tabby", watch) for _ in range(2)]
        watch.wait_for_waits(2)
        held.go_on.set()
    assert first.exception() is failure
    assert [future.result()[0] for future in rest] == [b"tabby"] * 2


def test_no_request_waits_for_another_beyond_its_deadline() -> None:
    cache, held = ResultCache(ROOMY), Held(b"tabby")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.get_or_compute, "cat", held)
        assert held.began.wait(PATIENCE_SECONDS)
        with pytest.raises(DeadlineExceeded, match="another request"):
            cache.get_or_compute("cat", forbidden, Deadline(time.monotonic() + 0.01))
        held.go_on.set()
    assert first.result() == (b"tabby", "miss")
