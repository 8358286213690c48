"""The worker over real sockets: slow clients hold no thread, and each gets the answer that it is due."""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest
from fakes import colour_png, fake_classifier
from gunicorn.config import Config
from gunicorn.errors import ConfigError
from gunicorn.glogging import Logger
from gunicorn.sock import TCPSocket

from app import create_app
from app.settings import Settings
from app.worker import PatientWorker

PATIENCE_SECONDS = 20
PHOTO = colour_png(9, 5, 1)
POST = b"POST /api/v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: %d\r\n%s\r\n"
WHOLE = POST % (len(PHOTO), b"") + PHOTO
CHUNKED = b"POST /api/v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
ALIVE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


class Running:
    """A worker in a thread of this process, with two request threads, and the address that it serves."""

    def __init__(self, worker: PatientWorker, address: tuple[str, int], thread: threading.Thread) -> None:
        self.worker = worker
        self.address = address
        self.thread = thread

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(self.address, timeout=PATIENCE_SECONDS)

    def stop(self) -> None:
        """Do what SIGTERM does."""
        self.worker.handle_exit(None, None)


@pytest.fixture
def run(make_settings: Callable[..., Settings]) -> Iterator[Callable[..., Running]]:
    """Run workers until the test ends; `configuration` is gunicorn's, the rest are our settings."""
    with ExitStack() as stack:

        def start(configuration: dict[str, object] | None = None, **settings: object) -> Running:
            return stack.enter_context(running(make_settings(**settings), configuration or {}))

        yield start


@contextmanager
def running(settings: Settings, configuration: dict[str, object]) -> Iterator[Running]:
    """Run a worker in a thread."""
    cfg = Config()
    for name, value in {"threads": 2, "graceful_timeout": 5, "errorlog": "-", **configuration}.items():
        cfg.set(name, value)
    log = Logger(cfg)
    listener = TCPSocket(("127.0.0.1", 0), cfg, log)
    worker = PatientWorker(1, os.getppid(), [listener], SimpleNamespace(), 30, cfg, log)
    worker.wsgi = create_app(settings, fake_classifier())
    worker.tpool = worker.get_thread_pool()
    worker.poller = selectors.DefaultSelector()
    worker.method_queue.init()
    address = listener.getsockname()
    thread = threading.Thread(target=worker.run)
    thread.start()
    server = Running(worker, address, thread)
    try:
        yield server
    finally:
        if thread.is_alive():
            server.stop()
        thread.join(PATIENCE_SECONDS)
        worker.tmp.close()
        assert not thread.is_alive()


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


def test_photo_in_one_piece_and_byte_by_byte_get_the_same(run: Callable[..., Running]) -> None:
    server = run()
    status, headers, whole = ask(server, WHOLE)
    assert (status, headers["connection"]) == (200, "keep-alive")
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(len(WHOLE)):
            connection.sendall(WHOLE[start : start + 1])
        assert read_answer(connection)[::2] == (200, whole)


@pytest.mark.parametrize("sent", [b"", b"POST /api", POST % (9999, b""), POST % (9999, b"") + PHOTO[:50]])
def test_many_more_slow_clients_than_threads_delay_nobody(run: Callable[..., Running], sent: bytes) -> None:
    server = run()
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(server.connect()).sendall(sent)
        assert ask(server, WHOLE)[0] == 200


@pytest.mark.parametrize("sent", [b"POST /api", POST % (9999, b"") + PHOTO[:50], POST % (9999, b"")])
def test_slow_request_is_told_so(run: Callable[..., Running], sent: bytes) -> None:
    with run(stall_seconds=1).connect() as connection:
        connection.sendall(sent)
        status, headers, body = read_answer(connection)
        assert (status, headers["connection"]) == (408, "close")
        assert len(headers["x-request-id"]) == 32
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["type"] == "/problems/request-timeout"
        assert connection.recv(1) == b""


def test_silent_connection_is_closed_without_a_word(run: Callable[..., Running]) -> None:
    with run(stall_seconds=1).connect() as connection:
        assert connection.recv(1) == b""


def test_body_that_moves_fast_enough_may_take_longer_than_a_stall(run: Callable[..., Running]) -> None:
    server = run(stall_seconds=1, min_bytes_per_second=20)
    body = PHOTO.ljust(1000, b"\0")
    with server.connect() as connection:
        connection.sendall(POST % (len(body), b""))
        ticking = threading.Event()
        for start in range(0, len(body), 40):
            connection.sendall(body[start : start + 40])
            ticking.wait(0.08)
        assert read_answer(connection)[0] == 200


def test_requests_in_a_row_on_one_connection_are_answered_in_order(run: Callable[..., Running]) -> None:
    server = run()
    chunked = CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(PHOTO), PHOTO)
    with server.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(ALIVE + WHOLE + chunked + b"GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        text = answers.read()
    assert [line.split()[1] for line in text.splitlines() if line.startswith(b"HTTP/1.1 ")] == [
        b"200",
        b"200",
        b"200",
        b"404",
    ]


def test_client_that_asks_first_is_told_to_go_on_once(run: Callable[..., Running]) -> None:
    with run().connect() as connection:
        connection.sendall(POST % (len(PHOTO), b"Expect: 100-continue\r\n"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(PHOTO)
        assert read_answer(connection)[0] == 200


def test_client_that_asks_first_with_too_much_is_refused_unread(run: Callable[..., Running]) -> None:
    status, headers, _ = ask(run(), POST % (10**9, b"Expect: 100-continue\r\n"))
    assert (status, headers["connection"]) == (413, "close")


def test_refused_uploads_hold_no_thread(run: Callable[..., Running]) -> None:
    server = run()
    with ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(server.connect())
            connection.sendall(POST % (10**9, b"") + bytes(1000))
            assert read_answer(connection)[0] == 413
        assert ask(server, WHOLE)[0] == 200


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (POST % (9, b"Expect: 100-continue\r\nExpect: 100-continue\r\n"), 400),
        (POST.replace(b"%d", b"%019d") % (9, b""), 400),
        (CHUNKED.replace(b"chunked", b"gzip, chunked") + b"5\r\nab", 400),
        (CHUNKED + b"0000000000000005\r\n", 400),
        (CHUNKED + b"0x5\r\nphoto\r\n", 400),
        (CHUNKED + b"5;bad ext\r\nphoto\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: %s\r\n" % bytes(5000).replace(b"\0", b"x") * 22, 431),
    ],
)
def test_unusual_framing_holds_no_thread(run: Callable[..., Running], sent: bytes, expected: int) -> None:
    server = run()
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(server.connect()).sendall(sent)
        assert ask(server, WHOLE)[0] == 200
    assert ask(server, sent)[0] == expected


def test_clients_that_ask_first_and_leave_do_no_harm(run: Callable[..., Running]) -> None:
    server = run()
    for _ in range(20):
        with server.connect() as connection:  # closed by a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(POST % (len(PHOTO), b"Expect: 100-continue\r\n"))
    assert ask(server, WHOLE)[0] == 200


def test_slow_readers_hold_no_thread_and_get_all_of_it(run: Callable[..., Running]) -> None:
    server = run()
    labels = b"GET /api/v1/labels HTTP/1.1\r\nHost: a\r\n\r\n" * 40
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(server.connect()).sendall(labels)
        assert ask(server, WHOLE)[0] == 200
    expected = ask(server, labels[: len(labels) // 40])[2]
    with server.connect() as connection:
        connection.sendall(labels.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n")
        with connection.makefile("rb") as answers:
            assert answers.read().count(expected) == 40


def test_too_much_received_at_once_costs_the_slowest(run: Callable[..., Running]) -> None:
    limit = 1 << 20
    server = run(max_upload_bytes=limit, max_batch_bytes=limit, max_waiting_bytes=4 * limit // 3 + 4)
    with ExitStack() as stack:
        first, *_ = [stack.enter_context(server.connect()) for _ in range(3)]
        first.sendall(POST % (limit, b"") + bytes(1000))
        for connection in (stack.enter_context(server.connect()) for _ in range(2)):
            connection.sendall(POST % (limit, b"") + bytes(limit * 3 // 4))
        status, headers, _ = read_answer(first)
        assert (status, headers["retry-after"]) == (503, "1")
        assert ask(server, ALIVE)[0] == 200


def test_one_connection_too_many_ends_the_longest_idle(run: Callable[..., Running]) -> None:
    server = run({"worker_connections": 3})
    with server.connect() as oldest, server.connect() as other:
        oldest.sendall(ALIVE)
        other.sendall(ALIVE)
        assert (read_answer(oldest)[0], read_answer(other)[0]) == (200, 200)
        assert ask(server, WHOLE)[0] == 200
        assert oldest.recv(1) == b""


def test_stop_answers_what_is_on_its_way_and_then_closes(run: Callable[..., Running]) -> None:
    server = run()
    with server.connect() as half, server.connect() as idle:
        idle.sendall(ALIVE)
        assert read_answer(idle)[1]["connection"] == "keep-alive"
        half.sendall(POST % (len(PHOTO), b"Expect: 100-continue\r\n"))
        assert half.recv(100).startswith(b"HTTP/1.1 100")
        server.stop()
        idle.sendall(ALIVE)
        assert read_answer(idle)[1]["connection"] == "close"
        half.sendall(PHOTO)
        status, headers, _ = read_answer(half)
        assert (status, headers["connection"]) == (200, "close")
    server.thread.join(PATIENCE_SECONDS)
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_stop_tells_those_who_are_too_late(run: Callable[..., Running]) -> None:
    server = run({"graceful_timeout": 1})
    with server.connect() as connection:
        connection.sendall(POST % (len(PHOTO), b"Expect: 100-continue\r\n"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        server.stop()
        assert read_answer(connection)[0] == 503


def test_encryption_is_refused_and_not_ignored() -> None:
    with pytest.raises(ConfigError, match="proxy"):
        PatientWorker.check_config(SimpleNamespace(is_ssl=True), None)
