"""`Supervisor`: the decoders of a worker, their number kept, each lent to one thread at a time.

Its thread receives an event for each decoder that ends, and asks the fork server for another at once.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections import deque
from contextlib import ExitStack, closing, suppress

from ..errors import Overloaded
from ..processes import sandbox
from ..processes.channel import Channel, Disconnected, shared_block
from ..processes.forkserver import Event, ForkServer
from .decoder_process import LOOK_SECONDS, DecoderProcess, Waiter
from .protocol import HELLO, OUTPUT_BYTES

log = logging.getLogger(__name__)

# Photos that go on at the lowest priority, each in a decoder beyond the planned ones.
MAX_ASIDE = 4
# How long a new decoder may take to say hello.
MAX_HELLO_SECONDS = 10.0
# How long the fork server may take to do what it was asked for; the first time it has to start, which takes a job of
# low priority 50 s beside 17 processes that compute, and would never end if it were started again each time.
MAX_SILENT_SECONDS = 5.0
MAX_START_SECONDS = 60.0
# How long a photo waits for a decoder while none can be started.
MAX_WAIT_SECONDS = 10.0
_RETRY_SECONDS = 1.0


class Supervisor:
    """`count` decoders, each with room for a photo of `max_bytes`; usable from many threads until `close`.

    The fork server imports `extra_modules` before it forks. `measures` is what the newest decoder's sandbox enforces.
    """

    def __init__(self, count: int, max_bytes: int, extra_modules: tuple[str, ...] = ()) -> None:
        self.measures = sandbox.Measures(0)
        self._count = count
        self._max_bytes = max_bytes
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

    def begin(self) -> None:
        """Begin to start the decoders, without waiting for one; raises Overloaded."""
        with self._changed:
            if self._thread is None and not self._is_closed:
                self._thread = self._start_thread()

    @property
    def pids(self) -> list[int]:
        """Return the process ids of the decoders that are alive."""
        with self._changed:
            return list(self._alive)

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

    def check_out(self, waiter: Waiter | None) -> DecoderProcess:
        """Take an idle decoder, or wait for one; raises Overloaded if none can be started, and what the waiter raises.

        A start that is only slow is waited for: a job on a busy machine has no deadline.
        """
        give_up = time.monotonic() + MAX_WAIT_SECONDS
        self.begin()
        with self._changed:
            while (decoder := self._next_idle()) is None:
                if self._is_closed or (self._failure and time.monotonic() > give_up):
                    raise Overloaded("No process for decoding photos can be started.")
                if waiter is not None:
                    waiter.check()
                self._changed.wait(LOOK_SECONDS)
            return decoder

    def _next_idle(self) -> DecoderProcess | None:
        """Take an idle decoder that is alive; one that was just killed may still be in the list."""
        while self._idle:
            decoder = self._idle.pop()
            if decoder.channel.is_quiet():
                return decoder
            self.end(decoder)
        return None

    def _start_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._supervise, name="decoders", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system allows no more threads now; it may when the next photo comes
            self._note_failure(_not_started(error))
            raise Overloaded("No process for decoding photos can be started.") from error
        return thread

    def check_in(self, decoder: DecoderProcess, used_bytes: int = 0, *, has_grown: bool = False) -> None:
        """Give a decoder back; one that has grown, or that runs at a lower priority, is replaced."""
        if decoder.is_apart or has_grown or not decoder.channel.tidy(used_bytes):
            self.end(decoder)
            return
        with self._changed:
            if self._alive.get(decoder.pid) is decoder:
                self._idle.append(decoder)
                self._changed.notify()
            else:
                decoder.channel.close()

    def end(self, decoder: DecoderProcess) -> None:
        """End a decoder that no thread uses any more; the supervisor replaces it."""
        with self._changed:
            if self._server is not None and self._alive.get(decoder.pid) is decoder:
                self._server.kill(decoder.pid)
                self._owed.setdefault(decoder.pid, time.monotonic())
        decoder.channel.close()

    def set_apart(self, decoder: DecoderProcess) -> None:
        """Put another decoder in the place of one that is to run at a lower priority."""
        with self._changed:
            decoder.is_apart = True
            self._fill()

    def step_aside(self, decoder: DecoderProcess) -> None:
        """Put another decoder in the place of one that goes on at the lowest priority; raises Overloaded."""
        with self._changed:
            if sum(other.is_aside for other in self._alive.values()) >= MAX_ASIDE:
                raise Overloaded("Too many photos take longer to decode than their headers promised.")
            decoder.is_apart = decoder.is_aside = True
            self._fill()

    def _supervise(self) -> None:
        """Keep the decoders alive; runs in a thread of its own."""
        while not self._is_closed:
            try:
                server = ForkServer("app.photos.decoder", self._max_bytes, extra_modules=self._extra_modules)
            except OSError as error:
                self._forget_all(_not_started(error))
                continue
            with self._changed:
                self._server = server
            heard = -math.inf
            with suppress(Disconnected):
                while not self._is_closed and not self._is_silent(heard):
                    with self._changed:
                        self._fill()
                    with suppress(TimeoutError):
                        self._note(server, *server.events(_RETRY_SECONDS))
                        heard = time.monotonic()
            server.close()
            self._forget_all("The process that starts the decoders has ended or hung; it is started again.")

    def _is_silent(self, heard: float) -> bool:
        """Return whether the fork server has long failed to do something that it was asked for, as if it hung.

        `heard` is when it last did something; it does one thing after another, and the first waits for its start.
        """
        with self._changed:
            oldest = min(self._owed.values(), default=math.inf)
        limit = MAX_START_SECONDS if heard == -math.inf else MAX_SILENT_SECONDS
        return time.monotonic() - max(oldest, heard) > limit

    def _fill(self) -> None:
        """Ask for as many decoders as are missing; called with the lock."""
        if self._server is None or self._is_closed or time.monotonic() < self._retry_at:
            return
        in_use = sum(not decoder.is_apart for decoder in self._alive.values())
        try:
            for _ in range(self._count - in_use - len(self._asked)):
                self._ask(self._server)
        except OSError as error:
            self._give_up_for_now(_not_started(error))

    def _ask(self, server: ForkServer) -> None:
        with ExitStack() as kept, ExitStack() as sent:
            block = shared_block(self._max_bytes + OUTPUT_BYTES)
            sent.callback(os.close, block)
            ours, theirs = socket.socketpair()
            sent.enter_context(theirs)
            kept.enter_context(ours)
            channel = kept.enter_context(closing(Channel(ours, block, self._max_bytes)))
            server.fork(theirs, block)
            kept.pop_all()
        self._asked.append(channel)
        self._owed[channel] = time.monotonic()

    def _note(self, server: ForkServer, event: Event, first: int, second: int) -> None:
        """Handle an event of the fork server."""
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
        """Log a sentence about the decoders, once until one is started; those that `close` ends have not failed."""
        if failure != self._failure and not self._is_closed:
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
