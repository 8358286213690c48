"""Who runs when.

Every inference of a process passes through one `Scheduler`, so that this file is the only place that decides
how many run at once. Today that is one: the engine itself uses all cores, and a second inference beside it
would only make both slower.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class Scheduler:
    """Run the work of many threads one at a time, in the order the lock grants."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def run(self, work: Callable[[], Result]) -> Result:
        """Run `work` when no other runs, and return or raise what it does."""
        with self._lock:
            return work()
