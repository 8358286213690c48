"""The processor time of another process, and whether it waits for a processor."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Less processor time than this between two calls is no progress.
_MIN_USED_SECONDS = 1e-6
# A process whose threads are hidden may be waiting for a processor, so only a longer standstill counts.
HIDDEN_FACTOR = 5.0
PROC = Path("/proc")
# The weight of a niceness that is higher by 10 is a ninth: 110 instead of 1024.
_LESS_NICE = 10


class Usage:
    """The use of one process; on a system without its clock it is 0, and the process never stalls."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._clock = _processor_clock(pid)

    def seconds(self) -> float:
        """Return the processor time of all its threads; 0 if it has ended."""
        if self._clock is None:
            return 0.0
        try:
            return time.clock_gettime(self._clock)
        except OSError:
            return 0.0

    def threads(self) -> int:
        """Return the number of its threads; 0 if they are hidden, or it has ended."""
        return len(_threads(self.pid))

    def is_waiting(self) -> bool | None:
        """Return whether all its threads sleep, that is, neither run nor wait for a processor; None if that is hidden.

        A /proc that is mounted with `hidepid` hides a process that leaves no core, even from its own user.
        """
        if self._clock is None:
            return False
        states = list(_thread_states(self.pid))
        return "R" not in states and "D" not in states if states else None


class Progress:
    """Notice when a process stands still: it has neither run nor waited for a processor for some time."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._start = self._seconds = usage.seconds()
        self._since = time.monotonic()

    def used_seconds(self) -> float:
        """Return the processor time used since this was made."""
        return max(0.0, self._usage.seconds() - self._start)

    def stalled_seconds(self) -> float:
        """Return for how long it has stood still; only calls of this method notice progress."""
        now, seconds = time.monotonic(), self._usage.seconds()
        is_waiting = self._usage.is_waiting()
        if seconds - self._seconds > _MIN_USED_SECONDS or is_waiting is False:
            self._seconds, self._since = seconds, now
        return (now - self._since) / (1.0 if is_waiting else HIDDEN_FACTOR)


def run_with_less_priority(pid: int) -> None:
    """Give a process a ninth of the processor time that this one gets where both wait for a processor (sched(7))."""
    for thread in _threads(pid):
        with suppress(OSError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, 0) + _LESS_NICE)


def run_when_idle(pid: int) -> None:
    """Give a process the lowest priority, at which others always run first; only privileged code can undo this."""
    if not hasattr(os, "sched_setscheduler"):
        return
    for thread in _threads(pid):
        with suppress(OSError):  # it has ended
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _processor_clock(pid: int) -> int | None:
    """Return the process's clock of processor time (clock_getcpuclockid(3)), or None if there is none."""
    get = getattr(ctypes.CDLL(None), "clock_getcpuclockid", None)
    clock = ctypes.c_int()
    return clock.value if get is not None and get(pid, ctypes.byref(clock)) == 0 else None


def _threads(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir(PROC / f"{pid}/task")]
    return []


def _thread_states(pid: int) -> Iterator[str]:
    """Yield the state of each thread, a letter of proc_pid_stat(5)."""
    for thread in _threads(pid):
        with suppress(OSError):
            yield (PROC / f"{pid}/task/{thread}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
