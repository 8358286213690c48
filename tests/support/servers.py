"""Real servers for live tests: started on a free port, always ended with all their processes."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
GUNICORN = (sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"))
TOPTHREE = (sys.executable, "-m", "app")
TOPTHREE_SERVE = (*TOPTHREE, "serve")
# The first start prepares the model with torch, on a machine that runs other tests beside it.
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Server:
    """A running server: its address, its process, and the file that its log goes to."""

    port: int
    process: subprocess.Popen[bytes]
    log_file: Path
    started: float

    @property
    def url(self) -> str:
        """The address of the first page, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What was logged so far."""
        return self.log_file.read_text(encoding="utf-8")

    @property
    def workers(self) -> list[int]:
        """The process ids of all workers that were ever started, the first first."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.log)]

    def wait_for_log(self, text: str, times: int = 1) -> None:
        """Wait until the log holds a text."""
        self.wait_for(lambda: self.log.count(text) >= times, f"'{text}' in the log")

    def wait_until_ready(self) -> httpx.Response:
        """Wait until `/readyz` answers 200, and return that answer."""
        self.wait_for(lambda: self._status("/readyz") == 200, "readiness")
        return httpx.get(f"{self.url}/readyz")

    def wait_until_accepting(self) -> float:
        """Wait until connections are accepted, and return the seconds since the start."""
        self.wait_for(self._accepts, "a connection")
        return time.monotonic() - self.started

    def _status(self, path: str) -> int | None:
        with suppress(httpx.TransportError):
            return httpx.get(self.url + path, timeout=PATIENCE_SECONDS).status_code
        return None

    def _accepts(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds; fails when the server ends or it takes too long."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert self.process.poll() is None, f"The server left with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"No {what} within {PATIENCE_SECONDS} s:\n{self.log}"
            time.sleep(POLL_SECONDS)


def free_port() -> int:
    """Find a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def environment(cache: Path, **settings: object) -> dict[str, str]:
    """Make a child's environment: settings without their prefix in lower case, and every cache in one folder."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("TOPTHREE_") and k != "TORCH_HOME"}
    values = {f"TOPTHREE_{name.upper()}": str(value) for name, value in settings.items()}
    folders = {"XDG_CACHE_HOME": str(cache), "XDG_RUNTIME_DIR": str(cache), "TOPTHREE_CACHE": str(cache)}
    return own | folders | values


@contextmanager
def serving(
    cache: Path, log_file: Path, *, command: Sequence[str] = GUNICORN, folder: Path = ROOT, **settings: object
) -> Iterator[Server]:
    """Run a server on a free port until the block ends, and leave no process of it behind; it starts in a folder."""
    port = free_port()
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(cache, port=port, **settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Server(port, process, log_file, time.monotonic())
    finally:
        _end(process)


def send_with_httpx(url: str, body: bytes, content_type: str, *, chunked: bool) -> tuple[int, str]:
    """Send a body with a client that reads while it sends, and return status and text."""
    content = _pieces(body) if chunked else body
    answer = httpx.post(url, content=content, headers={"Content-Type": content_type}, timeout=PATIENCE_SECONDS)
    return answer.status_code, answer.text


def send_with_http_client(url: str, body: bytes, content_type: str, *, chunked: bool) -> tuple[int, str]:
    """Send a body with a client that, as browsers do, reads nothing before all is sent."""
    address = httpx.URL(url)
    connection = http.client.HTTPConnection(address.host, address.port, timeout=PATIENCE_SECONDS)
    headers = {"Content-Type": content_type} | ({"Transfer-Encoding": "chunked"} if chunked else {})
    with closing(connection):
        connection.request("POST", address.path, _pieces(body) if chunked else body, headers, encode_chunked=chunked)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def send_with_curl(url: str, body: bytes, content_type: str, *, chunked: bool) -> tuple[int, str]:
    """Send a body with curl, which stops sending when it is refused."""
    headers = [f"Content-Type: {content_type}", *(["Transfer-Encoding: chunked"] if chunked else [])]
    options = [option for header in headers for option in ("-H", header)]
    command = ["curl", "-sS", "-w", "%{stderr}%{http_code}", *options, "--data-binary", "@-", url]
    curl = subprocess.run(command, input=body, capture_output=True, check=True)
    return int(curl.stderr), curl.stdout.decode()


CLIENTS = [send_with_httpx, send_with_http_client, *([send_with_curl] if shutil.which("curl") else [])]


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 1 << 16):
        yield body[start : start + (1 << 16)]


def assert_nothing_is_left(server: Server) -> None:
    """Assert that no process is left of a server that has ended, a moment for the system's reaper granted."""
    deadline = time.monotonic() + 5
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(server.process.pid, 0)
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"A process of the server lives on:\n{server.log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):  # what has not ended by then is killed, with all that it started
        process.wait(timeout=20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
