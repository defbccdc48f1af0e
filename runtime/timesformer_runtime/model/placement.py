"""Finds the nodes of a graph that a provider leaves to the CPU.

ONNX Runtime gives every node that a provider does not take to the CPU, without a word. Each of them
costs copies between the device and the CPU, and is often slower there.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any, NamedTuple

from timesformer_runtime.errors import listed

# The configuration entry that makes a session remember where its nodes run.
RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"

_CPU = "CPUExecutionProvider"


class Placement(NamedTuple):
    """Where the nodes of a graph run.

    Attributes:
        on_cpu: Operator and name of each node that runs on the CPU.
        total: The number of all nodes, as the providers count them.
    """

    on_cpu: tuple[tuple[str, str], ...] = ()
    total: int = 0

    def describe(self) -> str:
        """Names the nodes on the CPU by their operators, for a message; empty without such nodes.

        For example ``8 Attention (node_attention, ...), Range node_arange``.
        """
        names: dict[str, list[str]] = {}
        for operator, name in self.on_cpu:
            names.setdefault(operator, []).append(name)
        operators = (
            f"{len(found)} {operator} ({listed(found, most=1)})"
            if len(found) > 1
            else f"{operator} {found[0]}".rstrip()
            for operator, found in names.items()
        )
        return listed(operators, most=len(names))


def can_tell(session: Any) -> bool:
    """False for ONNX Runtime before 1.24, which cannot tell where nodes run."""
    return hasattr(session, "get_provider_graph_assignment_info")


def find_placement(session: Any, shape_arithmetic: Set[tuple[str, str]]) -> Placement:
    """Asks a session where its nodes run.

    Args:
        session: ONNX Runtime's session, started with the entry ``RECORD_PLACEMENT``.
        shape_arithmetic: Nodes that do not count: they compute a few integers, and a provider such
            as CUDA's leaves them to the CPU on purpose.
    """
    parts = session.get_provider_graph_assignment_info()
    on_cpu = [
        (node.op_type, node.name)
        for part in parts
        if part.ep_name == _CPU
        for node in part.get_nodes()
        if (node.op_type, node.name) not in shape_arithmetic
    ]
    return Placement(tuple(on_cpu), sum(len(part.get_nodes()) for part in parts))
