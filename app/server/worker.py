"""`Worker`: a gunicorn worker that serves with waitress, in which no client holds a thread.

gunicorn starts, watches, reloads and stops workers; waitress accepts, parses, hands requests to threads and sends. Of
gunicorn only `gunicorn.workers.base.Worker` is used.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from gunicorn.config import Config
from gunicorn.errors import ConfigError
from gunicorn.workers import base
from waitress import wasyncore
from waitress.server import create_server

from ..processes.memory import IdleHeap
from ..web.gate import Gate
from .channel import Channel
from .connections import Connections, limits_of
from .loop import Loop

_SWEEP_SECONDS = 0.25
_READ_BYTES = 4096


class Threads:
    """What waitress gives requests to: threads, of which the one that was busy last is the next, or the loop itself."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count)

    def add_task(self, channel: Channel) -> None:
        """Have the next request of a channel answered; the loop writes an answer that is ready."""
        if channel.requests[0].error:
            channel.connections.at_once.append(channel)
        else:
            self._pool.submit(channel.service)

    def end(self) -> None:
        """Answer no more requests."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Calls(wasyncore.file_dispatcher):  # type: ignore[misc]
    """What signal handlers have left for the loop to do; a signal writes to the worker's pipe."""

    def __init__(self, file: int, waiting: deque[Callable[[], object]], loop: Loop) -> None:
        super().__init__(file, map=loop)
        self._waiting = waiting

    def writable(self) -> bool:
        """Return False: nothing is written here."""
        return False

    def handle_read(self) -> None:
        """Do it."""
        self.recv(_READ_BYTES)
        while self._waiting:
            self._waiting.popleft()()


class Worker(base.Worker):  # type: ignore[misc]
    """Serve with threads, and wait for clients without them."""

    connections: Connections

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.heap = IdleHeap()
        self.loop = Loop()
        self._calls: deque[Callable[[], object]] = deque()
        self._next_sweep = 0.0

    @classmethod
    def check_config(cls, cfg: Config, log: Any) -> None:
        """Refuse what this worker cannot do."""
        if cfg.is_ssl:
            raise ConfigError("This worker speaks no TLS; put a proxy in front.")

    def call_soon(self, call: Callable[[], object]) -> None:
        """Have the loop do something; for signal handlers, which may interrupt anything."""
        self._calls.append(call)
        os.write(self.PIPE[1], b"\0")

    def run(self) -> None:
        """Serve until told to stop, then answer what is in flight."""
        limits = limits_of(self.cfg, self.wsgi.config["TOPTHREE"])
        self.connections = Connections(Gate(self.wsgi), limits, self.loop.changed, self.log.warning)
        threads = Threads(self.cfg.threads)
        calls = Calls(self.PIPE[0], self._calls, self.loop)
        servers = [self._open(listener, threads) for listener in self.sockets]
        while self.alive and self.ppid == os.getppid():
            self._turn()
        for server in servers:
            self._close(server)
        self.connections.stop()
        end = time.monotonic() + self.cfg.graceful_timeout
        while self.connections.channels and time.monotonic() < end:
            self._turn()
        self.connections.end()
        threads.end()
        for dispatcher in (calls, *(server.trigger for server in servers)):
            dispatcher.close()

    def _open(self, listener: Any, threads: Threads) -> Any:
        """Have waitress accept on one of gunicorn's sockets; its own limits are above ours."""
        limits = self.connections.limits
        server = create_server(
            self.wsgi,
            map=self.loop,
            sockets=[listener.sock],
            threads=0,
            backlog=self.cfg.backlog,
            connection_limit=sys.maxsize,
            channel_timeout=sys.maxsize,
            channel_request_lookahead=1,
            clear_untrusted_proxy_headers=False,
            ident=None,
            inbuf_overflow=sys.maxsize,
            outbuf_overflow=sys.maxsize,
            outbuf_high_watermark=sys.maxsize,
            log_socket_errors=False,
            max_request_header_size=limits.head_bytes,
            max_request_body_size=sys.maxsize,
        )
        server.task_dispatcher = threads
        server.channel_class = partial(Channel, self.connections)
        return server

    def _close(self, server: Any) -> None:
        """Take what the system has accepted for this worker, and no more."""
        count = -1
        while count != len(self.loop):
            count = len(self.loop)
            server.handle_accept()
        wasyncore.dispatcher.close(server)

    def _turn(self) -> None:
        self.loop.turn(_SWEEP_SECONDS)
        while self.connections.at_once:
            self.connections.at_once.popleft().service()
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_SECONDS
            self.notify()
            self.heap.look(self.connections.answered, now)
            self.connections.sweep()
