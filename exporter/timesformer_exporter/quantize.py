"""Smaller variants of a traced float32 graph: int8, fp16 and q4, made by ONNX Runtime's tools.

int8 has weights in s8, one scale a channel, and activations in u8, quantized as they come: the
combination that ONNX Runtime computes fast on x86 and exactly where the processor has VNNI or AMX.
LayerNorm, softmax, GELU, attention and the classifier stay in float.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir
import onnxruntime
from timesformer_runtime.device import one_line, ort_errors

from timesformer_exporter.errors import UnquantizedWeightError
from timesformer_exporter.trace import save_graph

DTYPES = ("fp32", "int8", "fp16", "q4")

_Q4_BLOCK = 32  # weights that share a scale
_Q4_COMPUTE_IN_INT8 = 4  # ONNX Runtime's accuracy_level
_HEAD = "classifier"  # its weights stay in float: 0.3 % of the work, and the logits' own scale


def write_variant(source: Path, target: Path, dtype: str) -> None:
    """Writes a variant of a float32 graph, with its metadata and the entry ``dtype``.

    Args:
        source: The float32 graph.
        target: The file to write.
        dtype: ``int8``, ``fp16`` or ``q4``.

    Raises:
        UnquantizedWeightError: A weight that should be int8 is still float once ONNX Runtime has
            optimised the graph.
    """
    graph = onnx.load(source)
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    _drop_types_of_weights(graph)
    with _quiet():
        graph = _MAKERS[dtype](graph)
    onnx.helper.set_model_props(graph, metadata | {"dtype": dtype})
    save_graph(onnx_ir.from_proto(graph), target)
    if dtype == "int8":
        _check_weights(target)


def _int8(graph: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 (see _quiet)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            graph,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_head_nodes(graph),
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(path)


def _fp16(graph: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

    return convert_float_to_float16(graph, keep_io_types=True)


def _q4(graph: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import (  # noqa: PLC0415
        MatMulNBitsQuantizer,
    )

    quantizer = MatMulNBitsQuantizer(
        graph, block_size=_Q4_BLOCK, is_symmetric=True, accuracy_level=_Q4_COMPUTE_IN_INT8
    )
    quantizer.process()
    return quantizer.model.model


def _drop_types_of_weights(graph: onnx.ModelProto) -> None:
    """Shape inference in the quantizer takes the old types of weights that it transposes."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    kept = [value for value in graph.graph.value_info if value.name not in weights]
    del graph.graph.value_info[:]
    graph.graph.value_info.extend(kept)


def _head_nodes(graph: onnx.ModelProto) -> list[str]:
    names = [
        node.name
        for node in graph.graph.node
        if node.op_type in ("MatMul", "Gemm") and any(_HEAD in name for name in node.input)
    ]
    return names + [f"{name}_MatMul" for name in names]  # what the quantizer makes of a Gemm


def _check_weights(path: Path) -> None:
    """Looks at the graph that ONNX Runtime really runs, after its optimisations."""
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
        graph = onnx.load(options.optimized_model_filepath).graph
    weights = {
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2
    }
    left = [
        name
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm", "FusedMatMul")
        for name in node.input
        if name in weights and _HEAD not in name
    ]
    if left:
        raise UnquantizedWeightError(
            f"{len(left)} weight(s) stayed in float32 in ONNX Runtime "
            f"{onnxruntime.__version__}'s optimised graph: {', '.join(left[:3])}; "
            "export without --dtype int8"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the quantizers' advice, which does not apply here, off the screen.

    Their import also configures the root logger, for the whole program; that is undone.
    """
    root, before = logging.root, logging.root.manager.disable
    level, handlers = root.level, list(root.handlers)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        root.setLevel(level)
        root.handlers[:] = handlers


_MAKERS = {"int8": _int8, "fp16": _fp16, "q4": _q4}
