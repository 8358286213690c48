"""Cached responses, and one computation for all requests that ask for the same at once.

A response depends only on the photo's bytes, the model, the parameters and our own version. Its key holds these four,
so nothing ever expires; the least recently used response is dropped first. The limit is in bytes. If callers need API
keys, the caller's name is part of the key too: otherwise the time of an answer would show what others have sent.
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

# The result is the response, the problem of the photo, or None if the computation failed for another reason.
_Flight = Future[bytes | Problem | None]

# The memory of an entry besides its bytes: key, digest, links. Measured with tracemalloc, rounded up.
ENTRY_BYTES = 1024


class ResultCache:
    """A least-recently-used cache of at most `max_bytes`; with 0, concurrent requests still share a computation."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._flights: dict[Hashable, _Flight] = {}
        self.bytes = 0

    def get_or_compute(
        self, key: Hashable, compute: Callable[[], bytes], deadline: Deadline = NO_DEADLINE
    ) -> tuple[bytes, Source]:
        """Return the response, and whether it was cached ("hit"), computed for another request ("shared") or new.

        Raises what `compute` raises. A failure is never cached. Requests that wait for the same computation share its
        failure if it is the photo's fault; otherwise, after a missed deadline for example, each tries on its own.
        DeadlineExceeded is raised if the other request's computation takes longer than this caller's deadline.
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
            shared = self._share(flight, deadline)
            if shared is not None:
                metrics.count_cache("shared")
                return shared, "shared"
            deadline.check()
        metrics.count_cache("miss")
        return self._fly(key, flight, compute), "miss"

    def _share(self, flight: _Flight, deadline: Deadline) -> bytes | None:
        """Wait for another request's computation; return None if it failed, but not because of the photo."""
        try:
            outcome = flight.result(deadline.remaining_seconds)
        except TimeoutError:
            raise DeadlineExceeded("The deadline passed while another request computed the same photo.") from None
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
        """End a computation and cache its response, if it fits; in one step, so that no request computes it again."""
        with self._lock:
            del self._flights[key]
            if not isinstance(answer, bytes) or len(answer) + ENTRY_BYTES > self._max_bytes:
                return
            self._kept[key] = answer
            self.bytes += len(answer) + ENTRY_BYTES
            while self.bytes > self._max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self.bytes -= len(oldest) + ENTRY_BYTES
