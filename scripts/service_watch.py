"""Measure, from another process, the memory and processor time of a service and how soon it answers its probe."""

from __future__ import annotations

import http.client
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

from app.measuring.own_server import OwnServer, process_memory_mb

PAUSE_SECONDS = 0.1
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
QUIET_SECONDS = 0.3
DECODER = b"app.photos.decoder"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Seen:
    """The largest memory of all processes together, and the slowest probe, in some time."""

    memory_mb: float
    probe_ms: float


class Watch:
    """The connection to the watching process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def seen(self) -> Seen:
        """Return the maxima since the last call."""
        self._connection.send("seen")
        found: Seen = self._connection.recv()
        return found

    def stop(self) -> None:
        """End the watching process."""
        self._connection.send("stop")


@contextmanager
def watching(server: OwnServer) -> Iterator[Watch]:
    """Watch a service as long as the context lasts."""
    ours, theirs = multiprocessing.Pipe()
    arguments = (server.url, server.process.pid, theirs)
    process = multiprocessing.get_context("spawn").Process(target=_watch, args=arguments)
    process.start()
    watch = Watch(ours)
    watch.seen()  # it has started
    try:
        yield watch
    finally:
        watch.stop()
        process.join()


def _watch(url: str, group: int, connection: Connection) -> None:
    """Measure again and again, and answer when asked."""
    hurry()
    memory = probe = 0.0
    while True:
        memory = max(memory, sum(map(process_memory_mb, members(group))))
        probe = max(probe, probe_ms(url))
        if connection.poll(PAUSE_SECONDS):
            if connection.recv() == "stop":
                return
            connection.send(Seen(memory, probe))
            memory = probe = 0.0


def hurry() -> None:
    """Let this process go before others, where it may: a watcher that waits for a processor measures late.

    Linux compares processes of different sessions by the niceness of their groups (sched(7), autogroup).
    """
    with suppress(PermissionError):
        os.nice(-10)
    with suppress(OSError):
        os.setsid()
        Path("/proc/self/autogroup").write_text("-10", encoding="ascii")


def probe_ms(url: str) -> float:
    """Ask `/healthz` once; return the milliseconds, infinite if it does not answer 200."""
    began = time.monotonic()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return float("inf")
    finally:
        connection.close()
    return 1000 * (time.monotonic() - began) if response.status == 200 else float("inf")


def members(group: int) -> list[int]:
    """List the processes of a session; a service that we start has its own."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError):
            if os.getsid(int(folder.name)) == group:
                found.append(int(folder.name))
    return found


def decoders(group: int) -> list[int]:
    """List the decoders of a service: the children of its fork servers."""
    named = {pid for pid in members(group) if DECODER in _read(pid, "cmdline")}
    return sorted(pid for pid in named if parent_of(pid) in named)


def processor_seconds(group: int) -> float:
    """Return the processor time of the processes of a group and of their children that have exited."""
    fields = (_stat(pid)[11:15] for pid in members(group))
    return TICK_SECONDS * sum(int(ticks) for each in fields for ticks in each)


def settled_processor_seconds(group: int, patience: float = 10.0) -> float:
    """Wait until a group is nearly idle, and return its processor time."""
    end, before = time.monotonic() + patience, processor_seconds(group)
    while True:
        time.sleep(QUIET_SECONDS)
        now = processor_seconds(group)
        if now - before <= 0.2 * QUIET_SECONDS or time.monotonic() > end:
            return now
        before = now


def parent_of(pid: int) -> int:
    """Return the process id of the parent of a process, or 0 if the process has exited."""
    return int((_stat(pid) or [b"", b"0"])[1])


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, or 0 if it has exited."""
    return PAGE_BYTES * int((_read(pid, "statm").split() or [b"", b"0"])[1])


def _stat(pid: int) -> list[bytes]:
    """Read the fields of proc(5)'s stat from the third on, which follow the name's parenthesis."""
    return _read(pid, "stat").rpartition(b")")[2].split()


def _read(pid: int, name: str) -> bytes:
    """Return a file of a process, empty if it has exited."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""
