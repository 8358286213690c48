"""A worker over real sockets, in a thread of the test's own process, and functions that send requests to it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace

from fakes import colour_png, fake_classifier
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.sock import TCPSocket
from waiting import wait_until
from waitress.trigger import trigger

from app import create_app
from app.server.worker import Worker
from app.settings import Settings

PATIENCE_SECONDS = 20
PHOTO = colour_png(9, 5, 1)
POST = b"POST /api/v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: %d\r\n%s\r\n"
WHOLE = POST % (len(PHOTO), b"") + PHOTO
CHUNKED = b"POST /api/v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
ALIVE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


class Running:
    """A worker in a thread of this process, with two request threads, and the address that it serves."""

    def __init__(self, worker: Worker, address: tuple[str, int], thread: threading.Thread) -> None:
        self.worker = worker
        wait_until(lambda: bool(triggers_of(worker)))
        self.waker = os.dup(triggers_of(worker)[0].trigger)  # a copy, which stays when the loop ends
        self.address = address
        self.thread = thread

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(self.address, timeout=PATIENCE_SECONDS)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Hold the event loop, so that all that is sent within the block becomes ready in one round of it."""
        inside, go_on = threading.Event(), threading.Event()
        self.worker.calls.append(lambda: (inside.set(), go_on.wait(PATIENCE_SECONDS)))
        self.wake()
        assert inside.wait(PATIENCE_SECONDS)
        yield
        go_on.set()

    def stop(self) -> None:
        """Do what SIGTERM does."""
        self.worker.handle_exit(None, None)
        self.wake()

    def wake(self) -> None:
        """Begin the next round of the event loop, which else waits for a quarter of a second if nothing happens."""
        with suppress(BrokenPipeError):  # it has ended
            os.write(self.waker, b"x")


@contextmanager
def running(settings: Settings, configuration: dict[str, object]) -> Iterator[Running]:
    """Run a worker in a thread."""
    cfg = Config()
    for name, value in {"threads": 2, "graceful_timeout": 5, "errorlog": "-", **configuration}.items():
        cfg.set(name, value)
    log = Logger(cfg)
    listener = TCPSocket(("127.0.0.1", 0), cfg, log)
    worker = Worker(1, os.getppid(), [listener], SimpleNamespace(), 30, cfg, log)
    worker.wsgi = create_app(settings, fake_classifier())
    address = listener.getsockname()
    thread, serves = threading.Thread(target=worker.run), threading.Event()
    worker.calls.append(serves.set)
    thread.start()
    server = Running(worker, address, thread)
    server.wake()
    assert serves.wait(PATIENCE_SECONDS)
    try:
        yield server
    finally:
        if thread.is_alive():
            server.stop()
        thread.join(PATIENCE_SECONDS)
        worker.tmp.close()
        os.close(server.waker)
        assert not thread.is_alive()


def triggers_of(worker: Worker) -> list[trigger]:
    """List what wakes the event loop of a worker; it is empty before the worker listens."""
    return [each for each in worker.loop.copy().values() if isinstance(each, trigger)]


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer: status, headers in lower case, and body."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(1 << 16)
        assert more, received
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(1 << 16)
    return int(lines[0].split()[1]), headers, body


def ask(server: Running, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send a request on a connection of its own and read the answer."""
    with server.connect() as connection:
        connection.sendall(sent)
        return read_answer(connection)
