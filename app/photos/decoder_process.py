"""`DecoderProcess`: one decoder as its worker sees it, and how long the worker waits for it."""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from ..errors import BrokenImage, Problem, TooCostly
from ..processes.channel import Channel
from ..processes.usage import Progress, Usage, run_when_idle
from ..settings import MEBI
from .protocol import REPLY, Reply, Request

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
MAX_STALLED_SECONDS = 1.0
# A photo steps aside when it has taken this much more processor time than promised, or has stood still this long.
MAX_OVERTIME_SECONDS = 0.25
# The kernel ends a photo that is over its processor time; the worker ends it this much later, if the photo has
# switched the kernel's limit off.
_KERNEL_DELAY_SECONDS = 0.1
# libde265 starts a thread for each tile of a HEIC, one after the other. The filter of system calls cannot count them.
MAX_THREADS = 64
# A decoder that occupies more between photos is replaced.
MAX_RESIDENT_BYTES = 96 * MEBI
# The memory of the interpreter while it decodes, beyond the file and the pixels.
_SLACK_BYTES = 24 * MEBI
# Of the slack, what earlier photos may have left behind. A thread's stack of 8 MiB and the heap's free blocks came to
# 15 MiB.
MAX_KEPT_BYTES = 20 * MEBI
# Mapped memory that is not data: the heaps of threads reserve more than they use.
_RESERVED_BYTES = 256 * MEBI
# How long the fork server may take to report how a decoder ended.
_MAX_STATUS_SECONDS = 1.0
# A decoder that an earlier photo has damaged crashes this soon after the next one begins.
_MAX_EARLY_SECONDS = 0.5


class Waiter(Protocol):
    """How long a caller waits, such as a deadline."""

    def check(self) -> None:
        """Raise if the answer is no longer of use."""


class DecoderProcess:
    """A living decoder; used by one thread at a time."""

    def __init__(self, pid: int, channel: Channel, data_bytes: int, mapped_bytes: int) -> None:
        self.pid = pid
        self.channel = channel
        self.is_apart = False  # whether it runs at a lower priority, beyond the planned number of decoders
        self.is_aside = False  # whether it runs at the lowest
        self.ended = threading.Event()
        self.status = signal.SIGKILL.value  # until the fork server says otherwise
        self._usage = Usage(pid)
        self._initial_bytes = {resource.RLIMIT_DATA: data_bytes, resource.RLIMIT_AS: mapped_bytes + _RESERVED_BYTES}
        self._hard_limits: dict[int, int] = {}
        self._allowed_bytes = 0
        self._can_be_limited = hasattr(resource, "prlimit")
        self._photos = 0
        self._begun = 0.0
        channel.socket.settimeout(LOOK_SECONDS)

    def run(self, photo: bytes, request: Request, waiter: Waiter | None, step_aside: Callable[[], None]) -> Reply:
        """Have a photo decoded and wait for the reply.

        Raises Disconnected if the decoder ends, ValueError for a reply that makes no sense, TooCostly for a photo
        that takes too much time or too many threads, and what the waiter and `step_aside` raise. After any of these
        the caller must end the decoder. `step_aside` is called when the photo takes much longer than promised or
        stands still; it must set `is_aside`, and so is called once.
        """
        self._limit_memory(request.allowance.memory_bytes + len(photo))
        self._photos += 1
        self._begun = time.monotonic()
        progress = Progress(self._usage)
        self.channel.put(photo)
        self.channel.send(request.pack())
        while True:
            with suppress(TimeoutError):
                return Reply.unpack(self.channel.receive(REPLY))
            self._look(request, progress, waiter, step_aside)

    def _look(
        self, request: Request, progress: Progress, waiter: Waiter | None, step_aside: Callable[[], None]
    ) -> None:
        if waiter is not None:
            waiter.check()
        used = progress.used_seconds()
        if used > request.max_seconds + _KERNEL_DELAY_SECONDS:
            raise took_too_long(request.max_seconds)
        if self._usage.threads() > MAX_THREADS:
            raise TooCostly("Decoding this photo takes too many threads.")
        stalled = progress.stalled_seconds()
        if stalled > MAX_STALLED_SECONDS:
            raise TooCostly("Decoding this photo came to a standstill.")
        is_late = used > request.allowance.seconds + MAX_OVERTIME_SECONDS or stalled > MAX_OVERTIME_SECONDS
        if is_late and not self.is_aside:
            step_aside()
            run_when_idle(self.pid)

    def _limit_memory(self, allowed_bytes: int) -> None:
        """Limit its data, and all that it maps: even pages that are only read need page tables, which no limit counts.

        If the whole service is under a lower limit, that one stays. Most photos have the limit of the one before them.
        """
        allowed_bytes = -(-allowed_bytes // MEBI) * MEBI
        if not self._can_be_limited or allowed_bytes == self._allowed_bytes:
            return
        try:
            for kind, initial_bytes in self._initial_bytes.items():
                if kind not in self._hard_limits:
                    self._hard_limits[kind] = resource.prlimit(self.pid, kind)[1]
                limit, hard = initial_bytes + allowed_bytes + _SLACK_BYTES, self._hard_limits[kind]
                resource.prlimit(self.pid, kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
            self._allowed_bytes = allowed_bytes
        except ProcessLookupError:  # it has ended, as the caller is about to see
            return
        except PermissionError as error:
            log.warning("The memory of a decoder cannot be limited: %s.", error.strerror)
            self._can_be_limited = False

    def has_grown(self, reply: Reply) -> bool:
        """Return whether photos have left so much memory behind that the decoder is to be replaced."""
        kept_bytes = reply.data_bytes - self._initial_bytes[resource.RLIMIT_DATA]
        return reply.resident_bytes > MAX_RESIDENT_BYTES or kept_bytes > MAX_KEPT_BYTES

    def max_tries(self, decoders: int) -> int:
        """Return how many decoders, in all, may try a photo during which this one has ended; waits for its status.

        A photo is tried again if something else may have ended the decoder: it was killed from outside, perhaps
        with all `decoders`, or it crashed so soon that an earlier photo may have damaged it.
        """
        is_early = time.monotonic() - self._begun < _MAX_EARLY_SECONDS
        self.ended.wait(_MAX_STATUS_SECONDS)
        found = self._signal()
        if found in (signal.SIGKILL, signal.SIGTERM):
            return 1 + decoders if is_early else 2
        return 2 if found != signal.SIGPROF and self._photos > 1 and is_early else 1

    def problem_of_end(self, max_seconds: float) -> Problem:
        """Build the problem of a photo whose decoder has ended."""
        self.ended.wait(_MAX_STATUS_SECONDS)
        found = self._signal()
        if found == signal.SIGPROF:
            return took_too_long(max_seconds)
        if found == signal.SIGKILL:
            log.warning("A decoder was killed while it decoded a photo, perhaps for lack of memory.")
            return TooCostly("The system ended the decoding of this photo, perhaps for lack of memory.")
        cause = f"signal {found}" if found else f"exit status {os.waitstatus_to_exitcode(self.status)}"
        log.warning("A decoder crashed while it decoded a photo: %s.", cause)
        return BrokenImage("The file is damaged in a way that crashes its decoder.")

    def _signal(self) -> int:
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else 0


def took_too_long(max_seconds: float) -> TooCostly:
    """Build the refusal of a photo that is over its processor time."""
    return TooCostly(f"Decoding this photo takes more than {max_seconds:g} s of processor time.")
