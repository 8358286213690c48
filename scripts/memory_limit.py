"""A memory limit for a process and its children, if the system allows one: a control group of Linux."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MAX_END_SECONDS = 10.0
ROOT = Path("/sys/fs/cgroup")
# The names of the limit, of the largest use so far, and of the file that counts kills, in both versions.
NAMES = {
    1: ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    2: ("memory.max", "memory.peak", "memory.events"),
}


@dataclass(frozen=True)
class Group:
    """A control group with a limit."""

    folder: Path
    version: int

    @property
    def peak_mb(self) -> float:
        """Return the maximum use so far, with cached files, in 2^20 bytes."""
        path = self.folder / NAMES[self.version][1]
        return int(path.read_text(encoding="ascii")) / 2**20 if path.exists() else 0.0

    @property
    def kills(self) -> int:
        """Return the number of processes that the system has killed for lack of memory."""
        lines = (self.folder / NAMES[self.version][2]).read_text(encoding="ascii").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextmanager
def born_limited(limit_bytes: int) -> Iterator[Group | None]:
    """Limit the memory of the processes that are started within the context; yields None if that is not allowed.

    This process itself is under it too, until `leave`.
    """
    group = _make(limit_bytes)
    try:
        if group:
            _enter(group.folder)
        yield group
    finally:
        leave(group)
        if group:
            _remove(group.folder)


def _remove(folder: Path) -> None:
    """Remove a group; a process that was killed a moment ago may still be in it."""
    end = time.monotonic() + MAX_END_SECONDS
    while (folder / "cgroup.procs").read_text(encoding="ascii") and time.monotonic() < end:
        time.sleep(0.05)
    folder.rmdir()


def leave(group: Group | None) -> None:
    """Take this process out of the limit; its children stay."""
    if group:
        _enter(group.folder.parent)


def _make(limit_bytes: int) -> Group | None:
    for version in NAMES:
        folder = _own_folder(version) / f"topthree-trial-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / NAMES[version][0]).write_text(str(limit_bytes), encoding="ascii")
        except OSError:  # no memory controller
            folder.rmdir()
            continue
        return Group(folder, version)
    return None


def _own_folder(version: int) -> Path:
    """Return the folder of this process's group, or the nearest above it that is mounted."""
    mount = ROOT / "memory" if version == 1 else ROOT
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        number, controllers, path = line.split(":", 2)
        if (version == 1 and controllers == "memory") or (version == 2 and number == "0"):
            folder = mount / path.lstrip("/")
            return folder if folder.is_dir() else mount
    return mount


def _enter(folder: Path) -> None:
    (folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
