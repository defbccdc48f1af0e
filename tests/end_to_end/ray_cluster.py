"""A Ray cluster of two machines in processes of this one, which a test can kill.

    python -m tests.end_to_end.ray_cluster [CPUS...]

Prints the address. Each line on standard input is then an order, which is answered by a line:
``actor`` kills one process that runs a model, ``machine`` kills the last machine with all of its
processes. The cluster ends with standard input.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from ray.cluster_utils import Cluster


def main() -> None:
    head, *others = [int(cpus) for cpus in sys.argv[1:]] or [1, 1]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": head})
    nodes = [cluster.add_node(num_cpus=cpus) for cpus in others]
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    try:
        for line in sys.stdin:
            if line.strip() == "actor":
                running = list(_that_run_a_model())
                for process in running[:1]:
                    os.kill(process, signal.SIGKILL)
                print(len(running), flush=True)
            else:
                cluster.remove_node(nodes.pop(), allow_graceful=False)
                print("killed", flush=True)
    finally:
        cluster.shutdown()


def _that_run_a_model() -> Iterator[int]:
    """Finds the processes below this one that have ONNX Runtime in memory."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status = (folder / "stat").read_text()
            parents[int(folder.name)] = int(status.rpartition(")")[2].split()[1])
    for process in parents:
        ancestor = process
        while ancestor not in {0, os.getpid()}:
            ancestor = parents.get(ancestor, 0)
        with contextlib.suppress(OSError):
            if ancestor and "onnxruntime" in Path(f"/proc/{process}/maps").read_text():
                yield process


if __name__ == "__main__":
    main()
