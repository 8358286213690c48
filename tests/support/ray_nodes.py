"""A cluster of Ray with two nodes of one processor on this machine; prints its address when they run.

A line on standard input kills the second node as a power cut would; the end of the input ends the cluster.
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
# A node must start within limits of Ray's own, of 15 and 30 seconds, in which a busy machine may not do it.
ATTEMPTS = 4


def started() -> Cluster:
    """Start a cluster with its first node; raises what Ray raises if all attempts fail."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        except Exception:  # Ray raises no other class
            if attempt == ATTEMPTS:
                raise
    raise AssertionError


if __name__ == "__main__":
    cluster = started()
    second = cluster.add_node(**NODE)
    print(cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(second, allow_graceful=False)
        print("killed", flush=True)
        sys.stdin.read()
    cluster.shutdown()
