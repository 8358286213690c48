"""`WaitingWorker`: the connections that no thread has, what each of them waits for, and when it is let go.

All of it happens in the event loop of gunicorn's threaded worker, on sockets that never block.
"""

from __future__ import annotations

import selectors
import socket
import time
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

from . import logs, metrics
from .arrivals import ClientSocket
from .connections import Connection, CountsConnections, Wait, refusal
from .errors import Overloaded, Problem, RequestTimeout
from .memory import IdleHeap
from .refused_bodies import DRAIN_BYTES, DRAIN_PAUSE_SECONDS, DRAIN_SECONDS

_READ_BYTES = 256 * 1024
_SWEEP_SECONDS = 0.25


class WaitingWorker(CountsConnections, ThreadWorker):  # type: ignore[misc]
    """Wait for clients without threads, each within its limits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting: dict[Connection, None] = {}  # in the order in which they began to wait
        self.held_bytes, self._next_sweep = 0, 0.0
        self._scratch = memoryview(bytearray(_READ_BYTES))
        self.heap = IdleHeap()

    def _wait_for(self, conn: Connection, wait: Wait, event: int, ready: Any) -> None:
        conn.wait = wait
        self._begin_window(conn)
        self.waiting[conn] = None
        self.poller.register(conn.sock, event, partial(ready, conn))

    def _begin_window(self, conn: Connection) -> None:
        conn.since = time.monotonic()
        conn.deadline = conn.since + self.limits.stall_seconds
        conn.moved_bytes = 0

    def _leave_loop(self, conn: Connection) -> None:
        self.poller.unregister(conn.sock)
        del self.waiting[conn]

    def _release(self, conn: Connection) -> None:
        self.held_bytes -= conn.held_bytes
        conn.held_bytes = 0

    def _drop(self, conn: Connection) -> None:
        self._leave_loop(conn)
        self._release(conn)
        self.nr_conns -= 1
        conn.close()

    def murder_keepalived(self, force: bool = False) -> None:
        """Let go, a few times a second, who was too slow; or everybody, at a worker's end."""
        now = time.monotonic()
        if now < self._next_sweep and not force:
            return
        self._next_sweep = now + _SWEEP_SECONDS
        self.heap.look(self.nr, now)
        for conn in [conn for conn in self.waiting if force or conn.deadline <= now]:
            if conn.wait in (Wait.HEAD, Wait.BODY):
                self._judge(conn, force)
            elif conn.wait is Wait.READER and not force and self._is_fast_enough(conn):
                self._begin_window(conn)
            else:
                self._drop(conn)
        while force and self.waiting:
            self._drop(next(iter(self.waiting)))

    def _judge(self, conn: Connection, force: bool) -> None:
        if force:
            self._refuse(conn, Overloaded("This process is stopping. Try again in a moment.", 1))
        elif conn.wait is Wait.BODY and self._is_fast_enough(conn):
            self._begin_window(conn)
        else:
            self._refuse(conn, RequestTimeout(f"The {conn.wait.value} of the request came too slowly."))

    def _is_fast_enough(self, conn: Connection) -> bool:
        """Tell whether enough moved since the window began; a pause as long as a window moves nothing."""
        return bool(conn.moved_bytes >= self.limits.bytes_per_second * self.limits.stall_seconds)

    def _cap_keepalive(self, deadline: float) -> None:
        """Keep idle connections of a stopping worker no longer than that."""
        for conn in self.waiting:
            if conn.wait is Wait.REQUEST:
                conn.deadline = min(conn.deadline, deadline)

    def _refuse_slowest(self) -> None:
        """Refuse the slowest of those that hold memory, where all together hold too much."""
        moving = [conn for conn in self.waiting if conn.wait in (Wait.HEAD, Wait.BODY, Wait.READER)]
        if not moving:
            return
        slowest = min(moving, key=partial(Connection.pace, now=time.monotonic()))
        if slowest.wait is Wait.READER:
            self._drop(slowest)
        else:
            self._refuse(slowest, Overloaded("Too much is being received at once. Try again in a moment.", 1))

    def _refuse(self, conn: Connection, problem: Problem) -> None:
        self._leave_loop(conn)
        self._release(conn)
        conn.arrival = None
        conn.parser.is_whole = False
        self._send_problem(conn.sock, problem)
        self._close_later(conn)

    def _send_problem(self, client: ClientSocket, problem: Problem) -> None:
        """Count and send the last answer of a connection."""
        metrics.count_problem(problem.slug)
        with suppress(OSError):  # a client that has left needs no answer
            client.sendall(refusal(problem, logs.choose_request_id(None)))

    def _make_room(self) -> None:
        """Let the connection go that has been idle for longest, or else the slowest."""
        idle = next((conn for conn in self.waiting if conn.wait in (Wait.REQUEST, Wait.CLOSE)), None)
        if idle is not None:
            self._drop(idle)
        else:
            self._refuse_slowest()

    def _close_later(self, conn: Connection) -> None:
        """Close our side, and read on for a while: unread bytes would turn the close into a reset (RFC 9112, 9.6)."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.nr_conns -= 1
            conn.close()
            return
        self._wait_for(conn, Wait.CLOSE, selectors.EVENT_READ, self._discard)
        conn.deadline = conn.since + (STOP_KEEPALIVE_LINGER if conn.parser.is_whole else DRAIN_PAUSE_SECONDS)

    def _discard(self, conn: Connection, _: Any) -> None:
        try:
            count = conn.sock.recv_into(self._scratch)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        conn.moved_bytes += count
        now = time.monotonic()
        if not count or conn.moved_bytes > DRAIN_BYTES or now > conn.since + DRAIN_SECONDS:
            self._drop(conn)
        elif not conn.parser.is_whole:
            conn.deadline = now + DRAIN_PAUSE_SECONDS
