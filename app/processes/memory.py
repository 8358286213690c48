"""Words that processes share, a heap that stays small and returns its free pages when idle, and errors without frames.

The functions for the heap are glibc's; other C libraries have none, and need none.
"""

from __future__ import annotations

import ctypes
import mmap

# From glibc's malloc.h.
_M_ARENA_MAX = -8
_M_MMAP_THRESHOLD = -3
_M_TRIM_THRESHOLD = -1

# Longer than the usual pause between two photos of one client, so that only a service at rest pays for new pages.
IDLE_SECONDS = 2.0


def shared_words() -> memoryview:
    """Map a page of 64-bit words, all 0, which this process and its forks share; reads and writes are atomic."""
    return memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")


def words_of(file: int) -> memoryview:
    """Map a page of 64-bit words that is a file, so that it can be shared with a process that is no fork."""
    return memoryview(mmap.mmap(file, mmap.PAGESIZE)).cast("Q")


def limit_heaps() -> None:
    """Keep few heaps, and return large blocks when they are freed; to be called before threads are started.

    By default glibc keeps a heap for each thread, and large freed blocks in it: with mixed photos memory grew by a
    seventh within 1,500 requests (scripts/soak.py). Two heaps, and returning blocks from 1 MiB, stop that; up to
    4 MiB stay free in each for the next photo, which saves most of its page faults.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, 1024 * 1024)
        mallopt(_M_TRIM_THRESHOLD, 4 * 1024 * 1024)


class IdleHeap:
    """Return the free pages of this process's heap to the system, once, after a pause."""

    def __init__(self) -> None:
        self._malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._handled = 0
        self._rests_since = 0.0
        self.is_trimmed = False

    def look(self, handled: int, now: float) -> None:
        """Return the pages if `handled`, the number of requests so far, has not changed for `IDLE_SECONDS`."""
        if handled != self._handled:
            self._handled, self._rests_since, self.is_trimmed = handled, now, False
        elif not self.is_trimmed and now - self._rests_since >= IDLE_SECONDS:
            self.is_trimmed = True
            if self._malloc_trim is not None:
                self._malloc_trim(0)


def forget_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of an exception that was handled, and of those that it was raised from.

    Their frames hold the photo, and often the exception itself: only a garbage collection would free such a circle,
    and until then rejected photos would fill the memory.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__context__
