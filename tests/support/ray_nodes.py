"""A cluster of Ray with two nodes of one processor on this machine; prints its address when they run.

A line on standard input kills the second node as a power cut would; the end of the input ends the cluster.
"""

from __future__ import annotations

import subprocess
import sys

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}


def status(address: str) -> str:
    """Return what `ray status` says."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    second = cluster.add_node(**NODE)
    print(cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(second, allow_graceful=False)
        print("killed", flush=True)
        sys.stdin.read()
    cluster.shutdown()
