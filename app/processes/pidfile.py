"""The file by which `topthree drain` finds the running service and has it serve or drain.

gunicorn's own file would prevent a start if an old one names a living process, even of another program. This file is
locked while the master lives (a POSIX lock: workers do not inherit it, and the system releases it when the master
ends in any way), so that a leftover file is recognised, and no process of another program is ever signalled.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_MAX_BYTES = 64
_SERVING, _DRAINING = "serving", "draining"


class PidFile:
    """An open file of two lines: the master's process number, and whether it is to serve or to drain."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @property
    def pid(self) -> int:
        """Return the master's process number."""
        return int(self._read().split()[0])

    @property
    def is_draining(self) -> bool:
        """Return whether the service is to drain."""
        return _DRAINING in self._read()

    def want(self, *, draining: bool) -> None:
        """Write whether the service is to serve or to drain; the master reads it when it gets SIGUSR1."""
        self._write(self.pid, _DRAINING if draining else _SERVING)

    def remove(self) -> None:
        """Remove the file, unless a later master has replaced it, and release the lock."""
        with suppress(OSError):
            if os.path.samestat(os.stat(self.path), os.fstat(self._descriptor)):
                self.path.unlink()
        os.close(self._descriptor)

    def _read(self) -> str:
        return os.pread(self._descriptor, _MAX_BYTES, 0).decode("ascii", errors="replace")

    def _write(self, pid: int, state: str) -> None:
        text = f"{pid}\n{state}\n".encode("ascii")
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))


def publish(environment: Mapping[str, str], host: str, port: int) -> PidFile:
    """Write and lock the file of this process; raises OSError if that fails.

    The caller must listen at that address: only then may its file replace an existing one.
    """
    path = next(_paths(environment, host, port))
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file = PidFile(path, descriptor)
        file._write(os.getpid(), _SERVING)
        os.replace(name, path)
    except OSError:
        os.close(descriptor)
        os.unlink(name)
        raise
    return file


def find(environment: Mapping[str, str], host: str, port: int) -> PidFile | None:
    """Return the file of the service that this user runs at an address, or None if none runs."""
    for path in _paths(environment, host, port):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            if _is_ours(descriptor) and _is_locked(descriptor):
                return PidFile(path, descriptor)
            os.close(descriptor)
    return None


def _paths(environment: Mapping[str, str], host: str, port: int) -> Iterator[Path]:
    """Yield the possible paths of the file: the reader's environment may differ from the writer's."""
    name = f"topthree-{os.geteuid()}-{host.strip('[]')}-{port}.pid"
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK):
        yield Path(runtime) / name
    yield Path(tempfile.gettempdir()) / name


def _is_ours(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.lockf(descriptor, fcntl.LOCK_UN)
    return False
