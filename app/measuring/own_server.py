"""A server to measure: started on a free port, always stopped with all its processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO

import httpx

from ..errors import TopthreeError
from ..settings import ROOT, Settings
from .load import RequestFailed, http_sender

START_SECONDS = 300.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.02


class ServerFailed(TopthreeError):
    """The server exited, or did not answer in time."""


@dataclass(frozen=True)
class OwnServer:
    """A running `topthree serve` in its own process group."""

    url: str
    process: subprocess.Popen[bytes]
    started: float
    log_file: IO[bytes]

    @property
    def log(self) -> str:
        """Return the log so far."""
        # The server shares the offset of the file, so reading must not move it.
        size = os.fstat(self.log_file.fileno()).st_size
        return os.pread(self.log_file.fileno(), size, 0).decode(errors="replace")

    def wait_for_answer(self, photo: bytes) -> float:
        """Send one photo until it is answered; return the seconds since the start.

        Raises RequestFailed if the answer is an error other than 503, and ServerFailed if there is no answer in time.
        """
        make_sender = http_sender(self.url)

        def ask() -> None:
            with make_sender() as send:
                send(photo)

        return self._wait(ask)

    def wait_until_ready(self) -> float:
        """Ask `/readyz` until it answers 200; return the seconds since the start."""

        def ask() -> None:
            status = httpx.get(f"{self.url}/readyz").status_code
            if status != HTTPStatus.OK:
                raise RequestFailed(status)

        return self._wait(ask)

    def _wait(self, ask: Callable[[], object]) -> float:
        while time.monotonic() - self.started < START_SECONDS:
            try:
                ask()
            except (OSError, httpx.TransportError, RequestFailed) as error:
                if isinstance(error, RequestFailed) and error.status != HTTPStatus.SERVICE_UNAVAILABLE:
                    raise
                if self.process.poll() is not None:
                    raise ServerFailed("The server exited before it answered.") from None
                time.sleep(POLL_SECONDS)
            else:
                return time.monotonic() - self.started
        raise ServerFailed(f"The server did not answer within {START_SECONDS:.0f} seconds.")

    def memory_mb(self) -> float:
        """Return the sum of the memory of all its processes, in 2^20 bytes."""
        return round(sum(process_memory_mb(pid) for pid in _session(self.process.pid)), 1)


@contextmanager
def own_server(settings: Settings) -> Iterator[OwnServer]:
    """Run `topthree serve` on a free port of the loopback address, and stop all its processes at the end."""
    port = free_port()
    environment = settings.for_child(host="127.0.0.1", port=port)
    command = [sys.executable, "-m", "app", "serve"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log, start_new_session=True)
        try:
            yield OwnServer(f"http://127.0.0.1:{port}", process, time.monotonic(), log)
        except ServerFailed as error:
            raise ServerFailed(f"{error} Its last line: {_last_line(log)}") from error
        finally:
            _stop(process)


def process_memory_mb(pid: int) -> float:
    """Return the proportional set size of a process in 2^20 bytes: shared memory is divided by its number of users."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0.0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return round(int(found[1]) / 1024, 1) if found else 0.0


def free_port() -> int:
    """Return a port of the loopback address that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    return (log.read().decode(errors="replace").strip().splitlines() or ["(empty)"])[-1]


def _session(session: int) -> Iterator[int]:
    """Yield the processes of a session; a process group is not enough, since decoders have groups of their own."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == session:
                yield int(folder.name)
        except ProcessLookupError:
            continue
