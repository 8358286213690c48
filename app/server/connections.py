"""A worker's connections: what each waits for, for how long, how it ends, and which one ends if they hold too much.

waitress's channel reads and parses in the loop, has a thread answer from memory, and sends in the loop what the client
does not take at once; so no client holds a thread. This one adds limits:

    accept -> head -> body -> answer in a thread -> the client reads -> the next head, or the end

Each step has a deadline; steps in which bytes move go on while they move fast enough. At the end our side is closed,
and what the client still sends is read and dropped: unread bytes would turn the close into a reset, and the client
would lose its answer (RFC 9112, section 9.6).
"""

from __future__ import annotations

import math
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from gunicorn.config import Config
from waitress.channel import HTTPChannel

from ..errors import BadRequest, Overloaded, Problem, RequestTimeout
from ..processes.plan import make_plan
from ..settings import Settings
from ..web.addresses import counted_as
from ..web.gate import Gate
from ..web.uploads import FRAMING_BYTES
from .requests import MAX_SKIPPED_BYTES, Rejection, Request, Task

Wait = Literal["request", "head", "body", "answer", "reader", "end"]
_IDLE, _MOVING = ("request", "end"), ("head", "body", "reader")
_READ_BYTES = 256 * 1024
_SKIP_SECONDS = 5.0  # how long a client may pause in what is read and dropped
_IDLE_SECONDS = 1.0  # a connection that was accepted later is not idle yet
_STOP_SECONDS = 2.0  # how long a stopping worker keeps an idle connection: a request may be on its way


class Channel(HTTPChannel):
    """waitress's channel, with limits."""

    request: Any = None
    task_class = Task
    error_task_class = Rejection

    def __init__(self, connections: Connections, server: Any, sock: socket.socket, *args: Any, **options: Any) -> None:
        self.connections = connections
        self.file = sock.fileno()
        self.parser_class = partial(Request, self)
        self.rest = b""  # what came behind a request, until that has been answered
        self.skips = 0  # how many bytes to drop
        self.ends = False  # whether to end when the answer has been read
        self.has_left = False  # whether the client sends no more
        self.moved_bytes = self.held_bytes = 0
        self.wait, self.since, self.last_pace = "request", time.monotonic(), 0.0
        self.deadline = self.since + connections.settings.stall_seconds
        super().__init__(server, sock, *args, **options)
        self.client = counted_as(self.addr[0])
        connections.add(self)

    def handle_read(self) -> None:
        """Read; a client that closes its side before its request is complete gets a problem."""
        try:
            data = self.socket.recv(_READ_BYTES)
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                self.handle_close()
            return
        if data:
            self.received(data)
        elif self.requests or self.total_outbufs_len:  # the client may still read its answer
            self.has_left = True
        else:
            self.refuse(BadRequest("The request ended before it was complete."))

    def received(self, data: bytes) -> bool:
        """Drop the bytes of a body that is not taken, and parse the others, one request at a time."""
        self.moved_bytes += len(data)
        skipped = min(self.skips, len(data))
        self.skips -= skipped
        data = data[skipped:]
        if not self.ends and (self.requests or self.total_outbufs_len or self.rest):
            self.rest += data
        return not (self.ends or self.rest) and bool(super().received(data))

    def readable(self) -> bool:
        """Return whether the loop should read from the client."""
        return not (self.has_left or self.rest) and bool(super().readable() or self.ends)

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send what the client takes, and count it."""
        sent = int(super().send(data, do_close=do_close))
        self.moved_bytes += sent
        return sent

    def del_channel(self, map: Any = None) -> None:
        """Forget a connection that is being closed, and its request if that has not arrived whole."""
        super().del_channel(map)
        self.connections.channels.pop(self, None)
        self.connections.held_bytes -= self.held_bytes
        self.held_bytes = 0
        if self.request is not None:
            self.request.close()

    def look(self) -> None:
        """Send an answer that is ready, and update what the connection holds and waits for; called after any event."""
        if any(each.error for each in self.requests):
            self.service()
        taken = [each for each in (*self.requests, self.request) if each is not None and each.refusal is None]
        arrived = sum(each.header_bytes_received + each.body_bytes_received for each in taken)
        more = arrived + self.total_outbufs_len + len(self.rest) - self.held_bytes
        self.held_bytes += more
        self.connections.held_bytes += more
        wait = self._waits_for()
        if wait in ("request", "head", "body") and self.rest:
            data, self.rest = self.rest, b""
            self.received(data)
            self.connections.changed.append(self.file)
        elif wait == "end" and (self.has_left or (self.ends and not self.skips)):
            self.handle_close()
        elif wait != self.wait and self.connected:
            self._begin(wait)
        if more > 0:
            self.connections.limit_bytes()

    def _waits_for(self) -> Wait:
        if self.requests:
            return "answer"
        if self.total_outbufs_len:
            return "reader"
        if self.ends or self.skips or self.has_left:
            return "end"
        if self.request is None:
            return "request"
        return "body" if self.request.headers_finished else "head"

    def _begin(self, wait: Wait) -> None:
        self.wait = wait
        self.connections.channels[self] = self.connections.channels.pop(self)  # in the order of beginning
        self._begin_window(time.monotonic())
        if wait == "end" and self.ends:
            with suppress(OSError):  # a client that has left shows when its side is read
                self.socket.shutdown(socket.SHUT_WR)

    def _begin_window(self, now: float) -> None:
        keepalive, stall = self.connections.cfg.keepalive, self.connections.settings.stall_seconds
        seconds = {"request": keepalive, "answer": math.inf, "end": _SKIP_SECONDS}.get(self.wait, stall)
        self.last_pace = self.moved_bytes / (now - self.since + 1)
        self.since, self.deadline, self.moved_bytes = now, now + seconds, 0

    def expire(self, now: float) -> None:
        """Begin a new window if enough bytes have moved in this one; otherwise end the connection."""
        min_bytes = self.connections.settings.min_bytes_per_second * (self.deadline - self.since)
        if self.wait in ("body", "reader", "end") and self.moved_bytes >= min_bytes:
            self._begin_window(now)
        else:
            self.refuse(RequestTimeout(f"The {self.wait} of the request came too slowly."))

    def refuse(self, problem: Problem) -> None:
        """Answer what is still arriving with a problem and then end, or end at once; what has a thread goes on."""
        if self.request is None and not self.requests:
            self.handle_close()
        elif not self.requests:
            with self.requests_lock:
                self.request.reject(problem)
                self.requests.append(self.request)
                self.request = None
            self.service()

    def service(self) -> None:
        """Answer the request that has arrived, in a thread or in the loop, and wake the loop for what follows."""
        super().service()
        self.connections.changed.append(self.file)
        self.server.pull_trigger()

    def end(self) -> None:
        """End the connection when the client has read its answer; take no further request."""
        self.ends, self.skips, self.rest = True, self.skips or MAX_SKIPPED_BYTES, b""

    def check_client_disconnected(self) -> bool:
        """Return whether the client has disconnected, or sends no more."""
        return self.has_left or not self.connected


class Connections:
    """The connections of a worker, in the order in which their present waits began, the oldest first."""

    def __init__(self, cfg: Config, settings: Settings, gate: Gate, changed: deque[int]) -> None:
        self.cfg, self.settings, self.gate = cfg, settings, gate
        self.changed = changed  # the file descriptors of those that the loop must look at
        self.channels: dict[Channel, None] = {}
        self.held_bytes = self.answered = 0
        self.is_stopping = False
        self._max_held_bytes = make_plan(settings).upload_bytes + 2 * FRAMING_BYTES

    def add(self, channel: Channel) -> None:
        """Add a connection that was accepted, and end another one if there are too many.

        That is the longest idle, or else the slowest, of the client with most connections; never one in a thread.
        """
        self.channels[channel] = None
        if len(self.channels) <= self.cfg.worker_connections:
            return
        others = _of_largest_clients(each for each in self.channels if not (each is channel or each.requests))
        idle = (each for each in others if each.wait in _IDLE and each.since <= time.monotonic() - _IDLE_SECONDS)
        if victim := next(idle, None) or _slowest(others) or next(iter(others), None):
            victim.refuse(Overloaded("There are too many connections. Try again in a moment.", 1))
            victim.handle_close()

    def limit_bytes(self) -> None:
        """Refuse the slowest client if too many bytes are held."""
        if self.held_bytes > self._max_held_bytes and (slowest := _slowest(self.channels)):
            slowest.refuse(Overloaded("Too much is being received at once. Try again in a moment.", 1))

    def stop(self) -> None:
        """Have each connection end with its next answer, and keep idle ones only for a moment."""
        self.is_stopping = True
        for channel in self.channels:
            if channel.wait in _IDLE:
                channel.deadline = min(channel.deadline, time.monotonic() + _STOP_SECONDS)

    def end(self) -> None:
        """End all connections; clients that are still sending get a problem."""
        for channel in list(self.channels):
            channel.refuse(Overloaded("This process is stopping. Try again in a moment.", 1))
            channel.handle_close()


def _of_largest_clients(channels: Iterable[Channel]) -> list[Channel]:
    """Return the connections of the client that has the most of these, or of several clients that have as many."""
    found = list(channels)
    counts = Counter(each.client for each in found)
    most = max(counts.values(), default=0)
    return [each for each in found if counts[each.client] == most]


def _slowest(channels: Iterable[Channel]) -> Channel | None:
    """Return the slowest connection of the client with the most moving ones, by this window or the last, or None."""
    moving = _of_largest_clients(each for each in channels if each.wait in _MOVING)
    now = time.monotonic()
    return min(moving, key=lambda each: max(each.last_pace, each.moved_bytes / (now - each.since + 1)), default=None)
