"""`PatientWorker`: gunicorn's threaded worker, in which no slow client holds a thread.

gunicorn gives a connection to a thread that reads the request and writes the answer, and waits for the client in
both; as many slow clients as there are threads hold the service. Here the worker's own event loop does all the
waiting, on non-blocking sockets:

    accept -> a request arrives -> a thread answers from memory -> what is unsent leaves -> next request, or close

A client that is too slow in one of the waits is told so (408) and let go. The loop runs in the worker's main
thread, and it alone touches the connections that wait; a thread has a connection from `enqueue_req` to
`finish_request`.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.config import Config
from gunicorn.errors import ConfigError
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

from . import metrics
from .arrivals import Arrival, ClientSocket, State
from .connections import Connection, CountsConnections, Wait, limits_of, refusal
from .errors import Overloaded, Problem, RequestTimeout
from .uploads import DRAIN_BYTES, DRAIN_PAUSE_SECONDS, DRAIN_SECONDS

_ACCEPTS_AT_ONCE = 16
_READ_BYTES = 256 * 1024
_SWEEP_SECONDS = 0.25
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class PatientWorker(CountsConnections, ThreadWorker):  # type: ignore[misc]
    """Serve with threads, and wait for clients without them."""

    @classmethod
    def check_config(cls, cfg: Config, log: Any) -> None:
        """Refuse what this worker cannot do."""
        if cfg.is_ssl:
            raise ConfigError("This worker speaks no TLS; put a proxy in front.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting: dict[Connection, None] = {}  # in the order in which they began to wait
        self.held_bytes, self._next_sweep = 0, 0.0
        self._scratch = memoryview(bytearray(_READ_BYTES))

    def run(self) -> None:
        """Serve until told to stop, then answer what is in flight."""
        self.limits = limits_of(self.cfg, self.wsgi.config["TOPTHREE"])
        super().run()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or cease to accept; a worker that stops takes what the system has accepted for it, and closes."""
        super().set_accept_enabled(enabled)
        if not self.alive and not enabled:
            for listener in self.sockets:
                while self._accept_one(listener):
                    pass
                listener.close()

    def accept(self, listener: Any) -> None:
        """Accept some connections, or one at a time where other workers accept too, the least busy of them first."""
        time.sleep(self.shares.pause_seconds(self.slot))
        for _ in range(_ACCEPTS_AT_ONCE if self.cfg.workers == 1 else 1):
            if not self._accept_one(listener):
                return

    def _accept_one(self, listener: Any) -> bool:
        try:
            accepted, client = listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _SHORTAGES:
                self.log.warning("A connection could not be accepted: %s.", error)
                self._make_room()
            return False
        self.nr_conns += 1
        conn = Connection(self.cfg, ClientSocket(accepted.detach()), client, listener.getsockname())
        self._await_request(conn, b"")
        conn.deadline = time.monotonic() + self.limits.stall_seconds
        if self.nr_conns >= self.worker_connections:
            self._make_room()
        return True

    def _make_room(self) -> None:
        """Let the connection go that has been idle for longest, or else the slowest."""
        idle = next((conn for conn in self.waiting if conn.wait in (Wait.REQUEST, Wait.CLOSE)), None)
        if idle is not None:
            self._drop(idle)
        else:
            self._refuse_slowest()

    def _await_request(self, conn: Connection, rest: bytes) -> None:
        conn.arrival = Arrival(self.limits)
        self._wait_for(conn, Wait.REQUEST, selectors.EVENT_READ, self._receive)
        conn.deadline = conn.since + (self.cfg.keepalive if self.alive else STOP_KEEPALIVE_LINGER)
        if rest:
            self._take(conn, rest)

    def _receive(self, conn: Connection, _: Any) -> None:
        try:
            count = conn.sock.recv_into(self._scratch)
        except BlockingIOError:
            return
        except OSError:
            self._drop(conn)
            return
        if count:
            self._take(conn, self._scratch[:count])
        elif conn.arrival is not None and conn.arrival.data:
            self._dispatch(conn, is_whole=False)  # the client has closed its side early; a thread tells it so
        else:
            self._drop(conn)

    def _take(self, conn: Connection, received: bytes | memoryview) -> None:
        arrival = conn.arrival
        assert arrival is not None
        state = arrival.feed(received)
        conn.held_bytes += len(received)
        self.held_bytes += len(received)
        if state in (State.WHOLE, State.REFUSED):
            self._dispatch(conn, is_whole=state is State.WHOLE)
            return
        conn.moved_bytes += len(received)
        if conn.wait.value != state.value:
            conn.wait = Wait(state.value)
            self._begin_window(conn)
        if arrival.awaits_continue:
            arrival.awaits_continue = False
            with suppress(OSError):  # a client that has left shows at the next look at its socket
                conn.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.held_bytes > self.limits.all_bytes:
            self._refuse_slowest()

    def _dispatch(self, conn: Connection, *, is_whole: bool) -> None:
        """Give a request to a thread."""
        assert conn.arrival is not None
        self._leave_loop(conn)
        conn.parser.unreader.fill(conn.arrival)
        conn.parser.is_whole = is_whole
        conn.arrival = None
        self.enqueue_req(conn)

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """Go on with a connection whose request was whole, so that what is left of it lies in memory."""
        return bool(keepalive and conn.parser.is_whole and super()._keepalive_after(conn, keepalive))

    # Answering

    def finish_request(self, conn: Connection, fs: Future[Any]) -> None:
        """Take a connection back from its thread."""
        self._release(conn)
        conn.keep = not fs.cancelled() and fs.exception() is None and bool(fs.result())
        if conn.sock.fileno() < 0:
            self.nr_conns -= 1
            return
        conn.sock.setblocking(False)
        if not conn.sock.unsent:
            self._after_answer(conn)
            return
        conn.held_bytes = len(conn.sock.unsent)
        self.held_bytes += conn.held_bytes
        self._wait_for(conn, Wait.READER, selectors.EVENT_WRITE, self._send)
        if self.held_bytes > self.limits.all_bytes:
            self._refuse_slowest()

    def _send(self, conn: Connection, _: Any) -> None:
        try:
            conn.moved_bytes += conn.sock.flush()
        except OSError:
            self._drop(conn)
            return
        if not conn.sock.unsent:
            self._leave_loop(conn)
            self._release(conn)
            self._after_answer(conn)

    def _after_answer(self, conn: Connection) -> None:
        if conn.keep:
            self._await_request(conn, conn.parser.unreader.take_rest())
        else:
            self._close_later(conn)

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

    # Waiting

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
        return conn.moved_bytes >= self.limits.bytes_per_second * self.limits.stall_seconds

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
        metrics.count_problem(problem.slug)
        with suppress(OSError):  # a client that has left needs no answer
            conn.sock.sendall(refusal(problem))
        self._close_later(conn)
