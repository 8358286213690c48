"""`Readiness`: which workers have a model, what each has in flight, and whether the service is draining."""

from __future__ import annotations

import threading

from .memory import shared_words


class Readiness:
    """Counters that the master and all workers share across the fork, one pair for each worker's slot.

    Each counter is an aligned word, so that no process reads one half written.
    """

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.slot = 0
        self._words = shared_words()
        self._slots = (len(self._words) - 1) // 2
        self._lock = threading.Lock()

    def mark(self, slot: int, warm: bool) -> None:
        """Record whether the worker in this slot has answered the known photo."""
        self._words[1 + slot] = int(warm)

    def forget(self, slot: int) -> None:
        """Reset the counters of a slot whose worker has left."""
        self._words[1 + slot] = self._words[1 + self._slots + slot] = 0

    def count(self, change: int) -> None:
        """Add to the number of requests that this process has in flight."""
        with self._lock:
            self._words[1 + self._slots + self.slot] += change

    @property
    def warm_workers(self) -> int:
        """Count the warm workers."""
        return sum(self._words[1 : 1 + self._slots])

    @property
    def in_flight(self) -> int:
        """Count the requests in flight in all workers, without probes."""
        return sum(self._words[1 + self._slots :])

    def in_flight_elsewhere(self) -> int:
        """Count the requests in flight in the other workers; fast, since it is called for every photo."""
        first = 1 + self._slots
        return sum(self._words[first : first + self.planned]) - self._words[first + self.slot]

    @property
    def is_draining(self) -> bool:
        """Return whether the service is draining: it answers requests, but says that it is not ready."""
        return bool(self._words[0])

    @is_draining.setter
    def is_draining(self, draining: bool) -> None:
        self._words[0] = int(draining)
