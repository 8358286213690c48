"""`WaitingWorker`: the connections that no thread has, what each of them waits for, and when it is let go.

All of it happens in the event loop of gunicorn's threaded worker, on sockets that never block.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

from ..errors import Overloaded, Problem, RequestTimeout
from ..processes.memory import IdleHeap
from ..web.cors import allowing
from ..web.observing import report_refused
from ..web.refused_bodies import DRAIN_BYTES, DRAIN_PAUSE_SECONDS, DRAIN_SECONDS
from .arrivals import Arrival, ClientSocket
from .connections import Connection, CountsConnections, Wait, method_in, origin_in, refusal, request_id_in

_READ_BYTES = 256 * 1024
_SWEEP_SECONDS = 0.25
# Who has just come is not idle yet.
_IDLE_SECONDS = 1.0
# As much of a head that is not whole as its method may take.
_METHOD_BYTES = 32


class WaitingWorker(CountsConnections, ThreadWorker):  # type: ignore[misc]
    """Wait for clients without threads, each within its limits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting: dict[Connection, None] = {}  # in the order in which they began to wait
        self.held_bytes, self._next_sweep = 0, 0.0
        self._scratch = memoryview(bytearray(_READ_BYTES))
        self.heap = IdleHeap()
        self.origins: tuple[str, ...] = ()
        # gunicorn would close connections beyond a number of its own; here they wait without threads and are counted.
        self.max_keepalived = self.worker_connections

    def _wait_for(self, conn: Connection, wait: Wait, event: int, ready: Any) -> None:
        conn.wait, conn.ready = wait, ready
        self._begin_window(conn)
        conn.last_pace = 0.0
        self.waiting[conn] = None
        self.poller.register(conn.sock, event, partial(self._wake, conn, ready))

    def _wake(self, conn: Connection, ready: Any, _: Any) -> None:
        """Go on with a connection, unless what came before it in the same round of the loop has ended its wait."""
        if conn in self.waiting and conn.ready is ready:
            ready(conn)

    def _begin_window(self, conn: Connection) -> None:
        conn.begin_window(time.monotonic(), self.limits.stall_seconds)

    def _leave_loop(self, conn: Connection) -> None:
        self.poller.unregister(conn.sock)
        del self.waiting[conn]

    def _release(self, conn: Connection) -> None:
        self.held_bytes -= conn.held_bytes
        conn.held_bytes = 0
        conn.parser.free_place()

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

    def _slowest(self, connections: Iterable[Connection]) -> Connection | None:
        """Find the slowest of those that send or read, if there are any."""
        moving = [conn for conn in connections if conn.wait in (Wait.HEAD, Wait.BODY, Wait.READER)]
        return min(moving, key=partial(Connection.pace, now=time.monotonic()), default=None)

    def _refuse_slowest(self) -> None:
        """Refuse the slowest of those that hold memory, where all together hold too much."""
        slowest = self._slowest(self.waiting)
        if slowest is not None and slowest.wait is Wait.READER:
            self._drop(slowest)
        elif slowest is not None:
            self._refuse(slowest, Overloaded("Too much is being received at once. Try again in a moment.", 1))

    def _make_room(self, newest: Connection | None = None) -> None:
        """End a connection at once: that which has been idle for longest, or else the slowest; never the newest."""
        others = [conn for conn in self.waiting if conn is not newest]
        latest = time.monotonic() - _IDLE_SECONDS
        idle = (conn for conn in others if conn.wait in (Wait.REQUEST, Wait.CLOSE) and conn.since <= latest)
        victim = next(idle, None) or self._slowest(others) or next(iter(others), None)
        if victim is None:
            return
        if victim.wait in (Wait.HEAD, Wait.BODY):
            problem = Overloaded("There are too many connections. Try again in a moment.", 1)
            self._send_problem(victim.sock, problem, victim.arrival)
        self._drop(victim)

    def _refuse(self, conn: Connection, problem: Problem) -> None:
        self._leave_loop(conn)
        self._release(conn)
        conn.parser.is_whole = False
        self._send_problem(conn.sock, problem, conn.arrival)
        conn.arrival = None
        self._close_later(conn)

    def _send_problem(self, client: ClientSocket, problem: Problem, arrival: Arrival | None = None) -> None:
        """Send the last answer of a connection; it is counted and logged as all are."""
        begin = bytes(arrival.data[: arrival.head_bytes or _METHOD_BYTES]) if arrival else b""
        request_id = request_id_in(begin)
        vary = {"Vary": "Origin"} if self.origins else {}
        answer = refusal(problem, request_id, more=vary | allowing(origin_in(begin), self.origins))
        report_refused(problem, request_id, method=method_in(begin), bytes_out=len(answer))
        with suppress(OSError):  # a client that has left needs no answer
            client.sendall(answer)

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

    def _discard(self, conn: Connection) -> None:
        try:
            count = conn.sock.recv_into(self._scratch)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        conn.moved_bytes += count
        now = time.monotonic()
        seconds = now - conn.since
        is_slow = seconds > DRAIN_SECONDS and conn.moved_bytes < self.limits.bytes_per_second * seconds
        if not count or conn.moved_bytes > DRAIN_BYTES or is_slow:
            self._drop(conn)
        elif not conn.parser.is_whole:
            conn.deadline = now + DRAIN_PAUSE_SECONDS
