"""Which matrix products ONNX Runtime really computes in integers: counted in its optimised graph.

A quantized file can fall short unseen: the quantizer may leave out a weight that several products
share, and an optimisation may fold a quantized weight back to float.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from timesformer_runtime.device import one_line, ort_errors

from timesformer_exporter.errors import UnquantizedWeightError

# Parts of the names of weights that are meant to stay in float: the classifier (0.3 % of the work,
# and the logits' own scale), and the patch embedding where it is a convolution, because ONNX
# Runtime's integer convolution is slow.
MEANT_FLOAT = ("classifier", "patch_embeddings")

_INTEGER_PRODUCTS = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
# Embeddings are matrices, too, but are only added to tokens, or set before them.
_NO_PRODUCTS = ("Add", "Concat", "Expand")
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


@dataclasses.dataclass(frozen=True)
class IntegerProducts:
    """How an int8 file computes its matrix products with weights.

    Attributes:
        integer: How many are computed in integers.
        float_weights: The weights of the others, all of them meant to stay in float.
    """

    integer: int
    float_weights: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For export_report.json."""
        return dataclasses.asdict(self)


def float_products(graph: onnx.GraphProto) -> list[str]:
    """The float weight of each matrix product that has one; of several products, several times."""
    graphs = list(_with_subgraphs(graph))
    weights = {
        tensor.name
        for part in graphs
        for tensor in part.initializer
        if tensor.data_type in _FLOATS and sum(length > 1 for length in tensor.dims) > 1
    }
    return [
        name
        for part in graphs
        for node in part.node
        if node.op_type not in _NO_PRODUCTS
        for name in node.input
        if name in weights
    ]


def meant_float(weight: str) -> bool:
    """Whether a weight of this name stays in float in an int8 file."""
    return any(part in weight for part in MEANT_FLOAT)


def count_integer_products(path: Path, source: list[str]) -> IntegerProducts:
    """Counts the matrix products of an int8 file as ONNX Runtime runs it.

    Args:
        path: The int8 file.
        source: The ``float_products`` of the graph that it was made from.

    Raises:
        UnquantizedWeightError: A weight stayed in float that is not meant to, a product got lost
            on the way, or the optimised graph cannot be had.
    """
    graph = _optimised(path)
    floats = float_products(graph)
    runtime = f"ONNX Runtime {onnxruntime.__version__}"
    left = [name for name in floats if not meant_float(name)]
    if left:
        raise UnquantizedWeightError(
            f"{len(left)} weight(s) stayed in float in {runtime}'s optimised graph: "
            f"{', '.join(left[:3])}; export without --dtype int8"
        )
    integer = sum(
        node.op_type in _INTEGER_PRODUCTS for part in _with_subgraphs(graph) for node in part.node
    )
    wanted = sum(not meant_float(name) for name in source)
    if integer != wanted:
        raise UnquantizedWeightError(
            f"{integer} of {wanted} matrix products are computed in integers in {runtime}'s "
            "optimised graph; export without --dtype int8"
        )
    return IntegerProducts(integer, tuple(floats))


def _with_subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the bodies of its loops, which see its weights."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _with_subgraphs(attribute.g)


def _optimised(path: Path) -> onnx.GraphProto:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        options.log_severity_level = 3
        try:
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except ort_errors() as error:
            raise UnquantizedWeightError(
                f"ONNX Runtime {onnxruntime.__version__} cannot show its optimised graph "
                f"({one_line(error)}); export without --dtype int8"
            ) from error
        return onnx.load(options.optimized_model_filepath).graph
