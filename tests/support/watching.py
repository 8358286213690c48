"""Deadlines that tell a test when a wait begins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from app.queueing.cache import ResultCache, Source
from app.queueing.scheduling import NO_DEADLINE, Deadline

PATIENCE_SECONDS = 20


@dataclass(frozen=True)
class WatchedDeadline(Deadline):
    """A deadline whose remaining time is asked for when a wait begins, each of which releases `begun` once."""

    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def remaining_seconds(self) -> float | None:
        """Return the remaining time, and note that it was asked for."""
        self.begun.release()
        return super().remaining_seconds

    def wait_for_waits(self, count: int = 1) -> None:
        """Wait until that many waits have begun."""
        for _ in range(count):
            assert self.begun.acquire(timeout=PATIENCE_SECONDS)


class WatchedCache(ResultCache):
    """A result cache that records when a request waits for another one's computation."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self.watch = WatchedDeadline()

    def get_or_compute(
        self, key: Hashable, compute: Callable[[], bytes], deadline: Deadline = NO_DEADLINE
    ) -> tuple[bytes, Source]:
        """Do what the cache does, with a deadline that is watched."""
        watched = WatchedDeadline(deadline.expires, deadline.is_abandoned, self.watch.begun)
        return super().get_or_compute(key, compute, watched)
