"""The plan: how many processes and threads fit this machine, or the container's share of it."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import PlanError
from ..parsers import base64_length
from ..settings import Settings

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
GPU_DEVICE = Path("/dev/nvidiactl")

# One photo more than there are processors is decoded or answered while the others are computed: it fills the pauses
# in which a result is handed over, so that no processor is idle. Two more only slow each other down.
SPARE_SLOTS = 1
# The memory of the service under load without photos (docs/performance.md), rounded up. Half of the rest is for
# photos, half for uploads in flight, which may be there twice: as a body and its parts, or once more in a decoder.
_SERVICE_MEMORY = 512 * 2**20
# A photo of 4 megapixels in the most costly format.
_MIN_PHOTO_MEMORY = 64 * 2**20
# In 192 MiB the system killed each worker while it loaded the float32 model; with 256 MiB photos were answered.
_MIN_PROCESS_MEMORY = 224 * 2**20
# The device process with torch on a CPU and ResNet-18 has 444 MiB that the system cannot drop (Private_Dirty). On a
# GPU CUDA's libraries come to it, but no worker has a model: all processes of 8 workers had 2.1 to 2.4 GB (PSS,
# docs/bench/gpu.txt), and the sum for them is 2.4 GB.
_DEVICE_MEMORY = 512 * 2**20
# On a machine with a GPU: HTTP takes a fifth of a photo's processor time, decoding most of the rest, and a worker uses
# little more than one processor. More workers than this share no more work, and each takes memory.
_CPUS_PER_WORKER, _MAX_WORKERS = 2, 16
# Threads beyond those of admitted requests: they answer probes and pages, and reject further requests.
SPARE_THREADS = 16


@dataclass(frozen=True)
class Plan:
    """The processes to start: `workers`, each with `threads` for requests and its share of the processors.

    A worker computes up to `cpus_per_worker` photos at once, with one thread per photo; a lone photo uses every
    processor. It admits `max_requests`, of which `max_waiting` wait. It has `decoders` processes that decode photos,
    and `photo_memory_bytes` for photos that need more memory than most while they are decoded. Uploads in flight have
    up to `upload_bytes` together. `has_device` is whether one device process computes for all workers. The graphs of
    fine-tuned models that are opened on use take up to `graph_memory_bytes`, as `graph_bytes` estimates them.
    """

    cpus: int
    memory_bytes: int | None
    workers: int
    threads: int
    cpus_per_worker: int
    max_waiting: int
    max_requests: int
    decoders: int
    photo_memory_bytes: int
    upload_bytes: int
    has_device: bool
    graph_memory_bytes: int


def make_plan(settings: Settings) -> Plan:
    """Divide the processors among the workers, so that the model's threads of all workers do not exceed them."""
    cpus = available_cpus()
    workers = settings.workers or _automatic_workers(settings.engine, cpus)
    cpus_per_worker = max(1, cpus // workers)
    max_requests = settings.max_waiting + cpus_per_worker + SPARE_SLOTS
    memory_bytes = memory_limit()
    limit_bytes = memory_bytes or _physical_memory()
    photo_memory_bytes = _photo_memory(limit_bytes) // workers
    upload_bytes = _upload_bytes(settings, photo_memory_bytes)
    return Plan(
        cpus=cpus,
        memory_bytes=memory_bytes,
        workers=workers,
        # Request threads mostly wait for their turn.
        threads=max_requests + SPARE_THREADS,
        cpus_per_worker=cpus_per_worker,
        max_waiting=settings.max_waiting,
        max_requests=max_requests,
        decoders=cpus_per_worker + SPARE_SLOTS,
        photo_memory_bytes=photo_memory_bytes,
        upload_bytes=upload_bytes,
        has_device=has_device(settings.engine),
        graph_memory_bytes=_graph_memory(limit_bytes, workers, photo_memory_bytes + 2 * upload_bytes),
    )


def choose_engine(asked: str) -> str:
    """Turn 'auto' into 'torch' on a machine with an NVIDIA GPU, else into 'openvino'."""
    if asked != "auto":
        return asked
    return "torch" if GPU_DEVICE.exists() else "openvino"


def has_device(engine: str) -> bool:
    """Return whether a service computes in a device process: with torch, on Linux, whose sockets it needs."""
    return choose_engine(engine) == "torch" and sys.platform == "linux"


def _automatic_workers(engine: str, cpus: int) -> int:
    """Return one worker, whose graphs use all processors; on a GPU's machine some for HTTP and decoding."""
    is_fed_by_many = choose_engine(engine) == "torch" and GPU_DEVICE.exists()
    return max(1, min(_MAX_WORKERS, cpus // _CPUS_PER_WORKER)) if is_fed_by_many else 1


def check_memory(plan: Plan) -> None:
    """Raise PlanError if the memory limit is too small for the processes of the plan.

    Otherwise the system would kill them one after the other, without a reason in the log.
    """
    needed_bytes = _MIN_PROCESS_MEMORY * plan.workers + _DEVICE_MEMORY * plan.has_device
    if plan.memory_bytes is not None and plan.memory_bytes < needed_bytes:
        limit, needed = plan.memory_bytes / 2**20, needed_bytes / 2**20
        processes = (
            "a process with the model needs" if plan.workers == 1 else f"{plan.workers} processes with the model need"
        )
        raise PlanError(f"The memory limit is {limit:,.0f} MiB; {processes} at least {needed:,.0f} MiB.")


def describe_plan(plan: Plan) -> str:
    """Describe the plan in a few lines, for operators."""
    memory = f"{plan.memory_bytes / 2**20:,.0f} MiB" if plan.memory_bytes else "no limit"
    return (
        f"processors: {plan.cpus}; memory: {memory}\n"
        f"server processes: {plan.workers}; request threads in each: {plan.threads}\n"
        f"{_describe_computing(plan)}\n"
        f"decoders in each: {plan.decoders}, with {plan.photo_memory_bytes / 2**20:,.0f} MiB of memory\n"
        f"waiting requests in each: up to {plan.max_waiting}, with {plan.upload_bytes / 2**20:,.0f} MiB of uploads; "
        "further ones get 503\n"
        "fine-tuned models in each: at least one, and more while all of them fit into "
        f"{plan.graph_memory_bytes / 2**20:,.0f} MiB of memory"
    )


def _describe_computing(plan: Plan) -> str:
    if plan.has_device:
        device = "the GPU" if GPU_DEVICE.exists() else "the processors"
        return f"device process: one, which computes on {device} for all of them, in batches of what waits"
    return (
        f"photos at once in each: {plan.cpus_per_worker}, with one thread per photo; "
        f"threads of a lone photo: {plan.cpus}"
    )


def _photo_memory(limit_bytes: int) -> int:
    """Return the memory for all photos that are being decoded: half of what the service itself leaves."""
    return max(_MIN_PHOTO_MEMORY, (limit_bytes - _SERVICE_MEMORY) // 2)


def _graph_memory(limit_bytes: int, workers: int, taken_bytes: int) -> int:
    """Return the memory of one process for graphs that are opened on use: what others leave, up to a quarter."""
    share_bytes = max(0, limit_bytes - _SERVICE_MEMORY) // workers
    return max(0, min(share_bytes // 4, share_bytes - taken_bytes))


def graph_bytes(plan: Plan, weights_bytes: int) -> int:
    """Estimate the memory of a model's graphs, of which there is one for each processor and one for a lone photo.

    Measured with ResNet-18 in float32: 53 MiB a graph and 45 MiB besides, for weights of 45 MiB.
    """
    graphs = plan.cpus_per_worker + (plan.cpus > 1)
    return round(weights_bytes * (1 + 1.2 * graphs))


def _upload_bytes(settings: Settings, photo_memory_bytes: int) -> int:
    """Return the bytes of all uploads of one process: enough for the largest, and no more than its setting."""
    largest = max(settings.max_batch_bytes, base64_length(settings.max_upload_bytes))
    return min(settings.max_waiting_bytes, max(largest, photo_memory_bytes // 2))


def _physical_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def available_cpus(root: Path = CGROUP_ROOT, own: Path = OWN_CGROUP) -> int:
    """Count the processors that may be used: the affinity mask, or the cgroup's quota if that is less.

    A quota of a fraction counts as one; 2.5 processors count as 2, since a third thread would only be throttled.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(_quotas(root, own), default=math.inf)
    return max(1, min(affinity, int(quota) if quota != math.inf else affinity))


def memory_limit(root: Path = CGROUP_ROOT, own: Path = OWN_CGROUP) -> int | None:
    """Return the memory limit of our cgroup in bytes, or None if there is none."""
    texts = [_read(folder / "memory.max").strip() for folder in _own_folders(root, own)]
    texts += [_read(folder / "memory.limit_in_bytes").strip() for folder in _own_folders(root, own, "memory")]
    # Version 1 says "no limit" by a number near 2^63.
    limits = [int(text) for text in texts if text.isdigit() and int(text) < 1 << 60]
    return min(limits, default=None)


def _quotas(root: Path, own: Path) -> Iterator[float]:
    """Read the CPU quotas, in processors, of our cgroup and all above it (version 2, then version 1)."""
    for folder in _own_folders(root, own):
        text = _read(folder / "cpu.max").split()
        if len(text) == 2 and text[0].isdigit():
            yield int(text[0]) / int(text[1])
    for folder in _own_folders(root, own, "cpu"):
        quota, period = (_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _own_folders(root: Path, own: Path, controller: str = "") -> Iterator[Path]:
    """Yield the folder of our cgroup and all above it: of version 2, or of a controller of version 1 (cgroups(7))."""
    entries = [line.split(":", 2) for line in _read(own).splitlines()]
    path = next((entry[2] for entry in entries if len(entry) == 3 and controller in entry[1].split(",")), "/")
    top = root / controller
    folder = top / path.lstrip("/")
    yield folder
    while folder != top and top in folder.parents:
        folder = folder.parent
        yield folder


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
