"""Compare a batch on a cluster of Ray, two nodes of one processor each, with a batch on one of these processors.

    PYTHONPATH=. python scripts/measure_ray.py PHOTOS INT8.tar [--photos 3000] [--rounds 3]

The two take turns. Each line has the seconds in all, in which Ray starts its actors, and the photos per second after
the first parts; last comes the median of the paces' ratios. PHOTOS is a folder; its photos are linked under as many
names as are needed. The extras `batch` and `ray` are needed, and two processors.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench_batch import link
from pyarrow.parquet import read_metadata

from app.photos.folders import list_photos

SHARDS = 60
FIRST_PARTS = 6
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@contextmanager
def only_on(cpus: set[int]) -> Iterator[None]:
    """Let what is started in the block run on these processors alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def two_nodes(cpus: Sequence[int]) -> Iterator[str]:
    """Start a cluster with a node on each processor; yield its address."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    with only_on({cpus[0]}):
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    try:
        with only_on({cpus[1]}):
            cluster.add_node(**NODE)
        yield cluster.address
    finally:
        cluster.shutdown()


def run_batch(bundle: Path, photos: Path, output: Path, *options: str) -> tuple[float, float]:
    """Run a batch; return its seconds and its photos per second after the first parts."""
    command = [sys.executable, "-m", "app", "batch", str(photos), "--output", str(output), "--shards", str(SHARDS)]
    begin = time.monotonic()
    subprocess.run([*command, *options], env=os.environ | {"TOPTHREE_BUNDLE": str(bundle)}, check=True)
    seconds = time.monotonic() - begin
    parts = sorted(output.glob("part-*"), key=lambda part: part.stat().st_mtime_ns)
    rows = sum(read_metadata(part).num_rows for part in parts[FIRST_PARTS:])
    return seconds, rows / (parts[-1].stat().st_mtime - parts[FIRST_PARTS - 1].stat().st_mtime)


def main() -> None:
    """Let both take turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--photos", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))[:2]
    ratios = []
    with tempfile.TemporaryDirectory() as work, two_nodes(cpus) as address:
        photos = Path(work, "photos")
        link([Path(path) for path in list_photos([str(asked.folder)])], photos, asked.photos)
        for number in range(asked.rounds):
            with only_on({cpus[number % 2]}):
                one = run_batch(asked.bundle, photos, Path(work, f"one-{number}"))
            ray = run_batch(asked.bundle, photos, Path(work, f"ray-{number}"), "--ray", address)
            ratios.append(ray[1] / one[1])
            print(
                f"ray {ray[0]:6.1f} s {ray[1]:6.1f} photos/s   one {one[0]:6.1f} s {one[1]:6.1f} photos/s"
                f"   {ratios[-1]:.2f}",
                flush=True,
            )
    print(f"median {statistics.median(ratios):.2f}, of {asked.rounds} rounds")


if __name__ == "__main__":
    main()
