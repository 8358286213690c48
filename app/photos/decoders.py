"""`Decoders`: photos are decoded in processes of their own, which can be killed at any time.

Each decoder is a child of the fork server (`processes.forkserver`) and shares one block of memory with this process
(`processes.channel`). A thread that has a photo takes an idle decoder, writes the photo into its block and waits for
the reply; every 50 ms it checks whether there is still a reason to wait (`decoder_process`). One thread, the
supervisor, keeps the number of decoders: it is told of each one that ends, and asks for another at once.

A decoder ends when a photo has taken its processor time (the kernel sees to that), when the request's deadline has
passed or the client has disconnected, when it neither computes nor waits for a processor for a second, and after a
photo that made it grow or that went on at the lowest priority.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import BrokenImage, Overloaded, Problem, TooCostly
from ..processes import sandbox
from ..processes.channel import Channel, Disconnected, shared_block
from ..processes.forkserver import Event, ForkServer
from .decoder_process import MEBI, DecoderProcess, Waiter
from .formats import KEYS
from .guards import Estimate
from .protocol import HELLO, OUTPUT_BYTES, PROBLEMS, THUMBNAIL_START, Allowance, Reply, Request, Status, Wanted

log = logging.getLogger(__name__)

MAX_SECONDS = 2.0
# What most photos need: a JPEG of 12 megapixels is decoded at a quarter of its size, within both.
FAST = Allowance(memory_bytes=32 * MEBI, seconds=0.05)
# Photos that go on at the lowest priority, each in a decoder beyond the planned ones.
MAX_ASIDE = 4
# How long a new decoder may take to say hello.
MAX_HELLO_SECONDS = 10.0
# How long the fork server may take to do what it was asked for.
MAX_SILENT_SECONDS = 5.0
# How long a photo waits for a decoder.
MAX_WAIT_SECONDS = 10.0
_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Decoded:
    """A photo as the model sees it: `crop` is uint8 RGB of shape (side, side, 3), `thumbnail` (height, width, 3).

    `width` and `height` are those of the upright original, `format` one of `formats.KEYS`.
    """

    width: int
    height: int
    format: str
    crop: npt.NDArray[np.uint8]
    thumbnail: npt.NDArray[np.uint8] | None


class Decoders:
    """`count` decoders, started with the first photo; usable from many threads until `close`.

    A photo may have up to `max_bytes`, take `memory_bytes` while it is decoded, and `max_seconds` of processor time.
    The fork server imports `extra_modules` before it forks.
    """

    def __init__(
        self,
        count: int,
        *,
        max_bytes: int,
        memory_bytes: int,
        max_seconds: float = MAX_SECONDS,
        extra_modules: tuple[str, ...] = (),
    ) -> None:
        self.count = count
        self.max_bytes = max_bytes
        self.memory_bytes = memory_bytes
        self.max_seconds = max_seconds
        self.measures = sandbox.Measures(0)
        self._extra_modules = extra_modules
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._server: ForkServer | None = None
        self._is_closed = False
        self._retry_at = 0.0
        self._failure = ""
        self._asked: deque[Channel] = deque()
        # Since when the fork server has been asked for a decoder, or for the end of one.
        self._owed: dict[Channel | int, float] = {}
        self._alive: dict[int, DecoderProcess] = {}
        self._idle: list[DecoderProcess] = []

    @property
    def pids(self) -> list[int]:
        """Return the process ids of the decoders that are alive."""
        with self._changed:
            return list(self._alive)

    def begin(self) -> None:
        """Begin to start the decoders, without waiting for one; raises Overloaded."""
        with self._changed:
            if self._thread is None and not self._is_closed:
                self._thread = self._start_thread()

    def start(self) -> sandbox.Measures:
        """Start the decoders, wait for one, and return what its sandbox enforces; raises Overloaded."""
        self._check_in(self._check_out(None))
        return self.measures

    def log_measures(self) -> None:
        """Log what the sandbox enforces, as a warning where that is not all."""
        level = logging.INFO if self.measures == sandbox.ALL_MEASURES else logging.WARNING
        log.log(level, "Sandbox of the processes that decode photos: %s.", sandbox.describe(self.measures))

    def decode(self, photo: bytes, wanted: Wanted, waiter: Waiter | None = None) -> Decoded:
        """Decode a photo with all the memory and time that a photo may take; raises what `attempt` raises."""
        found = self.attempt(photo, wanted, Allowance(self.memory_bytes, self.max_seconds), waiter)
        if isinstance(found, Estimate):
            raise self.too_costly(found)
        return found

    def attempt(
        self,
        photo: bytes,
        wanted: Wanted,
        allowance: Allowance = FAST,
        waiter: Waiter | None = None,
        *,
        step_aside: Callable[[], None] | None = None,
    ) -> Decoded | Estimate:
        """Decode a photo if its header promises no more than the allowance, else return the estimate.

        A photo that takes much longer than promised goes on at the lowest priority, after `step_aside` was called.
        Raises UnsupportedImage, BrokenImage, TooManyPixels or TooCostly for the photo, Overloaded where no decoder
        can be started or too many photos go on at the lowest priority, and what the waiter raises.
        """
        if len(photo) > self.max_bytes:
            raise TooCostly(f"The file has more than {self.max_bytes:,} bytes.")
        request = Request(len(photo), wanted, allowance, self.max_seconds)
        tries = 0
        while True:
            tries += 1
            decoder = self._check_out(waiter)
            try:
                return self._run(decoder, photo, request, waiter, step_aside)
            except Disconnected:
                if tries >= decoder.max_tries(self.count):
                    raise decoder.problem_of_end(self.max_seconds) from None

    def too_costly(self, estimate: Estimate) -> TooCostly:
        """Build the refusal that names the limit of one photo which an estimate is over."""
        needed, allowed = estimate.memory_bytes / MEBI, self.memory_bytes / MEBI
        if needed > allowed:
            return TooCostly(f"Decoding takes about {needed:,.0f} MiB of memory; {allowed:,.0f} MiB are allowed.")
        return TooCostly(
            f"Decoding takes about {estimate.seconds:.1f} s of processor time; {self.max_seconds:g} s are allowed."
        )

    def close(self) -> None:
        """End all decoders."""
        with self._changed:
            self._is_closed = True
            server, thread = self._server, self._thread
            self._changed.notify_all()
        if server is not None:
            server.close()
        if thread is not None:
            thread.join()

    def _run(
        self,
        decoder: DecoderProcess,
        photo: bytes,
        request: Request,
        waiter: Waiter | None,
        step_aside: Callable[[], None] | None,
    ) -> Decoded | Estimate:
        is_fit = False
        try:
            reply = decoder.run(photo, request, waiter, lambda: self._step_aside(decoder, step_aside))
            found = _result(decoder.channel, reply, request.wanted)
            is_fit = True
        except ValueError as error:
            raise BrokenImage("The file is damaged in a way that confuses its decoder.") from error
        finally:
            if is_fit:
                self._check_in(decoder, len(photo), has_grown=decoder.has_grown(reply))
            else:
                self._end(decoder)
        if isinstance(found, Problem):
            raise found
        return found

    def _check_out(self, waiter: Waiter | None) -> DecoderProcess:
        """Take an idle decoder; waits for one that is being started."""
        give_up = time.monotonic() + MAX_WAIT_SECONDS
        self.begin()
        with self._changed:
            while (decoder := self._next_idle()) is None:
                left = give_up - time.monotonic()
                if self._is_closed or left <= 0:
                    raise Overloaded("No process for decoding photos can be started.")
                if waiter is not None:
                    waiter.check()
                    remaining = waiter.remaining_seconds
                    left = left if remaining is None else min(left, remaining)
                self._changed.wait(left)
            return decoder

    def _next_idle(self) -> DecoderProcess | None:
        """Take an idle decoder that is alive; one that was killed a moment ago may not be buried yet."""
        while self._idle:
            decoder = self._idle.pop()
            if decoder.channel.is_quiet():
                return decoder
            self._end(decoder)
        return None

    def _start_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._supervise, name="decoders", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system allows no more threads now; it may when the next photo comes
            self._note_failure(_not_started(error))
            raise Overloaded("No process for decoding photos can be started.") from error
        return thread

    def _check_in(self, decoder: DecoderProcess, used_bytes: int = 0, *, has_grown: bool = False) -> None:
        """Give a decoder back; one that has grown, or that runs at the lowest priority, is replaced."""
        if decoder.is_aside or has_grown:
            self._end(decoder)
            return
        decoder.channel.tidy(used_bytes)
        with self._changed:
            if self._alive.get(decoder.pid) is decoder:
                self._idle.append(decoder)
                self._changed.notify()
            else:
                decoder.channel.close()

    def _end(self, decoder: DecoderProcess) -> None:
        """End a decoder that no thread uses any more; the supervisor replaces it."""
        with self._changed:
            if self._server is not None and self._alive.get(decoder.pid) is decoder:
                self._server.kill(decoder.pid)
                self._owed.setdefault(decoder.pid, time.monotonic())
        decoder.channel.close()

    def _step_aside(self, decoder: DecoderProcess, step_aside: Callable[[], None] | None) -> None:
        """Put another decoder in the place of one that goes on at the lowest priority; raises Overloaded."""
        with self._changed:
            if sum(other.is_aside for other in self._alive.values()) >= MAX_ASIDE:
                raise Overloaded("Too many photos take longer to decode than their headers promised.")
            decoder.is_aside = True
            self._fill()
        if step_aside is not None:
            step_aside()

    def _supervise(self) -> None:
        """Keep the decoders alive; runs in a thread of its own."""
        while not self._is_closed:
            try:
                server = ForkServer("app.photos.decoder", self.max_bytes, extra_modules=self._extra_modules)
            except OSError as error:
                self._forget_all(_not_started(error))
                continue
            with self._changed:
                self._server = server
            with suppress(Disconnected):
                while not self._is_closed and not self._is_silent():
                    with self._changed:
                        self._fill()
                    with suppress(TimeoutError):
                        self._note(server, *server.events(_RETRY_SECONDS))
            server.close()
            self._forget_all("The process that starts the decoders has ended or hung; it is started again.")

    def _is_silent(self) -> bool:
        """Return whether the fork server has long been asked for something that it has not done, as if it hung."""
        with self._changed:
            oldest = min(self._owed.values(), default=math.inf)
        return time.monotonic() - oldest > MAX_SILENT_SECONDS

    def _fill(self) -> None:
        """Ask for as many decoders as are missing; called with the lock."""
        if self._server is None or self._is_closed or time.monotonic() < self._retry_at:
            return
        in_use = sum(not decoder.is_aside for decoder in self._alive.values())
        try:
            for _ in range(self.count - in_use - len(self._asked)):
                self._ask(self._server)
        except OSError as error:
            self._give_up_for_now(_not_started(error))

    def _ask(self, server: ForkServer) -> None:
        ours, theirs = socket.socketpair()
        block = shared_block(self.max_bytes + OUTPUT_BYTES)
        try:
            channel = Channel(ours, block, self.max_bytes)
            with theirs:
                server.fork(theirs, block)
        except OSError:
            ours.close()
            raise
        finally:
            os.close(block)
        self._asked.append(channel)
        self._owed[channel] = time.monotonic()

    def _note(self, server: ForkServer, event: Event, first: int, second: int) -> None:
        """Take note of what the fork server reports."""
        if event is Event.EXITED:
            self._bury(first, second)
            return
        with self._changed:
            channel = self._asked.popleft()
            self._owed.pop(channel)
        if event is Event.FAILED:
            channel.close()
            self._give_up_for_now(_not_started(OSError(first, os.strerror(first))))
            return
        channel.socket.settimeout(MAX_HELLO_SECONDS)
        try:
            enforced, data_bytes, mapped_bytes = channel.receive(HELLO)
        except (Disconnected, TimeoutError) as error:
            server.kill(first)
            channel.close()
            self._give_up_for_now(_not_started(error))
            return
        self.measures = sandbox.Measures(enforced)
        decoder = DecoderProcess(first, channel, data_bytes, mapped_bytes)
        with self._changed:
            self._failure = ""
            self._alive[first] = decoder
            self._idle.append(decoder)
            self._changed.notify()

    def _bury(self, pid: int, status: int) -> None:
        with self._changed:
            self._owed.pop(pid, None)
            decoder = self._alive.pop(pid, None)
            if decoder is None:
                return
            decoder.status = status
            decoder.ended.set()
            if decoder in self._idle:
                self._idle.remove(decoder)
                decoder.channel.close()

    def _give_up_for_now(self, failure: str) -> None:
        self._note_failure(failure)
        self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _note_failure(self, failure: str) -> None:
        """Log a sentence about the decoders, once until one is started."""
        if failure != self._failure:
            log.error("%s", failure)
        self._failure = failure

    def _forget_all(self, failure: str) -> None:
        """Log why there is no fork server, forget its decoders, which have ended with it, and pause."""
        with self._changed:
            self._server = None
            for channel in self._asked:
                channel.close()
            self._asked.clear()
            self._owed.clear()
            for pid in list(self._alive):
                self._bury(pid, self._alive[pid].status)
            if not self._is_closed:
                self._give_up_for_now(failure)
                self._changed.wait(_RETRY_SECONDS)


def _not_started(error: OSError | RuntimeError) -> str:
    reason = (error.strerror if isinstance(error, OSError) else "") or str(error) or "it ended at once"
    return f"A process for decoding photos could not be started: {reason}."


def _result(channel: Channel, reply: Reply, wanted: Wanted) -> Decoded | Estimate | Problem:
    """Copy what a decoder has written; its sizes follow from the request or are bounded."""
    if reply.status == Status.PROBLEM:
        detail = channel.output(THUMBNAIL_START, reply.detail_bytes).decode("utf-8", "replace")
        return PROBLEMS[reply.problem](detail)
    kind = KEYS[reply.kind]
    if reply.status == Status.NEEDS_MORE:
        return Estimate(kind, reply.width, reply.height, reply.memory_bytes, reply.seconds)
    side = wanted.geometry.crop
    crop = np.frombuffer(channel.output(0, side * side * 3), np.uint8).reshape(side, side, 3)
    thumbnail = None
    if wanted.thumbnail_side:
        shape = reply.thumbnail_height, reply.thumbnail_width, 3
        if not 1 <= min(shape[:2]) <= max(shape[:2]) <= wanted.thumbnail_side:
            raise ValueError("The decoder's answer makes no sense.")
        thumbnail = np.frombuffer(channel.output(THUMBNAIL_START, shape[0] * shape[1] * 3), np.uint8).reshape(shape)
    return Decoded(reply.width, reply.height, kind, crop, thumbnail)
