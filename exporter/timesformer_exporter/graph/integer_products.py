"""Counts the matrix products that ONNX Runtime computes in integers, in its optimised graph.

An int8 file may fail to compute in integers without any message. The quantizer may skip a weight
that several products share. An optimisation may fold a quantized weight back to float. And the
session option that keeps 8-bit products from overflowing does not reach a weight that a subgraph
uses.
"""

from __future__ import annotations

import dataclasses
import platform
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime
from timesformer_runtime.model.device import one_line, ort_errors

from timesformer_exporter.errors import UnquantizedWeightError
from timesformer_exporter.folder import writing

# Parts of the names of weights that stay in float on purpose: those of the classifier, which does
# 0.3 % of the work and sets the scale of the logits; and of the patch embedding where it is a
# convolution, because ONNX Runtime's integer convolution is slow.
_PATCH_EMBEDDING = "patch_embeddings"
_FLOAT_ON_PURPOSE = ("classifier", _PATCH_EMBEDDING)

_INTEGER_PRODUCTS = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
_CONVOLUTIONS = ("Conv", "FusedConv")
# Operators on embeddings. These are matrices, too, but are only added to tokens or put before them.
_NOT_PRODUCTS = ("Add", "Concat", "Expand")
_X86 = ("x86_64", "amd64")
_SAFE_WEIGHT = 64  # 2 * 64 * 255 fits into signed 16 bits
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


@dataclasses.dataclass(frozen=True)
class IntegerProducts:
    """The matrix products of an int8 file, by the type in which ONNX Runtime computes them.

    Attributes:
        integer: The number of products that are computed in integers.
        float_weights: The weights of the other products, which stay in float on purpose.
    """

    integer: int
    float_weights: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The values for export_report.json."""
        return dataclasses.asdict(self)


def float_products(graph: onnx.GraphProto, source: onnx.GraphProto | None = None) -> list[str]:
    """Lists the float weight of each matrix product that has one; shared weights several times.

    Args:
        graph: A graph, with its subgraphs.
        source: The graph that ``graph`` was made from, whose names of weights are to be listed;
            None for the names in ``graph``.
    """
    weights = _float_weights(graph)
    names = {name: name for name in weights}
    if source is not None:
        originals = _float_weights(source)
        names = {name: _original_name(tensor, originals) for name, tensor in weights.items()}
    return [
        # Where ONNX Runtime reorders a convolution's weight it also renames it.
        _PATCH_EMBEDDING if node.op_type in _CONVOLUTIONS else names[name]
        for part in _with_subgraphs(graph)
        for node in part.node
        if node.op_type not in _NOT_PRODUCTS
        for name in node.input
        if name in weights
    ]


def is_float_on_purpose(weight: str) -> bool:
    """True for the name of a weight that stays in float in an int8 file on purpose."""
    return any(part in weight for part in _FLOAT_ON_PURPOSE)


def count_integer_products(path: Path, source: onnx.GraphProto) -> IntegerProducts:
    """Counts the products of activations and weights of an int8 file as ONNX Runtime runs it.

    Args:
        path: The int8 file.
        source: The float32 graph that it was made from, with its weights.

    Raises:
        UnquantizedWeightError: A weight stayed in float that should be int8, the numbers of
            products differ, or ONNX Runtime does not write the optimised graph.
    """
    graph = _optimised(path)
    floats = float_products(graph, source)
    runtime = f"ONNX Runtime {onnxruntime.__version__}"
    left = [name for name in floats if not is_float_on_purpose(name)]
    if left:
        raise UnquantizedWeightError(
            f"{len(left)} weight(s) stayed in float in {runtime}'s optimised graph: "
            f"{', '.join(left[:3])}; leave int8 out of `dtypes`"
        )
    weights = {tensor.name for part in _with_subgraphs(graph) for tensor in part.initializer}
    integer = sum(
        node.op_type in _INTEGER_PRODUCTS and node.input[1] in weights
        for part in _with_subgraphs(graph)
        for node in part.node
    )
    wanted = sum(not is_float_on_purpose(name) for name in float_products(source))
    if integer != wanted:
        raise UnquantizedWeightError(
            f"{integer} of {wanted} matrix products are computed in integers in {runtime}'s "
            "optimised graph; leave int8 out of `dtypes`"
        )
    return IntegerProducts(integer, tuple(floats))


def check_against_overflow(path: Path) -> None:
    """Checks that ONNX Runtime can keep the products of an int8 file from overflowing.

    With ``session.x64quantprecision``, ONNX Runtime makes the weights unsigned and computes with
    factors of 16 bits, so that no sum overflows.

    Args:
        path: An int8 file with weights of 8 bits.

    Raises:
        UnquantizedWeightError: Some of the products would overflow with that option, too.
    """
    if platform.machine().lower() not in _X86:  # only x86 has the option, and needs it
        return
    graph = _optimised(path, {"session.x64quantprecision": "1"})
    signed = {
        tensor.name
        for part in _with_subgraphs(graph)
        for tensor in part.initializer
        if tensor.data_type == onnx.TensorProto.INT8
        and np.abs(onnx.numpy_helper.to_array(tensor).astype(np.int16)).max() > _SAFE_WEIGHT
    }
    unsafe = [
        node
        for part in _with_subgraphs(graph)
        for node in part.node
        if node.op_type in _INTEGER_PRODUCTS and node.input[1] in signed
    ]
    if unsafe:
        raise UnquantizedWeightError(
            f"{len(unsafe)} integer matrix product(s) overflow on x86 without VNNI in ONNX "
            f"Runtime {onnxruntime.__version__} whatever its options; export with "
            "`int8_target=avx2`"
        )


def _float_weights(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The matrices and larger tensors of a graph and its subgraphs, by name."""
    return {
        tensor.name: tensor
        for part in _with_subgraphs(graph)
        for tensor in part.initializer
        if tensor.data_type in _FLOATS and sum(length > 1 for length in tensor.dims) > 1
    }


def _original_name(weight: onnx.TensorProto, originals: Mapping[str, onnx.TensorProto]) -> str:
    """The name of the original that has a weight's values; else the weight's own name.

    ONNX Runtime and its quantizer may transpose a weight and rename it, each version in its own
    way.
    """
    own_name = str(weight.name)
    if own_name in originals:
        return own_name
    same = [name for name, original in originals.items() if _same_values(weight, original)]
    # Several weights can have the same values: the longest name that the new name contains.
    return max(same, key=lambda name: len(name) * (name in own_name), default=own_name)


def _same_values(weight: onnx.TensorProto, original: onnx.TensorProto) -> bool:
    """True where two weights have equal values, or one is the other transposed."""
    if sorted(weight.dims) != sorted(original.dims):  # so that the values need not be read
        return False
    values, others = map(onnx.numpy_helper.to_array, (weight, original))
    return np.array_equal(values, others) or np.array_equal(values, others.T)


def _with_subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yields a graph and the subgraphs of its nodes, which can use its weights."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _with_subgraphs(attribute.g)


def _optimised(path: Path, entries: Mapping[str, str] = MappingProxyType({})) -> onnx.GraphProto:
    """Loads the graph that ONNX Runtime runs with these entries in the session's configuration."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # only fatal errors: the others are raised
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    try:
        with (
            writing(path),
            tempfile.TemporaryDirectory(dir=path.parent) as folder,
            # Inside, so that it tries the disk while the temporary file still takes its room.
            writing(path, size=path.stat().st_size),
        ):
            options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            return onnx.load(options.optimized_model_filepath).graph
    except ort_errors() as error:
        needed = "".join(f" with {key} {value}" for key, value in entries.items())
        raise UnquantizedWeightError(
            f"ONNX Runtime {onnxruntime.__version__} cannot optimise the int8 graph{needed} "
            f"({one_line(error)}); leave int8 out of `dtypes`"
        ) from error
