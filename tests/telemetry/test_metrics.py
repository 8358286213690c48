"""Metrics of one process and of several together, without gauges of processes that have ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = "dict(name={name!r}, weights_sha256='0', engine='fake', precision='fp32')"


def run(code: str, folder: Path | None = None) -> str:
    """Run code in a process of its own, which counts in this folder, and return what it prints."""
    environment = os.environ | ({"PROMETHEUS_MULTIPROC_DIR": str(folder)} if folder else {})
    command = [sys.executable, "-c", "from app.telemetry import metrics\n" + code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True, text=True).stdout


SHOW = "print(metrics.render('')[0].decode())"


def test_counts_of_several_processes_add_up_and_outlive_them(tmp_path: Path) -> None:
    for process, count in (("0", 3), ("1", 4), ("0", 5)):
        run(f"metrics.share('{process}')\nfor _ in range({count}): metrics.count_cache('hit')", tmp_path)
    shown = run(f"metrics.share('2')\n{SHOW}", tmp_path)
    assert 'topthree_cache_lookups_total{source="hit"} 12.0' in shown
    assert {path.name.rpartition("_")[2] for path in tmp_path.iterdir()} == {"0.db", "1.db", "2.db"}


def test_gauges_end_with_their_process(tmp_path: Path) -> None:
    run("metrics.share('0')\nmetrics.request_started()\nmetrics.count_restart()", tmp_path)
    shown = run(f"metrics.share('1')\nmetrics.forget_process('0')\nmetrics.request_started()\n{SHOW}", tmp_path)
    assert "topthree_requests_in_progress 1.0" in shown
    assert "topthree_worker_restarts_total 1.0" in shown


@pytest.mark.parametrize("shared", [False, True])
def test_model_that_was_replaced_is_no_longer_shown(tmp_path: Path, shared: bool) -> None:
    first, second = MODEL.format(name="old"), MODEL.format(name="new")
    start = "metrics.share('0')\n" if shared else ""
    shown = run(f"{start}metrics.set_models([{first}])\nmetrics.set_models([{second}])\n{SHOW}", tmp_path)
    assert 'name="new"' in shown
    assert 'name="old"' not in shown


ALL_AT_ONCE = """
import sys, threading
sys.setswitchinterval(1e-6)
start = threading.Barrier(8)
def count():
    start.wait()
    metrics.request_started()
threads = [threading.Thread(target=count) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_threads_that_count_first_at_the_same_time_lose_nothing() -> None:
    assert "topthree_requests_in_progress 8.0" in run(ALL_AT_ONCE + SHOW)


def test_openmetrics_is_written_on_request() -> None:
    shown = run(
        "body, kind = metrics.render('application/openmetrics-text; version=1.0.0')\nprint(kind, body.decode())"
    )
    assert shown.startswith("application/openmetrics-text")
    assert shown.rstrip().endswith("# EOF")
