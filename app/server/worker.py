"""`Worker`: a gunicorn worker that serves with waitress, in which no client holds a thread.

gunicorn starts, watches, reloads and stops workers; waitress accepts, parses, hands requests to threads and sends. Of
gunicorn only `gunicorn.workers.base.Worker` is used.
"""

from __future__ import annotations

import os
import selectors
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

from gunicorn.workers import base
from waitress import wasyncore
from waitress.server import create_server

from ..processes.listening import REST_SECONDS, Listener
from ..processes.memory import IdleHeap
from ..web.gate import Gate
from ..web.service import service_of
from .connections import Channel, Connections

_SWEEP_SECONDS = 0.25
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
# Of waitress's limits only that of a head is used; beyond an `overflow` it would write to disk.
_OFF = "channel_timeout connection_limit inbuf_overflow max_request_body_size outbuf_high_watermark outbuf_overflow"


class Threads(ThreadPoolExecutor):
    """The threads to which waitress hands requests; unlike in its own pool, the one that was busy last is the next."""

    def add_task(self, channel: Channel) -> None:
        """Have a thread answer the next request of a channel, unless its answer is ready; the loop sends that."""
        if not channel.requests[0].error:
            self.submit(channel.service)


class Loop(dict[int, Any]):
    """The map of waitress's dispatchers by file descriptor, and a round over those that had an event.

    waitress's own loop asks each dispatcher in each round, which takes longer than a photo if thousands wait; this one
    asks only those in `changed`. Any thread may append to `changed`; all else is for the loop's thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changed: deque[int] = deque()
        self._selector = selectors.DefaultSelector()

    def __setitem__(self, file: int, dispatcher: Any) -> None:
        super().__setitem__(file, dispatcher)
        self.changed.append(file)

    def __delitem__(self, file: int) -> None:
        super().__delitem__(file)
        self._register(file, 0)

    def turn(self, seconds: float) -> None:
        """Wait up to `seconds` for events, and handle them."""
        for _ in range(len(self.changed)):
            file = self.changed.popleft()
            if isinstance(channel := self.get(file), Channel):
                # An exception ends its connection, as those of other events do, and not the loop.
                wasyncore.read(SimpleNamespace(handle_read_event=channel.look, handle_error=channel.handle_error))
            if (found := self.get(file)) is not None:
                self._register(file, _READ * bool(found.readable()) + _WRITE * bool(found.writable()))
        for key, events in self._selector.select(0 if self.changed else seconds):
            for event, handle in ((_READ, wasyncore.read), (_WRITE, wasyncore.write)):
                if events & event and key.fd in self:
                    handle(self[key.fd])
            self.changed.append(key.fd)

    def _register(self, file: int, events: int) -> None:
        key = self._selector.get_map().get(file)
        before = key.events if key else 0
        if before and events != before:
            self._selector.unregister(file)
        if events and events != before:
            self._selector.register(file, events)


class Worker(base.Worker):
    """Serve with threads, and wait for clients without them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.heap, self.loop = IdleHeap(), Loop()
        self.calls: deque[Callable[[], object]] = deque()  # for the loop, from signal handlers, which run at any point
        self._next_sweep = 0.0

    def run(self) -> None:
        """Serve until a signal says to stop, then answer the requests in flight."""
        service = service_of(self.wsgi)
        self.readiness = service.readiness
        self.connections = Connections(self.cfg, service.settings, Gate(self.wsgi), self.loop.changed)
        threads = Threads(self.cfg.threads)
        self.listeners = [self._open(each, threads) for each in self.sockets]
        while self.alive and self.ppid == os.getppid():
            self._turn()
        for listener in self.listeners:
            self._close(listener.dispatcher)
        self.connections.stop()
        end = time.monotonic() + self.cfg.graceful_timeout
        while self.connections.channels and time.monotonic() < end:
            self._turn()
        self.connections.end()
        threads.shutdown(wait=False, cancel_futures=True)
        for listener in self.listeners:
            listener.dispatcher.trigger.close()

    def _open(self, listener: Any, threads: Threads) -> Listener:
        """Have waitress accept connections on one of gunicorn's sockets."""
        server = create_server(
            self.wsgi,
            map=self.loop,
            sockets=[listener.sock],
            threads=0,
            backlog=self.cfg.backlog,
            channel_request_lookahead=1,  # so that it shows when a client leaves
            clear_untrusted_proxy_headers=False,  # Flask knows which are trusted
            ident=None,
            log_socket_errors=False,
            max_request_header_size=self.cfg.limit_request_line + 1024 * self.cfg.limit_request_fields,
            **dict.fromkeys(_OFF.split(), sys.maxsize),
        )
        server.task_dispatcher = threads
        server.channel_class = partial(Channel, self.connections)
        found = Listener(server, self.readiness.holds_more, self.loop.changed)
        self.loop[found.file] = found
        return found

    def _close(self, server: Any) -> None:
        """Take the connections that the system has accepted for this worker already, and no others."""
        count = -1
        while count != len(self.loop):
            count = len(self.loop)
            server.handle_accept()
        wasyncore.dispatcher.close(server)

    def _turn(self) -> None:
        self.loop.turn(REST_SECONDS if any(each.rests for each in self.listeners) else _SWEEP_SECONDS)
        # A worker that stops takes none, so that others must not leave any to it.
        self.readiness.hold(sys.maxsize if self.connections.is_stopping else len(self.connections.channels))
        for listener in self.listeners:
            listener.look()
        while self.calls:
            self.calls.popleft()()
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_SECONDS
            self.notify()
            self.heap.look(self.connections.answered, now)
            for channel in [each for each in self.connections.channels if each.deadline <= now]:
                channel.expire(now)
