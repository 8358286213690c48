"""The fork server: a small clean process from which others are forked.

It is started by `exec`, so that nothing of the worker is in its memory: no keys, no settings, no model. It imports
the module that its children run, once, and forks a child in milliseconds whenever the worker asks. It has one thread,
and its children end with it. When the worker ends, the control socket closes, and the fork server ends.

    worker                              fork server
    FORK, with a socket and a block ->  fork; FORKED pid, or FAILED errno
    KILL pid                        ->  SIGKILL, if that child still runs
                                    <-  EXITED pid, wait status

The standard library's `multiprocessing.forkserver` is not used: it imports the worker's main module into each child,
hands the whole environment on, and pickles what is sent.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from enum import IntEnum
from typing import BinaryIO, Protocol

from . import sandbox
from .channel import Channel, Disconnected
from .memory import limit_heaps

log = logging.getLogger(__name__)

_MAX_ERROR_BYTES = 8 * 1024
_COMMAND = struct.Struct("=Bq")
_EVENT = struct.Struct("=Bqq")


class Command(IntEnum):
    """The commands of a worker; each comes with a process id."""

    FORK = 1
    KILL = 2


class Event(IntEnum):
    """The reports of the fork server; each comes with a process id and a wait status, or with an errno."""

    FORKED = 1
    FAILED = 2
    EXITED = 3


class Service(Protocol):
    """A module whose `serve` is run in each child."""

    def serve(self, channel: Channel) -> None:
        """Enter the sandbox, then answer requests until the worker closes the channel."""


class ForkServer:
    """The worker's side."""

    def __init__(self, module: str, input_bytes: int, *, extra_modules: tuple[str, ...] = ()) -> None:
        self._socket, theirs = socket.socketpair()
        # Not the worker's: a traceback would be many lines of no form in its log.
        self._errors = _memory_file()
        self._closing = threading.Lock()
        arguments = [
            sys.executable,
            "-P",
            "-m",
            __name__,
            str(theirs.fileno()),
            str(input_bytes),
            module,
            *extra_modules,
        ]
        with theirs:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[theirs.fileno()],
                # Linear algebra on one thread: a process that forks may have no other.
                env={"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "OPENBLAS_NUM_THREADS": "1"},
                cwd="/",
                # Ctrl-C in a terminal is for the worker, also while this starts. Not a session of its own: the kernel
                # shares processors out by sessions (sched(7), autogroup), and the lowest priority would mean little.
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def fork(self, sock: socket.socket, block: int) -> None:
        """Ask for a child that serves a channel of this socket and block; raises OSError."""
        socket.send_fds(self._socket, [_COMMAND.pack(Command.FORK, 0)], [sock.fileno(), block])

    def kill(self, pid: int) -> None:
        """Ask for the end of a child; one that has ended already is not touched."""
        with suppress(OSError):  # the fork server has ended, and its children with it
            self._socket.sendall(_COMMAND.pack(Command.KILL, pid))

    def events(self, timeout: float | None = None) -> tuple[Event, int, int]:
        """Wait for the next event; raises TimeoutError, and Disconnected when the fork server has ended."""
        try:
            self._socket.settimeout(timeout)
            data = self._socket.recv(_EVENT.size, socket.MSG_WAITALL)
        except TimeoutError:
            raise
        except OSError as error:
            raise Disconnected from error
        if len(data) < _EVENT.size:
            raise Disconnected
        kind, first, second = _EVENT.unpack(data)
        return Event(kind), first, second

    def close(self) -> None:
        """End the fork server and its children, wait for it, and log what it wrote to standard error."""
        with suppress(OSError):  # a thread that waits for events wakes up
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.kill()
        self._process.wait()
        self._socket.close()
        self._log_errors()

    def _log_errors(self) -> None:
        with self._closing:
            if self._errors.closed:  # two threads may close at once
                return
            with self._errors:
                self._errors.seek(0)
                text = self._errors.read(_MAX_ERROR_BYTES).decode("utf-8", "replace").strip()
        if text:
            log.warning("The process that starts the decoders wrote: %s", text)


def _memory_file() -> BinaryIO:
    """Open a file without a name, in memory where the system can."""
    if not hasattr(os, "memfd_create"):
        return tempfile.TemporaryFile()
    return os.fdopen(os.memfd_create("topthree-errors", os.MFD_CLOEXEC), "w+b")


def main(control: int, input_bytes: int, module: str, *extra_modules: str) -> None:
    """Run the fork server until the control socket closes."""
    limit_heaps()
    service: Service = importlib.import_module(module)
    for name in extra_modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection would write into every object, and so copy the pages that all children share
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)  # the worker alone decides when this ends
    children: set[int] = set()
    with closing(socket.socket(fileno=control)) as sock, selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if woken in ready:
                _drain(woken)
                for pid, status in _ended(children):
                    sock.sendall(_EVENT.pack(Event.EXITED, pid, status))
            if sock in ready and not _obey(sock, children, service, input_bytes):
                return


def _obey(sock: socket.socket, children: set[int], service: Service, input_bytes: int) -> bool:
    """Carry out one command; return False when the worker has ended."""
    try:
        data, descriptors, _, _ = socket.recv_fds(sock, _COMMAND.size, 2)
        if len(data) < _COMMAND.size:
            return False
        command, pid = _COMMAND.unpack(data)
        if command == Command.KILL:
            if pid in children:
                os.kill(pid, signal.SIGKILL)
            return True
        try:
            child = os.fork()
        except OSError as error:
            sock.sendall(_EVENT.pack(Event.FAILED, error.errno, 0))
        else:
            if child == 0:
                _become_child(service, descriptors, input_bytes)
            children.add(child)
            sock.sendall(_EVENT.pack(Event.FORKED, child, 0))
        for descriptor in descriptors:
            os.close(descriptor)
    except ConnectionError:  # the worker has ended
        return False
    return True


def _ended(children: set[int]) -> Iterator[tuple[int, int]]:
    """Yield the children that have ended, with their wait status."""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        children.discard(pid)
        yield pid, status


def _drain(pipe: int) -> None:
    with suppress(BlockingIOError):
        while os.read(pipe, 64):
            continue


def _become_child(service: Service, descriptors: list[int], input_bytes: int) -> None:
    """Keep nothing open but the channel, serve until the worker closes it, and end the process; never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sandbox.be_killed_first()
        sandbox.die_with_parent()
        if os.getppid() == 1:  # the fork server ended before `die_with_parent` took effect
            return
        _close_all_but(descriptors)
        channel = Channel(socket.socket(fileno=descriptors[0]), descriptors[1], input_bytes)
        os.close(descriptors[1])
        service.serve(channel)
        status = 0
    finally:
        os._exit(status)


def _close_all_but(descriptors: list[int]) -> None:
    """Close every file but these; the standard ones become /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    start = 3
    for descriptor in sorted(descriptors):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
