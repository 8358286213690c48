"""A client's connection: what it waits for, for how long, and how it ends.

waitress's channel reads and parses in the loop, has a thread answer from memory, and sends in the loop what the client
does not take at once; so no client holds a thread. This one adds what waitress has no limits for:

    accept -> head -> body -> answer in a thread -> the client reads -> the next head, or the end

Each step has a deadline, and steps in which bytes move have a pace instead. A connection ends with our side closed
while what the client still sends is read and dropped: unread bytes would turn the close into a reset, and the client
would lose its answer (RFC 9112, section 9.6).
"""

from __future__ import annotations

import enum
import math
import socket
import time
from contextlib import suppress
from functools import partial
from typing import Any

from waitress.channel import HTTPChannel

from ..errors import BadRequest, Problem, RequestTimeout
from .connections import MAX_SKIPPED_BYTES, Connections
from .requests import Rejection, Request, Task

_READ_BYTES = 256 * 1024
# How long a client may pause in a body that is read and dropped.
_SKIP_PAUSE_SECONDS = 5.0


class Wait(enum.Enum):
    """What a connection waits for."""

    REQUEST = "request"
    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"
    READER = "reader"
    END = "end"


class Channel(HTTPChannel):  # type: ignore[misc]
    """waitress's channel with limits."""

    task_class = Task
    error_task_class = Rejection

    def __init__(self, connections: Connections, server: Any, sock: socket.socket, *args: Any, **options: Any) -> None:
        self.connections = connections
        self.file = sock.fileno()
        self.parser_class = partial(Request, self)
        self.skips = 0  # how many bytes belong to a body that is not taken
        self.ends = False  # whether the connection ends when its answer has been read
        self.has_left = False
        self.moved_bytes = self.held_bytes = 0
        self.wait, self.since, self.last_pace = Wait.REQUEST, time.monotonic(), 0.0
        self.deadline = self.since + connections.limits.stall_seconds
        super().__init__(server, sock, *args, **options)
        connections.add(self)

    # The loop's side

    def handle_read(self) -> None:
        """Take what has come; a client that closes its side early is told so, and one that waits has left."""
        try:
            data = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.handle_close()
            return
        if data:
            self.received(data)
        elif self.requests:
            self.has_left = True
        elif self.request is not None and not self.skips:
            self.refuse(BadRequest("The request ended before it was complete."))
        else:
            self.handle_close()

    def received(self, data: bytes) -> bool:
        """Drop what belongs to a body that is not taken, and parse the rest."""
        self.moved_bytes += len(data)
        skipped = min(self.skips, len(data))
        self.skips -= skipped
        return bool(super().received(data[skipped:] if skipped else data))

    def readable(self) -> bool:
        """Return whether to read: requests, what is to be dropped, or that the client leaves."""
        return not self.has_left and bool(super().readable() or self.ends)

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send what the client takes, and count it."""
        sent = int(super().send(data, do_close=do_close))
        self.moved_bytes += sent
        return sent

    def del_channel(self, map: Any = None) -> None:
        """Forget a connection that is being closed, and what it has begun to send."""
        super().del_channel(map)
        if self.connections.channels.pop(self, self) is None:
            self.connections.count(-self.held_bytes)
            self.held_bytes = 0
        if self.request is not None:
            self.request.close()

    def look(self) -> None:
        """See, after anything has happened, what is held and what is waited for now."""
        requests = [each for each in (*self.requests, self.request) if each is not None]
        before, self.held_bytes = self.held_bytes, sum(each.held_bytes for each in requests) + self.total_outbufs_len
        self.connections.count(self.held_bytes - before)
        wait = self._waits_for()
        if wait is None or (wait is Wait.END and self.ends and not self.skips):
            self.handle_close()
        elif wait is not self.wait and self.connected:
            self._begin(wait)

    def _waits_for(self) -> Wait | None:
        """Return what the connection waits for, None if there is nothing left to wait for."""
        if self.requests:
            return Wait.ANSWER
        if self.total_outbufs_len:
            return Wait.READER
        if self.has_left:
            return None
        if self.ends or self.skips:
            return Wait.END
        if self.request is None:
            return Wait.REQUEST
        return Wait.BODY if self.request.headers_finished else Wait.HEAD

    def _begin(self, wait: Wait) -> None:
        self.wait = wait
        self.connections.channels[self] = self.connections.channels.pop(self)  # in the order of beginning
        self._begin_window(time.monotonic())
        if wait is Wait.END and self.ends:
            with suppress(OSError):  # a client that has left shows when its side is read
                self.socket.shutdown(socket.SHUT_WR)

    def _begin_window(self, now: float) -> None:
        limits = self.connections.limits
        seconds = {
            Wait.REQUEST: limits.keepalive_seconds,
            Wait.ANSWER: math.inf,
            Wait.END: _SKIP_PAUSE_SECONDS,
        }.get(self.wait, limits.stall_seconds)
        self.last_pace = self.moved_bytes / (now - self.since + 1)
        self.since, self.deadline, self.moved_bytes = now, now + seconds, 0

    @property
    def is_idle(self) -> bool:
        """Return whether the connection could be closed without harm to any request."""
        return self.wait in (Wait.REQUEST, Wait.END)

    @property
    def is_moving(self) -> bool:
        """Return whether the client sends or reads, at its own pace."""
        return self.wait in (Wait.HEAD, Wait.BODY, Wait.READER)

    def pace(self, now: float) -> float:
        """Return how many bytes a second move, in this window or the one before; a new window is given a second."""
        return max(self.last_pace, self.moved_bytes / (now - self.since + 1))

    def expire(self, now: float) -> None:
        """Begin a new window if enough bytes moved in this one, and end the connection otherwise."""
        is_fast = self.moved_bytes >= self.connections.limits.bytes_per_second * (self.deadline - self.since)
        if is_fast and self.wait in (Wait.BODY, Wait.READER, Wait.END):
            self._begin_window(now)
        elif self.wait in (Wait.HEAD, Wait.BODY):
            self.refuse(RequestTimeout(f"The {self.wait.value} of the request came too slowly."))
        else:
            self.handle_close()

    def refuse(self, problem: Problem) -> None:
        """Answer a request that is still arriving with a problem, the last answer of the connection."""
        if self.requests or not self.connected:
            return
        if self.request is None:
            self.handle_close()
            return
        with self.requests_lock:
            self.request.reject(problem)
            self.requests.append(self.request)
            self.request = None
        self.service()

    # The side of the threads that answer

    def service(self) -> None:
        """Answer the request that has arrived, and have the loop look at what follows."""
        super().service()
        self.connections.changed.append(self.file)
        self.server.pull_trigger()

    def end(self) -> None:
        """End the connection when the client has read its answer; no request is taken any more."""
        with self.requests_lock:
            del self.requests[1:]
            if self.request is not None:
                self.request.close()
                self.request = None
            self.ends, self.skips = True, max(self.skips, MAX_SKIPPED_BYTES)

    def check_client_disconnected(self) -> bool:
        """Return whether the client has disconnected, or sends no more."""
        return self.has_left or not self.connected
