"""A real HTTP server that stands in for the weights' host: it serves one small file, or misbehaves as told."""

from __future__ import annotations

import hashlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 1024
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer."""

    server: FileServer

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        answer = self.server.next_answer(start)
        answer(self, start)

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep the tests' output clean."""


Answer = Callable[[Exchange, int], None]


class FileServer(ThreadingHTTPServer):
    """Remembers in `starts` the byte each request asked to start from; the last of `answers` is for all later ones."""

    daemon_threads = False  # so that closing waits for every exchange

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.url = f"http://127.0.0.1:{self.server_port}/weights.pth"
        self.starts: list[int] = []
        self.answers: list[Answer] = [whole_or_rest]

    def next_answer(self, start: int) -> Answer:
        self.starts.append(start)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up: they are what some tests are about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving() -> Iterator[FileServer]:
    """Run a server on a free port and stop it with all its threads."""
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def whole_or_rest(exchange: Exchange, start: int, *, sent: int | None = None) -> None:
    """Serve the file, from `start` where that was asked; break off after `sent` bytes of it."""
    body, headers = CONTENT[start:], {}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    headers["Content-Length"] = str(len(body))
    exchange.send(206 if start else 200, body[:sent], headers)


def whole(exchange: Exchange, start: int) -> None:
    """Serve the whole file even if a range was asked for, as a server without ranges does."""
    whole_or_rest(exchange, 0)


def cut_after(sent: int) -> Answer:
    """Announce everything, send `sent` bytes and close the connection."""
    return lambda exchange, start: whole_or_rest(exchange, start, sent=sent)


def status(code: int) -> Answer:
    """Answer with a status and a short text instead of the file."""
    return lambda exchange, start: exchange.send(code, b"no file here", {"Content-Length": "12"})


def body(content: bytes, **headers: str) -> Answer:
    """Answer 200 with any bytes; without a Content-Length they end with the connection."""
    return lambda exchange, start: exchange.send(200, content, headers)


def redirect(url: str) -> Answer:
    """Send the client elsewhere."""
    return lambda exchange, start: exchange.send(302, b"", {"Location": url, "Content-Length": "0"})


def hold(arrived: threading.Event, release: threading.Event) -> Answer:
    """Say that the request is here, and serve the file only when released."""

    def answer(exchange: Exchange, start: int) -> None:
        arrived.set()
        release.wait(60)
        whole_or_rest(exchange, start)

    return answer
