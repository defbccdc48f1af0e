"""Makes smaller variants of a traced float32 graph: int8, fp16 and q4.

int8 is ONNX Runtime's dynamic quantization: signed 8-bit weights (s8) with one scale for each
channel, and unsigned 8-bit activations (u8) with a scale that is computed at run time. ONNX Runtime
computes this combination fast on x86. It is exact where the processor has VNNI or AMX. Other x86
processors add pairs of products in 16 bits: weights of 8 bits can overflow there, weights of 7 bits
never do, and both are equally fast; GPTQ rounds those of 7 bits (``gptq.py``). u8 weights would be
exact on every processor, but 1.3 times slower on x86 without VNNI and six times slower with VNNI.
LayerNorm, softmax, GELU, attention and the classifier stay in float; only for attention rollout,
scores of long sequences are int8, too (``rollout_nodes.py``).
"""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir
from timesformer_runtime.model.agreement import Array

from timesformer_exporter.folder import writing
from timesformer_exporter.graph.flash_attention import use_flash_attention
from timesformer_exporter.graph.four_bits import with_four_bits
from timesformer_exporter.graph.gptq import activation_grams, round_columns
from timesformer_exporter.graph.integer_products import (
    IntegerProducts,
    check_against_overflow,
    count_integer_products,
    is_float_on_purpose,
)
from timesformer_exporter.graph.rollout_nodes import only_for_rollout, use_integer_scores
from timesformer_exporter.graph.trace import save_graph

_WEIGHT_BITS = {"vnni": 8, "avx2": 7}
_LARGEST_OF_7_BITS = 64  # of the quantizer's reduce_range


def write_variant(
    source: Path,
    target: Path,
    dtype: str,
    int8_target: str = "vnni",
    clips: Iterable[Array] = (),
) -> IntegerProducts | None:
    """Writes a variant of a float32 graph, with the graph's metadata and the entry ``dtype``.

    Args:
        source: The float32 graph.
        target: The file to write.
        dtype: ``int8``, ``fp16`` or ``q4``.
        int8_target: Only for int8: ``vnni`` for weights of 8 bits, ``avx2`` for weights of 7 bits;
            also written into the metadata.
        clips: Only for q4, and for int8 with weights of 7 bits: the clips that the weights are fit
            to. Each is the graph's input for one clip, without the batch axis. Without clips, the
            weights of 7 bits are rounded to the nearest.

    Returns:
        For int8, the matrix products that ONNX Runtime computes in integers; else None.

    Raises:
        UnquantizedWeightError: A weight that should be int8 is still float after ONNX Runtime has
            optimised the graph, or a product cannot be kept from overflowing.
        OutputWriteError: The file, or a temporary file, cannot be written.
    """
    graph = onnx.load(source)
    metadata = {entry.key: entry.value for entry in graph.metadata_props} | {"dtype": dtype}
    _drop_types_of_weights(graph)
    with _quiet():
        if dtype == "int8":
            metadata["int8_target"] = int8_target
            bits = _WEIGHT_BITS[int8_target]
            first = next(iterator := iter(clips), None) if bits == 7 else None
            if first is not None:
                _fit_to_7_bits(graph, itertools.chain([first], iterator))
            graph = _int8(graph, bits)
            use_integer_scores(graph.graph)
        elif dtype == "q4":
            graph = with_four_bits(graph, clips)
        else:
            graph = _fp16(graph)
    onnx.helper.set_model_props(graph, metadata)
    model = onnx_ir.from_proto(graph)
    if dtype == "int8":  # runs on CPUs and already has operators that are not standard ONNX
        use_flash_attention(model)
    save_graph(model, target)
    if dtype != "int8":
        return None
    if _WEIGHT_BITS[int8_target] == 8:
        check_against_overflow(target)
    return count_integer_products(target, onnx.load(source).graph)


def own_operators(path: Path) -> tuple[str, ...]:
    """Names ONNX Runtime's own operators in a graph; none where all operators are standard ONNX."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return tuple(sorted({f"{node.domain}.{node.op_type}" for node in nodes if node.domain}))


def _int8(graph: onnx.ModelProto, bits: int) -> onnx.ModelProto:
    """Quantizes a float32 graph dynamically, with weights of 7 or 8 bits."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 (see _quiet)

    elsewhere = "set TMPDIR to a path"  # the quantizer writes further files there
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


def _fit_to_7_bits(graph: onnx.ModelProto, clips: Iterable[Array]) -> None:
    """Rounds the weights in place to those that the quantizer can write without a further error."""
    grams = activation_grams(graph, clips)
    for tensor in graph.graph.initializer:
        if tensor.name in grams and not is_float_on_purpose(tensor.name):
            weight = onnx.numpy_helper.to_array(tensor)
            rounded = round_columns(weight, grams[tensor.name], _LARGEST_OF_7_BITS)
            tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, tensor.name))


def _fp16(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Makes a graph float16, but for rollout: shares of many patches would be subnormal."""
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

    return convert_float_to_float16(
        graph, keep_io_types=True, node_block_list=only_for_rollout(graph.graph)
    )


def _drop_types_of_weights(graph: onnx.ModelProto) -> None:
    """Drops the shapes that the graph states for weights.

    The quantizer transposes some weights; its shape inference would then use the old shapes.
    """
    weights = {tensor.name for tensor in graph.graph.initializer}
    kept = [value for value in graph.graph.value_info if value.name not in weights]
    del graph.graph.value_info[:]
    graph.graph.value_info.extend(kept)


def _integer_nodes(graph: onnx.ModelProto) -> list[str]:
    """The names of the products to quantize.

    (The quantizer also takes a list of nodes to leave out. It would compare that list with names
    that it makes itself.)
    """
    return [
        node.name
        for node in graph.graph.node
        if node.op_type == "MatMul" and not any(is_float_on_purpose(name) for name in node.input)
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the quantizers' advice, which does not apply here, off the screen.

    The import of the quantizers also configures the root logger of the whole program. The end of
    the block restores that logger.
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
