"""Compare a batch on a cluster of Ray, two nodes of one processor each, with a batch on one of these processors.

    PYTHONPATH=. python scripts/measure_ray.py PHOTOS INT8.tar [--photos 3000] [--rounds 3]

The two take turns. Each computes a fifth of the photos and then all of them: the difference gives the photos per
second without the start, in which Ray makes its actors. A first job on the cluster is not counted, since it starts
Ray's processes. PHOTOS is a folder; its photos are linked under as many names as are needed. The extras `batch` and
`ray` are needed, and two processors.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench_batch import compare, link

from app.photos.folders import list_photos

SHARDS = 60
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


def run_batch(name: str, bundle: Path, work: Path, *options: str) -> float:
    """Run a batch of a fifth of the photos and one of all, print their seconds, and return the photos per second."""
    seconds, counts = [], []
    for part in ("fifth", "all"):
        command = [sys.executable, "-m", "app", "batch", str(work / part), "--shards", str(SHARDS), *options]
        with tempfile.TemporaryDirectory(dir=work) as output:
            begin = time.monotonic()
            variables = os.environ | {"TOPTHREE_BUNDLE": str(bundle)}
            subprocess.run([*command, "--output", f"{output}/out"], env=variables, check=True)
            seconds.append(time.monotonic() - begin)
        counts.append(sum(1 for _ in (work / part).iterdir()))
    print(f"{name}: {counts[0]} photos in {seconds[0]:.1f} s, {counts[1]} in {seconds[1]:.1f} s", flush=True)
    return (counts[1] - counts[0]) / (seconds[1] - seconds[0])


def main() -> None:
    """Let both take turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--photos", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))[:2]
    with tempfile.TemporaryDirectory() as work, two_nodes(cpus) as address:
        photos = [Path(path) for path in list_photos([str(asked.folder)])]
        link(photos, Path(work, "fifth"), asked.photos // 5)
        link(photos, Path(work, "all"), asked.photos)

        def ray() -> float:
            return run_batch("ray", asked.bundle, Path(work), "--ray", address)

        def one() -> float:
            with only_on({cpus[0]}):
                return run_batch("one", asked.bundle, Path(work))

        ray()
        compare(("ray", "one"), (ray, one), asked.rounds)


if __name__ == "__main__":
    main()
