"""Who is let in: before a body is parsed, what is too much is refused, and told when to come again."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from ..errors import Overloaded
from ..telemetry import metrics
from .scheduling import moving_mean

# The longest that a refused client is told to stay away, however slow the drain.
LONGEST_RETRY_SECONDS = 60


class Admission:
    """How many requests and how many bytes of theirs may be in the house at once.

    Fewer are let in where `expected_seconds()`, the time that one more would take, is over `most_seconds`.
    """

    def __init__(
        self,
        most_requests: int,
        most_bytes: int,
        *,
        most_seconds: float = math.inf,
        expected_seconds: Callable[[], float] = float,
    ) -> None:
        self._most_requests = most_requests
        self._most_bytes = most_bytes
        self._most_seconds = most_seconds
        self._expected_seconds = expected_seconds
        self._lock = threading.Lock()
        self._last_left = time.monotonic()
        self._seconds_between = 0.0
        self.requests = 0
        self.bytes = 0

    def enter(self, size: int) -> Callable[[], None]:
        """Admit a request whose body has up to `size` bytes; raises Overloaded at once when there is no room.

        Returns what the request calls, once, when it leaves.
        """
        with self._lock:
            if full := self.refusal_if_full():
                raise full
            if self.bytes + size > self._most_bytes:
                raise self._refusal(f"{self.bytes:,} bytes of photos are waiting already.")
            if not self.requests:
                self._last_left = time.monotonic()  # an idle time tells nothing of how fast work is done
            self.requests += 1
            self.bytes += size
        metrics.change_upload_bytes(size)
        return lambda: self._leave(size)

    def enlarge(self, size: int) -> Callable[[], None]:
        """Admit so many bytes more of a request that is in; raises Overloaded where there is no room for them.

        Returns what the request calls, once, when it leaves.
        """
        with self._lock:
            if self.bytes + size > self._most_bytes:
                raise self._refusal(f"{self.bytes:,} bytes of photos are waiting already.")
            self.bytes += size
        metrics.change_upload_bytes(size)
        return lambda: self._release(size)

    def _release(self, size: int) -> None:
        metrics.change_upload_bytes(-size)
        with self._lock:
            self.bytes -= size

    def refusal_if_full(self) -> Overloaded | None:
        """Return what one request more is told, None while there is room for it."""
        if self.requests < self._most_requests and self._expected_seconds() <= self._most_seconds:
            return None
        return self._refusal(f"{self.requests} requests are waiting already.")

    def _leave(self, size: int) -> None:
        self._release(size)
        with self._lock:
            self.requests -= 1
            now = time.monotonic()
            between, self._last_left = now - self._last_left, now
            self._seconds_between = moving_mean(self._seconds_between, between)

    def _refusal(self, detail: str) -> Overloaded:
        """Tell how long the present requests take to leave, by the measured time between two departures."""
        seconds = min(LONGEST_RETRY_SECONDS, max(1, math.ceil(self.requests * self._seconds_between)))
        return Overloaded(f"{detail} Try again in {seconds} s.", seconds)
