"""Answers kept for the next who asks the same, and one computation for all who ask the same at once.

An answer depends on the photo's bytes, the model, the parameters and our own version alone, so its key holds
these four and nothing ever expires; what was not used for longest makes room. The bound is in bytes. Where callers
need keys, the caller's name is the fifth, so that nobody learns from the time of an answer what others have sent.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Literal

from ..errors import ClientClosedRequest, DeadlineExceeded, Problem
from ..telemetry import metrics
from .scheduling import NO_DEADLINE, Deadline

Source = Literal["miss", "hit", "shared"]

# Ends with the answer, with the problem of the photo, or with None where it failed for reasons of its own.
_Flight = Future[bytes | Problem | None]

# What an entry takes beside its bytes: key, digest, links. Measured with tracemalloc, rounded up.
ENTRY_BYTES = 1024


class ResultCache:
    """At most `max_bytes` of answers, least recently used first out; with 0 many still share one computation."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._flights: dict[Hashable, _Flight] = {}
        self.bytes = 0
        self.waiting = 0

    def get_or_compute(
        self, key: Hashable, compute: Callable[[], bytes], deadline: Deadline = NO_DEADLINE
    ) -> tuple[bytes, Source]:
        """Return the answer of `key`, and whether it was kept ("hit"), is another's ("shared") or new ("miss").

        Raises what `compute` raises. A failure is never kept; those who share the flight share it where the photo
        is at fault, and try by themselves where the fault was the other's: a deadline, say. DeadlineExceeded is
        raised where another's computation takes longer than this caller's deadline.
        """
        while True:
            with self._lock:
                kept = self._kept.get(key)
                if kept is not None:
                    self._kept.move_to_end(key)
                    metrics.count_cache("hit")
                    return kept, "hit"
                flight = self._flights.get(key)
                if flight is None:
                    flight = self._flights[key] = Future()
                    break
                self.waiting += 1
            shared = self._share(flight, deadline)
            if shared is not None:
                metrics.count_cache("shared")
                return shared, "shared"
            deadline.check()
        metrics.count_cache("miss")
        return self._fly(key, flight, compute), "miss"

    def _share(self, flight: _Flight, deadline: Deadline) -> bytes | None:
        """Wait for another's computation; None where it failed for reasons of its own."""
        try:
            outcome = flight.result(deadline.remaining_seconds)
        except TimeoutError:
            raise DeadlineExceeded("The deadline passed while another request computed the same photo.") from None
        finally:
            with self._lock:
                self.waiting -= 1
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    def _fly(self, key: Hashable, flight: _Flight, compute: Callable[[], bytes]) -> bytes:
        outcome: bytes | Problem | None = None
        try:
            outcome = compute()
        except Problem as problem:
            outcome = problem if problem.status < ClientClosedRequest.status else None
            raise
        finally:
            self._land(key, outcome)
            flight.set_result(outcome)
        return outcome

    def _land(self, key: Hashable, answer: bytes | Problem | None) -> None:
        """End a flight and keep its answer, if it fits, in one step, so that nobody computes it again between."""
        with self._lock:
            del self._flights[key]
            if not isinstance(answer, bytes) or len(answer) + ENTRY_BYTES > self._max_bytes:
                return
            self._kept[key] = answer
            self.bytes += len(answer) + ENTRY_BYTES
            while self.bytes > self._max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self.bytes -= len(oldest) + ENTRY_BYTES
