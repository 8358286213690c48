"""`PatientWorker`: gunicorn's threaded worker, in which no slow client holds a thread.

gunicorn gives a connection to a thread that reads the request and writes the answer, and waits for the client in
both; as many slow clients as there are threads hold the service. Here the worker's own event loop does all the
waiting, on non-blocking sockets:

    accept -> a request arrives -> a thread answers from memory -> what is unsent leaves -> next request, or close

A client that sends too slowly is told so (408) and let go; one that does not read its answer, or asks nothing, is let
go without a word. The loop runs in the worker's main
thread, and it alone touches the connections that wait; a thread has a connection from `enqueue_req` to
`finish_request`.
"""

from __future__ import annotations

import errno
import selectors
import time
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from gunicorn.config import Config
from gunicorn.errors import ConfigError
from gunicorn.http.errors import InvalidResponseHeader, InvalidResponseHeaderName, ParseException
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER

from ..errors import Overloaded
from ..web.service import service_of
from .arrivals import Arrival, ClientSocket, State
from .connections import Connection, Wait, limits_of, problem_of
from .door import Door
from .waiting import WaitingWorker

_ACCEPTS_AT_ONCE = 16
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class PatientWorker(WaitingWorker):
    """Serve with threads, and wait for clients without them."""

    sockets: list[Any]

    @classmethod
    def check_config(cls, cfg: Config, log: Any) -> None:
        """Refuse what this worker cannot do."""
        if cfg.is_ssl:
            raise ConfigError("This worker speaks no TLS; put a proxy in front.")

    def run(self) -> None:
        """Serve until told to stop, then answer what is in flight."""
        settings = service_of(self.wsgi).settings
        self.limits = limits_of(self.cfg, settings)
        self.origins = settings.cors_origins
        self._door = Door(self.wsgi)
        self.shares.note(self.slot, self.nr_conns)
        super().run()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or cease to accept; a worker that stops takes what the system has accepted for it, and closes."""
        super().set_accept_enabled(enabled)
        if not self.alive and not enabled:
            for listener in self.sockets:
                while self._accept_one(listener):
                    pass
                listener.close()
            self.sockets = []

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
            self._make_room(conn)
        return True

    def _await_request(self, conn: Connection, rest: bytes) -> None:
        conn.arrival = Arrival(self.limits)
        conn.parser.refusal = None
        self._wait_for(conn, Wait.REQUEST, selectors.EVENT_READ, self._receive)
        conn.deadline = conn.since + (self.cfg.keepalive if self.alive else STOP_KEEPALIVE_LINGER)
        if rest:
            self._take(conn, rest)

    def _receive(self, conn: Connection) -> None:
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
            self._dispatch(conn, is_whole=False)  # it has closed its side early; a thread says so, if it can
        else:
            self._drop(conn)

    def _take(self, conn: Connection, received: bytes | memoryview) -> None:
        arrival = conn.arrival
        assert arrival is not None
        state = arrival.feed(received)
        conn.held_bytes += len(received)
        self.held_bytes += len(received)
        if state in (State.WHOLE, State.REFUSED):
            self._end_arrival(conn, is_whole=state is State.WHOLE)
            return
        if conn.wait.value != state.value:
            conn.wait = Wait(state.value)
            self._begin_window(conn)
            if state is State.BODY and not (self._door.wants_body(arrival) and self._take_place(conn)):
                self._dispatch(conn, is_whole=False)
                return
        conn.moved_bytes += len(received)
        if arrival.awaits_continue:
            arrival.awaits_continue = False
            if self._refuse_at_door(conn, is_whole=False):
                return
            with suppress(OSError):  # a client that has left shows at the next look at its socket
                conn.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.held_bytes > self.limits.all_bytes:
            self._refuse_slowest()

    def _end_arrival(self, conn: Connection, *, is_whole: bool) -> None:
        """Answer a request that has arrived whole, or give it to a thread."""
        if is_whole and self._refuse_at_door(conn, is_whole=True):
            return
        if is_whole and conn.wait is not Wait.BODY:  # it came in one piece, so that nothing was decided by its head
            self._take_place(conn)
        self._dispatch(conn, is_whole=is_whole)

    def _take_place(self, conn: Connection) -> bool:
        """Give a body the place that it needs, if it needs one; return whether it has what it needs."""
        assert conn.arrival is not None
        try:
            conn.parser.free_place = self._door.take_place(conn.arrival)
        except Overloaded as problem:
            conn.parser.refusal = problem
        return conn.parser.refusal is None

    def _refuse_at_door(self, conn: Connection, *, is_whole: bool) -> bool:
        """Refuse a request whose head has arrived if the service is at capacity; return whether it was refused."""
        assert conn.arrival is not None
        refused = self._door.refuse(conn.arrival, may_keep=is_whole and self.alive)
        if refused is None:
            return False
        self._leave_loop(conn)
        conn.arrival = None
        conn.keep, conn.parser.is_whole = refused.keeps_connection, is_whole
        with suppress(OSError):  # a client that has left shows at the next look at its socket
            conn.sock.sendall(refused.answer)
        self._finish(conn)
        return True

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
        try:
            return bool(keepalive and conn.parser.is_whole and conn.parser.finish_body())
        except OSError:  # nobody has read the body, and it is malformed
            return False

    def handle_error(self, req: Any, client: ClientSocket, addr: Any, exc: Exception) -> None:
        """Refuse what the parser does not take with a problem like any other; runs in a thread."""
        if isinstance(exc, ParseException) and not isinstance(exc, (InvalidResponseHeader, InvalidResponseHeaderName)):
            # The address is taken out of the log unless it is asked for (app/telemetry/logs.py).
            self.log.warning("Invalid request from ip=%s: %s", addr[0] if addr else "", exc)
            self._send_problem(client, problem_of(exc, self.cfg.limit_request_line))
        else:
            super().handle_error(req, client, addr, exc)

    # Answering

    def finish_request(self, conn: Connection, fs: Future[Any]) -> None:
        """Take a connection back from its thread."""
        conn.keep = not fs.cancelled() and fs.exception() is None and bool(fs.result())
        if conn.sock.fileno() >= 0:
            conn.sock.setblocking(False)
            self._finish(conn)
        else:
            self._release(conn)
            self.nr_conns -= 1

    def _finish(self, conn: Connection) -> None:
        """Wait for the client to read its answer, or go on where it has; of the request nothing is kept."""
        self._release(conn)
        conn.rest = conn.parser.unreader.take_rest() if conn.keep else b""
        if not conn.keep:
            conn.parser.forget()
        if not conn.sock.unsent:
            self._after_answer(conn)
            return
        conn.held_bytes = len(conn.sock.unsent) + len(conn.rest)
        self.held_bytes += conn.held_bytes
        self._wait_for(conn, Wait.READER, selectors.EVENT_WRITE, self._send)
        if self.held_bytes > self.limits.all_bytes:
            self._refuse_slowest()

    def _send(self, conn: Connection) -> None:
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
            self._await_request(conn, conn.rest)
        else:
            self._close_later(conn)
