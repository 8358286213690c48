"""`ShardLocks`: one lock for each shard, so that several processes and machines can share one output folder.

All are bytes of one file, locked by fcntl: the system releases them when the process ends, however it ends, and
network file systems know them too.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ..errors import BatchStopped

FILE = ".locks"


class ShardLocks:
    """The locks of an output folder. Open them once in a process: closing the file releases all that it holds."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BatchStopped(f"{self._path} cannot be written: {error.strerror}.") from error

    def take(self, shard: int) -> bool:
        """Lock a shard, and return whether it succeeded; it does not if another process holds it.

        Raises BatchStopped if the file system has no locks.
        """
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, shard)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        except OSError as error:
            raise BatchStopped(f"{self._path} cannot be locked: {error.strerror}.") from error
        return True

    def release(self, shard: int) -> None:
        """Unlock a shard."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, shard)

    def close(self) -> None:
        """Release all locks."""
        os.close(self._descriptor)
