"""Wait for the result cache in tests."""

from __future__ import annotations

import threading

from app.queueing.cache import ResultCache

PATIENCE_SECONDS = 20


def wait_until_waiting(cache: ResultCache, count: int) -> None:
    """Wait, by the count itself, until `count` requests wait for another's computation."""
    pause = threading.Event()
    for _ in range(PATIENCE_SECONDS * 1000):
        if cache.waiting == count:
            return
        pause.wait(0.001)
    raise AssertionError(f"{cache.waiting} wait, not {count}")
