"""Which matrix products ONNX Runtime really computes in integers: counted in its optimised graph.

A quantized file can fall short unseen: the quantizer may leave out a weight that several products
share, an optimisation may fold a quantized weight back to float, and the session option that keeps
8-bit products from overflowing may not reach a weight, as it does where a subgraph uses it.
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

# Parts of the names of weights that are meant to stay in float: the classifier (0.3 % of the work,
# and the logits' own scale), and the patch embedding where it is a convolution, because ONNX
# Runtime's integer convolution is slow.
_PATCH_EMBEDDING = "patch_embeddings"
MEANT_FLOAT = ("classifier", _PATCH_EMBEDDING)

_INTEGER_PRODUCTS = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
# Embeddings are matrices, too, but are only added to tokens, or set before them.
_CONVOLUTIONS = ("Conv", "FusedConv")
_NO_PRODUCTS = ("Add", "Concat", "Expand")
_X86 = ("x86_64", "amd64")
_SAFE_WEIGHT = 64  # two products of it and 255 fit into 16 bits, signed
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


def float_products(graph: onnx.GraphProto, source: onnx.GraphProto | None = None) -> list[str]:
    """Names the float weight of each matrix product that has one; a shared weight several times.

    Args:
        graph: A graph, with its subgraphs.
        source: The graph that ``graph`` was made from, if any; weights get their names there.
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
        if node.op_type not in _NO_PRODUCTS
        for name in node.input
        if name in weights
    ]


def meant_float(weight: str) -> bool:
    """Whether a weight of this name stays in float in an int8 file."""
    return any(part in weight for part in MEANT_FLOAT)


def count_integer_products(path: Path, source: onnx.GraphProto) -> IntegerProducts:
    """Counts the matrix products of an int8 file as ONNX Runtime runs it.

    Args:
        path: The int8 file.
        source: The float32 graph that it was made from, with its weights.

    Raises:
        UnquantizedWeightError: A weight stayed in float that is not meant to, a product got lost
            on the way, or ONNX Runtime does not write the optimised graph.
    """
    graph = _optimised(path)
    floats = float_products(graph, source)
    runtime = f"ONNX Runtime {onnxruntime.__version__}"
    left = [name for name in floats if not meant_float(name)]
    if left:
        raise UnquantizedWeightError(
            f"{len(left)} weight(s) stayed in float in {runtime}'s optimised graph: "
            f"{', '.join(left[:3])}; leave int8 out of `dtypes`"
        )
    integer = sum(
        node.op_type in _INTEGER_PRODUCTS for part in _with_subgraphs(graph) for node in part.node
    )
    wanted = sum(not meant_float(name) for name in float_products(source))
    if integer != wanted:
        raise UnquantizedWeightError(
            f"{integer} of {wanted} matrix products are computed in integers in {runtime}'s "
            "optimised graph; leave int8 out of `dtypes`"
        )
    return IntegerProducts(integer, tuple(floats))


def check_against_overflow(path: Path) -> None:
    """Checks that ONNX Runtime can keep the products of an int8 file from overflowing.

    With ``session.x64quantprecision`` it makes weights unsigned, which it then computes in 16 bits.

    Args:
        path: An int8 file with weights of 8 bits.

    Raises:
        UnquantizedWeightError: It cannot for some of the products.
    """
    if platform.machine().lower() not in _X86:  # elsewhere the option does nothing, nor need it
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
    """The name of the original with the same values, transposed or not; else the weight's own.

    ONNX Runtime and its quantizer may rename a weight that they transpose; how depends on their
    version.
    """
    own_name = str(weight.name)
    if own_name in originals:
        return own_name
    same = [name for name, original in originals.items() if _same_values(weight, original)]
    # Several weights can have the same values: the longest name that the new name contains.
    return max(same, key=lambda name: len(name) * (name in own_name), default=own_name)


def _same_values(weight: onnx.TensorProto, original: onnx.TensorProto) -> bool:
    """Whether two weights have the same values, transposed or not."""
    if sorted(weight.dims) != sorted(original.dims):  # spares reading them
        return False
    values, others = map(onnx.numpy_helper.to_array, (weight, original))
    return np.array_equal(values, others) or np.array_equal(values, others.T)


def _with_subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those within its nodes, which see its weights."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _with_subgraphs(attribute.g)


def _optimised(path: Path, entries: Mapping[str, str] = MappingProxyType({})) -> onnx.GraphProto:
    """The graph that ONNX Runtime runs, with some entries in its session configuration."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    try:
        with (
            writing(path),
            tempfile.TemporaryDirectory(dir=path.parent) as folder,
            writing(path, size=path.stat().st_size),  # before the temporary file is gone
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
