"""nginx as deploy/nginx/nginx.conf sets it up, run for real, and a service behind it that takes notes."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from servers import POLL_SECONDS, free_port
from werkzeug.serving import make_server

NGINX = Path(__file__).resolve().parents[2] / "deploy" / "nginx"
HEAD = b"POST /api/v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
EXPECTING = HEAD[:-2] + b"Expect: 100-continue\r\n\r\n"
# The header that gives a client its address where `addresses` is on, as behind a balancer (docs/deploy.md).
CLIENT = "X-Client"
PATIENCE_SECONDS = 20


@dataclass(frozen=True)
class Nginx:
    """A running nginx: its address, its process, and the file that it writes standard output and error to."""

    port: int
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def url(self) -> str:
        """The address without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def end(self) -> str:
        """End it when all requests have been answered, and return all that it wrote."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(timeout=PATIENCE_SECONDS)
        return self.log_file.read_text(encoding="utf-8")


@contextmanager
def running_nginx(
    folder: Path, upstream: int, *, changes: Mapping[str, str] | None = None, addresses: bool = False
) -> Iterator[Nginx]:
    """Run nginx with our file, moved into a folder, before the service at a port of this machine.

    `changes` are more texts of the file that are replaced; with `addresses` a client says its address in a header.
    """
    port, log_file = free_port(), folder / "log"
    moves = {
        "server app:8000;": f"server 127.0.0.1:{upstream};",
        "listen 8080;": f"listen 127.0.0.1:{port};",
        " /tmp/": f" {folder}/",
        "/etc/nginx/tls/": f"{folder}/tls/",
    }
    text = (NGINX / "nginx.conf").read_text(encoding="utf-8")
    for old, new in (moves | dict(changes or {})).items():
        assert old in text
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    if addresses:
        (folder / "tls").mkdir(exist_ok=True)
        (folder / "tls" / "real.conf").write_text(f"set_real_ip_from 127.0.0.1; real_ip_header {CLIENT};")
    # Started by root, its workers would be nobody, who may not look into a test's folder.
    user = " user root;" if os.geteuid() == 0 else ""
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", f"daemon off;{user}"]
    with log_file.open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_until_listening(port, process)
            yield Nginx(port, process, log_file)
        finally:
            process.terminate()


def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process takes connections at a port of this machine; fails where it ends before."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(POLL_SECONDS)
    raise AssertionError("nginx does not listen.")


def is_taken(connection: socket.socket) -> bool:
    """Return whether nginx takes a request that expects `100 Continue`: by then it has counted the request."""
    return connection.recv(100).startswith(b"HTTP/1.1 100 ")


class Recorder:
    """A service that notes the requests it gets, and answers in the lines that it is given."""

    def __init__(self) -> None:
        self.seen: list[dict[str, object]] = []
        self.lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def __call__(self, environ: dict[str, object], start_response: Callable[..., object]) -> Iterator[bytes]:
        self.seen.append(dict(environ))
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if "ndjson" not in environ.get("HTTP_ACCEPT", ""):
            start_response("200 OK", [("Content-Type", "text/css"), ("Content-Length", "20000")])
            return iter([b"%05d" % len(body) * 4000])
        start_response("200 OK", [("Content-Type", "application/x-ndjson"), ("X-Accel-Buffering", "no")])
        return iter(self.lines.get, b"")


@contextmanager
def running(recorder: Recorder) -> Iterator[int]:
    """Run the service that takes notes until the block ends, and return its port."""
    with make_server("127.0.0.1", 0, recorder, threaded=True) as live:
        thread = threading.Thread(target=live.serve_forever)
        thread.start()
        try:
            yield live.server_port
        finally:
            recorder.lines.put(b"")
            live.shutdown()
            thread.join()
