"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_WAIT_SECONDS = 60


def wait_until(holds: Callable[[], bool]) -> None:
    """Poll until a condition holds; raises AssertionError if it does not within `MAX_WAIT_SECONDS`."""
    end = time.monotonic() + MAX_WAIT_SECONDS
    while not holds():
        assert time.monotonic() < end, f"It did not hold within {MAX_WAIT_SECONDS} s."
        time.sleep(0.01)
