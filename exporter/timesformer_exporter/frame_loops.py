"""Runs the parts of a graph that see one frame at a time in loops over the frames.

A base model's clip is 5 MB of tokens, and four times that inside the MLP: more than a core's
cache, so that every operator waits for memory. The tokens of one frame stay in the cache. And
activations that are quantized as they come then have a scale a frame, not one for all.

The loops are ONNX's Scan. What joins frames (temporal attention, the mean of CLS) stays outside
them, and so does everything whose first axis is the clips.
"""

from __future__ import annotations

from collections import defaultdict

import onnx_ir as ir

Nodes = list[ir.Node]

# Operators to which the first axis is a batch, where their other inputs are weights.
_FRAMEWISE = {
    *("LayerNormalization", "Attention", "MatMul", "MatMulInteger", "DynamicQuantizeLinear"),
    *("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Cast", "Identity"),
    *("Gelu", "Erf", "Relu", "Selu", "Tanh", "Sigmoid"),
}
_WORTH_A_LOOP = {"MatMul", "MatMulInteger"}


def loop_over_frames(model: ir.Model) -> int:
    """Puts the parts of a graph that see one frame at a time into loops.

    A graph in which frames are not the first axis of anything (joint attention, or clips of one
    frame) stays as it is.

    Args:
        model: A graph whose input is clips [B, T, ...]; it is changed.

    Returns:
        The number of loops.
    """
    axes = ir.Value(
        name="frame_loop_axes",
        shape=ir.Shape([1]),
        type=ir.TensorType(ir.DataType.INT64),
        const_value=ir.tensor([1], dtype=ir.DataType.INT64, name="frame_loop_axes"),
    )
    parts = _parts(model.graph)
    for number, nodes in enumerate(parts):
        _Loop(model.graph, nodes, f"frames_{number}", axes).replace()
    if parts:
        model.graph.register_initializer(axes)
        model.graph.sort()
    return len(parts)


def _parts(graph: ir.Graph) -> list[Nodes]:
    """The nodes of each loop, in order.

    The stage of a node is how often frames are joined on the way to it: of two nodes of one stage
    neither depends on the other through a node outside. So a stage is a loop.
    """
    frames = _Frames(graph)
    stages: dict[ir.Node, int] = {}
    inside: set[ir.Node] = set()
    parts: dict[int, Nodes] = defaultdict(list)
    for node in graph:
        joins = frames.sees_one_at_a_time(node)
        producers = [producer for value in node.inputs if value and (producer := value.producer())]
        stages[node] = max(
            (stages[producer] + (joins and producer not in inside) for producer in producers),
            default=0,
        )
        if joins:
            inside.add(node)
            parts[stages[node]].append(node)
    worthwhile = (
        nodes
        for _, nodes in sorted(parts.items())
        if any(node.op_type in _WORTH_A_LOOP for node in nodes)
    )
    return list(worthwhile)


class _Frames:
    """Tells which nodes of a graph treat its frames one by one; asked in the order of the nodes.

    Attributes:
        tensors: Values whose first axis is the frames of all clips.
        scales: Values that a frame has one of, such as the scale of its quantized values.
    """

    def __init__(self, graph: ir.Graph) -> None:
        shape = graph.inputs[0].shape  # [B, T, ...]
        self.axis = f"{shape[1]}*{shape[0]}" if shape is not None else None
        self.tensors: set[ir.Value] = set()
        self.scales: set[ir.Value] = set()

    def sees_one_at_a_time(self, node: ir.Node) -> bool:
        """Whether a node does, and so what it gives is known for the nodes after it."""
        inputs = [value for value in node.inputs if value is not None]
        known = [value for value in inputs if value in self.tensors or value in self.scales]
        others = [value for value in inputs if value not in known]
        if node.op_type not in _FRAMEWISE or not known or not all(map(_is_weight, others)):
            self.tensors.update(output for output in node.outputs if self._has_frames(output))
            return False
        tensor, *rest = node.outputs
        is_tensor = any(value in self.tensors for value in known)
        (self.tensors if is_tensor else self.scales).add(tensor)
        self.scales.update(rest)
        return True

    def _has_frames(self, value: ir.Value) -> bool:
        """Whether a value is tokens [B*T, S, D]."""
        return (
            value.shape is not None and len(value.shape) == 3 and str(value.shape[0]) == self.axis
        )


def _is_weight(value: ir.Value) -> bool:
    """Whether a value is constant, and the same for each frame."""
    if value.const_value is None:
        return False
    return len(value.const_value.shape) < 3 or value.const_value.shape[0] == 1


class _Loop:
    """A Scan in place of some nodes."""

    def __init__(self, graph: ir.Graph, nodes: Nodes, name: str, axes: ir.Value) -> None:
        self.graph = graph
        self.nodes = nodes
        self.name = name
        self.axes = axes  # [1]: where a frame's own axis of length one is

    def replace(self) -> None:
        """Moves the nodes into the loop's body."""
        outer_inputs, outer_outputs = self._inputs(), self._outputs()
        body_inputs = [self._inner(value) for value in outer_inputs]
        for outer, inner in zip(outer_inputs, body_inputs, strict=True):
            self._replace_uses(outer, inner, inside=True)
        results = [self._outer(value) for value in outer_outputs]
        for inner, (_, outer) in zip(outer_outputs, results, strict=True):
            self._replace_uses(inner, outer, inside=False)
        self.graph.remove(self.nodes)
        self._rename()
        body = ir.Graph(
            body_inputs,
            outer_outputs,
            nodes=self.nodes,
            initializers=self._own_weights(),
            name=self.name,
        )
        inputs = [ir.node("Unsqueeze", [value, self.axes]) for value in outer_inputs]
        scan = ir.Node(
            "",
            "Scan",
            [node.outputs[0] for node in inputs],
            {
                "body": ir.AttrGraph("body", body),
                "num_scan_inputs": ir.AttrInt64("num_scan_inputs", len(inputs)),
            },
            outputs=[stacked for stacked, _ in results],
            name=self.name,
        )
        outputs = [
            ir.Node("", "Squeeze", [stacked, self.axes], outputs=[outer])
            for stacked, outer in results
        ]
        self.graph.extend([*inputs, scan, *outputs])

    def _inputs(self) -> list[ir.Value]:
        """What comes from outside and is not constant."""
        made = {output for node in self.nodes for output in node.outputs}
        used = {value: None for node in self.nodes for value in node.inputs if value is not None}
        return [value for value in used if value not in made and value.const_value is None]

    def _own_weights(self) -> list[ir.Value]:
        """Takes the weights that nothing else uses out of the graph around the loop.

        ONNX Runtime makes 8-bit weights safe for processors whose products overflow
        (``session.x64quantprecision``) only where they lie in the same graph as the product.
        """
        nodes = set(self.nodes)
        used = {value: None for node in self.nodes for value in node.inputs if value is not None}
        own = [
            value
            for value in used
            if value.is_initializer() and all(use.node in nodes for use in value.uses())
        ]
        for value in own:
            del self.graph.initializers[str(value.name)]
        return own

    def _outputs(self) -> list[ir.Value]:
        """What is used outside."""
        nodes = set(self.nodes)
        return [
            output
            for node in self.nodes
            for output in node.outputs
            if output.is_graph_output() or any(use.node not in nodes for use in output.uses())
        ]

    def _inner(self, value: ir.Value) -> ir.Value:
        """The body's own input for a value: one frame."""
        return ir.Value(name=f"{self.name}.{value.name}", shape=_of_one(value), type=value.type)

    def _outer(self, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        """What the loop gives for a value, [B*T, 1, S, D], and what others see, [B*T, S, D]."""
        stacked = ir.Value(name=f"{value.name}.stacked", type=value.type)
        return stacked, ir.Value(name=value.name, shape=value.shape, type=value.type)

    def _replace_uses(self, old: ir.Value, new: ir.Value, *, inside: bool) -> None:
        nodes = set(self.nodes)
        for use in list(old.uses()):
            if (use.node in nodes) == inside:
                use.node.replace_input_with(use.idx, new)
        if not inside:
            for index, output in enumerate(self.graph.outputs):
                if output is old:
                    self.graph.outputs[index] = new

    def _rename(self) -> None:
        """Names of the body must not be those of the graph around it."""
        for node in self.nodes:
            for output in node.outputs:
                output.name = f"{self.name}.{output.name}"
                if output.shape is not None:
                    output.shape = _of_one(output)


def _of_one(value: ir.Value) -> ir.Shape | None:
    """The shape of a value of all frames, for one."""
    return None if value.shape is None else ir.Shape([1, *value.shape[1:]])
