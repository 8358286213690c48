"""How many processes and threads this machine, or the container's share of it, has room for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .settings import Settings

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Plan:
    """What to start: `workers` processes, each with `threads` for requests and `compute_threads` for the model."""

    cpus: int
    workers: int
    threads: int
    compute_threads: int


def make_plan(settings: Settings, cpus: int | None = None) -> Plan:
    """Share the processors out, so that the model's threads of all workers together do not exceed them."""
    cpus = cpus or available_cpus()
    # Request threads mostly wait: for a slow client's bytes, or for the model. Sixteen at least, so that a few
    # slow clients and the probes do not take the places of all others.
    threads = settings.threads or max(16, 4 * cpus)
    return Plan(cpus, settings.workers, threads, max(1, cpus // settings.workers))


def available_cpus(root: Path = CGROUP_ROOT, own: Path = OWN_CGROUP) -> int:
    """Count the processors that may be used: the affinity mask, or the cgroup's quota where that is less.

    A quota of a fraction counts as one; 2.5 processors count as 2, since a third thread would only be throttled.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(_quotas(root, own), default=math.inf)
    return max(1, min(affinity, int(quota) if quota != math.inf else affinity))


def _quotas(root: Path, own: Path) -> Iterator[float]:
    """Read the CPU quotas, in processors, of our cgroup and all above it (version 2, then version 1)."""
    for folder in _own_folders(root, own):
        text = _read(folder / "cpu.max").split()
        if len(text) == 2 and text[0].isdigit():
            yield int(text[0]) / int(text[1])
    quota, period = (
        _read(root / "cpu/cpu.cfs_quota_us").strip(),
        _read(root / "cpu/cpu.cfs_period_us").strip(),
    )
    if quota.isdigit() and period.isdigit():
        yield int(quota) / int(period)


def _own_folders(root: Path, own: Path) -> Iterator[Path]:
    line = next((line for line in _read(own).splitlines() if line.startswith("0::/")), "0::/")
    folder = root / line.removeprefix("0::/")
    yield folder
    while folder != root and root in folder.parents:
        folder = folder.parent
        yield folder


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
