"""`Readiness`: which workers have a model, what each holds and has in flight, and whether the service is draining."""

from __future__ import annotations

import threading

from .memory import shared_words


class Readiness:
    """Counters that the master and all workers share across the fork, three for each worker's slot.

    Each counter is an aligned word, so that no process reads one half written.
    """

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.slot = 0
        self._words = shared_words()
        slots = (len(self._words) - 1) // 3
        self._warm, self._in_flight, self._connections = (1 + slots * kind for kind in range(3))
        self._lock = threading.Lock()

    def mark(self, slot: int, warm: bool) -> None:
        """Record whether the worker in this slot has answered the known photo."""
        self._words[self._warm + slot] = int(warm)

    def forget(self, slot: int) -> None:
        """Reset the counters of a slot whose worker has left."""
        for first in (self._warm, self._in_flight, self._connections):
            self._words[first + slot] = 0

    def count(self, change: int) -> None:
        """Add to the number of requests that this process has in flight."""
        with self._lock:
            self._words[self._in_flight + self.slot] += change

    def hold(self, connections: int) -> None:
        """Record how many connections this process holds."""
        self._words[self._connections + self.slot] = connections

    def holds_more(self) -> bool:
        """Return whether this process holds more connections than another one that is warm."""
        own = self._words[self._connections + self.slot]
        others = (slot for slot in range(self.planned) if self._words[self._warm + slot])
        return any(self._words[self._connections + slot] < own for slot in others)

    @property
    def warm_workers(self) -> int:
        """Count the warm workers."""
        return sum(self._words[self._warm : self._in_flight])

    @property
    def in_flight(self) -> int:
        """Count the requests in flight in all workers, without probes."""
        return sum(self._words[self._in_flight : self._connections])

    def in_flight_elsewhere(self) -> int:
        """Count the requests in flight in the other workers; fast, since it is called for every photo."""
        first = self._in_flight
        return sum(self._words[first : first + self.planned]) - self._words[first + self.slot]

    @property
    def is_draining(self) -> bool:
        """Return whether the service is draining: it answers requests, but says that it is not ready."""
        return bool(self._words[0])

    @is_draining.setter
    def is_draining(self, draining: bool) -> None:
        self._words[0] = int(draining)
