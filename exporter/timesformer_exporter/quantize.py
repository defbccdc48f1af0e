"""Smaller variants of a traced float32 graph: int8 and fp16, made by ONNX Runtime's tools, and q4.

int8 has weights in s8, one scale a channel, and activations in u8, quantized as they come: the
combination that ONNX Runtime computes fast on x86 and exactly where the processor has VNNI or AMX.
Other x86 processors add two such products in 16 bits, which weights of 7 bits never overflow, at
the same speed as those of 8; u8 weights would be exact everywhere too, but 1.3 times slower there
and six times slower with VNNI. LayerNorm, softmax, GELU, attention and the classifier stay in
float.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir
from timesformer_runtime.agreement import Array

from timesformer_exporter.bundle_writer import writing
from timesformer_exporter.flash_attention import use_flash_attention
from timesformer_exporter.four_bits import with_four_bits
from timesformer_exporter.integer_products import (
    IntegerProducts,
    check_against_overflow,
    count_integer_products,
    meant_float,
)
from timesformer_exporter.trace import save_graph

_BITS = {"vnni": 8, "avx2": 7}  # of a weight


def write_variant(
    source: Path,
    target: Path,
    dtype: str,
    int8_target: str = "vnni",
    clips: Iterable[Array] = (),
) -> IntegerProducts | None:
    """Writes a variant of a float32 graph, with its metadata and the entry ``dtype``.

    Args:
        source: The float32 graph.
        target: The file to write.
        dtype: ``int8``, ``fp16`` or ``q4``.
        int8_target: For int8, and kept in its metadata: ``vnni`` for weights of 8 bits, ``avx2``
            for weights of 7 bits.
        clips: For q4, whose weights are fit to them: the graph's input for one clip each, without
            the batch axis.

    Returns:
        For int8 what ONNX Runtime computes in integers.

    Raises:
        UnquantizedWeightError: A weight that should be int8 is still float once ONNX Runtime has
            optimised the graph, or its products cannot be kept from overflowing.
        OutputWriteError: The file, or a temporary one, cannot be written.
    """
    graph = onnx.load(source)
    metadata = {entry.key: entry.value for entry in graph.metadata_props} | {"dtype": dtype}
    _drop_types_of_weights(graph)
    with _quiet():
        if dtype == "int8":
            metadata["int8_target"] = int8_target
            graph = _int8(graph, _BITS[int8_target])
        elif dtype == "q4":
            graph = with_four_bits(graph, clips)
        else:
            graph = _fp16(graph)
    onnx.helper.set_model_props(graph, metadata)
    model = onnx_ir.from_proto(graph)
    if dtype == "int8":  # for CPUs, and no longer a graph of standard operators alone
        use_flash_attention(model)
    save_graph(model, target)
    if dtype != "int8":
        return None
    if _BITS[int8_target] == 8:
        check_against_overflow(target)
    return count_integer_products(target, onnx.load(source).graph)


def own_operators(path: Path) -> tuple[str, ...]:
    """ONNX Runtime's own operators in a graph, by name; none where it is standard ONNX."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return tuple(sorted({f"{node.domain}.{node.op_type}" for node in nodes if node.domain}))


def _int8(graph: onnx.ModelProto, bits: int) -> onnx.ModelProto:
    """The float32 graph with weights of 7 or 8 bits."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 (see _quiet)

    elsewhere = "set TMPDIR to a folder"  # where the quantizer writes further files
    with (
        writing(Path(tempfile.gettempdir()), elsewhere=elsewhere),
        tempfile.TemporaryDirectory() as folder,
        writing(path := Path(folder) / "int8.onnx", size=graph.ByteSize(), elsewhere=elsewhere),
    ):
        quantize_dynamic(
            graph,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=bits == 7,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=_integer_nodes(graph),
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(path)


def _fp16(graph: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

    return convert_float_to_float16(graph, keep_io_types=True)


def _drop_types_of_weights(graph: onnx.ModelProto) -> None:
    """Shape inference in the quantizer takes the old types of weights that it transposes."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    kept = [value for value in graph.graph.value_info if value.name not in weights]
    del graph.graph.value_info[:]
    graph.graph.value_info.extend(kept)


def _integer_nodes(graph: onnx.ModelProto) -> list[str]:
    """The products to quantize; a list of others would need the names that the quantizer gives."""
    return [
        node.name
        for node in graph.graph.node
        if node.op_type == "MatMul" and not any(meant_float(name) for name in node.input)
    ]


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
