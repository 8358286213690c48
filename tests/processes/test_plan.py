"""The plan follows the share of the machine that the process has, not the host's size."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import PlanError
from app.processes.plan import available_cpus, check_memory, describe_plan, make_plan, memory_limit
from app.settings import Settings


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Path, Path]]:
    """Make a cgroup tree on a machine of eight processors; returns its root and our own entry in it."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    def make(own: str = "0::/", **files: str) -> tuple[Path, Path]:
        for name, text in files.items():
            path = tmp_path / "root" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        (tmp_path / "own").write_text(own + "\n")
        return tmp_path / "root", tmp_path / "own"

    return make


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({}, "0::/", 8),
        ({"cpu_dot_max": "max 100000"}, "0::/", 8),
        ({"cpu_dot_max": "200000 100000"}, "0::/", 2),
        ({"cpu_dot_max": "250000 100000"}, "0::/", 2),
        ({"cpu_dot_max": "50000 100000"}, "0::/", 1),
        ({"cpu_dot_max": "9900000 100000"}, "0::/", 8),
        ({"pod__cpu_dot_max": "300000 100000", "pod__box__cpu_dot_max": "max 100000"}, "0::/pod/box", 3),
        ({"cpu__cpu.cfs_quota_us": "400000", "cpu__cpu.cfs_period_us": "100000"}, "4:cpu:/", 4),
        ({"cpu__pod__cpu.cfs_quota_us": "300000", "cpu__pod__cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/pod", 3),
        ({"cpu__cpu.cfs_quota_us": "-1", "cpu__cpu.cfs_period_us": "100000"}, "4:cpu:/", 8),
    ],
)
def test_processors_are_counted_by_affinity_and_quota(
    cgroup: Callable[..., tuple[Path, Path]], files: dict[str, str], own: str, expected: int
) -> None:
    assert available_cpus(*cgroup(own, **files)) == expected


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({}, "0::/", None),
        ({"memory_dot_max": "max"}, "0::/", None),
        ({"memory_dot_max": "536870912"}, "0::/", 536870912),
        ({"pod__memory_dot_max": "536870912"}, "0::/pod/box", 536870912),
        ({"memory__memory.limit_in_bytes": "9223372036854771712"}, "0::/", None),
        ({"memory__memory.limit_in_bytes": "1073741824"}, "0::/", 1073741824),
        ({"memory__pod__memory.limit_in_bytes": "536870912"}, "5:cpu,memory:/pod\n0::/", 536870912),
        ({"memory__memory.limit_in_bytes": "536870912"}, "5:memory:/a/path/of/the/host", 536870912),
    ],
)
def test_the_memory_limit_is_read(
    cgroup: Callable[..., tuple[Path, Path]], files: dict[str, str], own: str, expected: int | None
) -> None:
    assert memory_limit(*cgroup(own, **files)) == expected


@pytest.mark.parametrize(("workers", "each"), [(1, 6), (2, 3), (4, 1), (6, 1), (8, 1)])
def test_workers_share_the_processors_without_exceeding_them(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, workers: int, each: int
) -> None:
    monkeypatch.setattr("app.processes.plan.available_cpus", lambda: 6)
    plan = make_plan(make_settings(workers=workers))
    assert (plan.workers, plan.cpus_per_worker) == (workers, each)
    assert plan.workers * plan.cpus_per_worker <= max(plan.cpus, workers)


def test_threads_are_left_for_probes_when_the_queue_is_full(make_settings: Callable[..., Settings]) -> None:
    plan = make_plan(make_settings(max_waiting=100))
    assert plan.max_requests > plan.max_waiting + plan.cpus_per_worker
    assert plan.threads > plan.max_requests


def test_plan_is_described(make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.processes.plan.available_cpus", lambda: 4)
    monkeypatch.setattr("app.processes.plan.memory_limit", lambda: 512 * 2**20)
    text = describe_plan(make_plan(make_settings(workers=2)))
    assert "processors: 4; memory: 512 MiB" in text
    assert "server processes: 2;" in text
    assert "threads of a lone photo: 4" in text
    assert "fine-tuned models in each: at least one, and more while all of them fit into 0 MiB of memory" in text


@pytest.mark.parametrize(
    ("limit_mb", "settings", "expected_mb"),
    [
        (4096, {}, 256),  # the setting's default
        (1536, {}, 256),
        (1024, {}, 128),
        (1024, {"workers": 2}, 64),
        (512, {}, 64),  # one batch of the largest size
        (512, {"max_batch_bytes": 12 * 2**20, "max_upload_bytes": 12 * 2**20}, 32),
        (1536, {"max_waiting_bytes": 80 * 2**20}, 80),
    ],
)
def test_uploads_in_flight_have_their_part_of_the_memory(
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    limit_mb: int,
    settings: dict[str, int],
    expected_mb: int,
) -> None:
    monkeypatch.setattr("app.processes.plan.memory_limit", lambda: limit_mb * 2**20)
    plan = make_plan(make_settings(**settings))
    assert plan.upload_bytes == expected_mb * 2**20
    assert f"with {expected_mb} MiB of uploads" in describe_plan(plan)


@pytest.mark.parametrize(
    ("limit_mb", "workers", "said"),
    [
        (60, 1, "The memory limit is 60 MiB; a process with the model needs at least 224 MiB."),
        (300, 2, "The memory limit is 300 MiB; 2 processes with the model need at least 448 MiB."),
        (224, 1, ""),
        (None, 1, ""),
    ],
)
def test_a_memory_limit_without_room_for_the_model_is_refused(
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    limit_mb: int | None,
    workers: int,
    said: str,
) -> None:
    monkeypatch.setattr("app.processes.plan.memory_limit", lambda: limit_mb and limit_mb * 2**20)
    plan = make_plan(make_settings(workers=workers))
    with pytest.raises(PlanError, match=said) if said else contextlib.nullcontext():
        check_memory(plan)


@pytest.mark.parametrize(
    ("gpu", "cpus", "settings", "workers", "has_device"),
    [
        (True, 16, {}, 8, True),
        (True, 1, {}, 1, True),
        (True, 64, {}, 16, True),
        (True, 16, {"workers": 3}, 3, True),
        (True, 16, {"engine": "openvino"}, 1, False),
        (False, 16, {}, 1, False),
        (False, 16, {"engine": "torch"}, 1, True),
    ],
)
def test_a_gpu_gets_a_device_process_and_workers_by_processors(
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    gpu: bool,
    cpus: int,
    settings: dict[str, object],
    workers: int,
    has_device: bool,
) -> None:
    monkeypatch.setattr("app.processes.plan.GPU_DEVICE", tmp_path if gpu else tmp_path / "none")
    monkeypatch.setattr("app.processes.plan.available_cpus", lambda: cpus)
    plan = make_plan(make_settings(**settings))
    assert (plan.workers, plan.has_device) == (workers, has_device)
    assert ("device process: one" in describe_plan(plan)) == has_device
