"""Admission: before its body is parsed, a request is rejected if too many others are in flight."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from ..errors import Overloaded
from ..telemetry import metrics
from .scheduling import moving_mean

# A rejected client is asked to wait at most this long, however slowly requests are answered.
MAX_RETRY_SECONDS = 60


class Admission:
    """Limits on the requests in flight: `max_requests` of them, with bodies of `max_bytes` together.

    A request is also rejected if `expected_seconds()`, the time that its answer would take, is over `max_seconds`.
    """

    def __init__(
        self,
        max_requests: int,
        max_bytes: int,
        *,
        max_seconds: float = math.inf,
        expected_seconds: Callable[[], float] = float,
    ) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._expected_seconds = expected_seconds
        self._lock = threading.Lock()
        self._last_left = time.monotonic()
        self._seconds_between = 0.0
        self.requests = 0
        self.bytes = 0

    def enter(self, size: int) -> Callable[[], None]:
        """Admit a request whose body has up to `size` bytes; raises Overloaded if a limit would be exceeded.

        Returns a function to call once, when the request has ended.
        """
        with self._lock:
            if full := self.refusal_if_full():
                raise full
            self._reserve(size)
            if not self.requests:
                self._last_left = time.monotonic()  # idle time is no time between two requests that ended
            self.requests += 1
        metrics.change_upload_bytes(size)
        return lambda: self._leave(size)

    def enlarge(self, size: int) -> Callable[[], None]:
        """Admit `size` more bytes of an admitted request; raises Overloaded if `max_bytes` would be exceeded.

        Returns a function to call once, when the request has ended.
        """
        with self._lock:
            self._reserve(size)
        metrics.change_upload_bytes(size)
        return lambda: self._release(size)

    def _reserve(self, size: int) -> None:
        """Count bytes as in flight; called with the lock."""
        if self.bytes + size > self._max_bytes:
            raise self._refusal(f"{self.bytes:,} bytes of photos are waiting already.")
        self.bytes += size

    def _release(self, size: int) -> None:
        metrics.change_upload_bytes(-size)
        with self._lock:
            self.bytes -= size

    def refusal_if_full(self) -> Overloaded | None:
        """Return the error for one more request, or None while it would be admitted."""
        if self.requests < self._max_requests and self._expected_seconds() <= self._max_seconds:
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
        """Build the error; it names the time until all present requests have ended, at the measured rate."""
        seconds = min(MAX_RETRY_SECONDS, max(1, math.ceil(self.requests * self._seconds_between)))
        return Overloaded(f"{detail} Try again in {seconds} s.", seconds)
