"""Damages ONNX graphs: impossible shapes, external data outside the folder, endless loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.models.hostile import PATHS, TEXTS, pick
from tests.fuzz.models.json_damage import damage_json
from tests.fuzz.mutations import Random

_NUMBERS = (
    *(-1, 0, 1, 2, 3, 4, 24, 255, 8192, 8193, 65536, 1_000_000, 1_000_001, 1 << 31, (1 << 31) - 1),
    *(-(1 << 31), 1 << 32, (1 << 62), (1 << 63) - 1, -(1 << 63)),
)
_OFFSETS = ("-1", "", "x", "1e3", "4096", "99999999999999999999", str((1 << 63) - 1), "\0", "-0")
_OPERATORS = (
    *("Identity", "Cast", "Add", "Div", "Mod", "Pow", "Reshape", "Expand", "Tile", "Resize"),
    *("Range", "ConstantOfShape", "Gather", "GatherND", "ScatterND", "Slice", "Pad", "Transpose"),
    *("Squeeze", "Unsqueeze", "Concat", "Split", "Conv", "MatMul", "Gemm", "Einsum", "Softmax"),
    *("ReduceMean", "ReduceSum", "TopK", "OneHot", "Loop", "If", "Scan", "SequenceConstruct"),
    *("Optional", "SequenceEmpty", "Shape", "NonZero", "Where", "StringConcat", "Attention"),
    *("RandomNormal", "QuantizeLinear", "DequantizeLinear", "MatMulInteger", "MatMulNBits", ""),
)
_TYPES = tuple(TensorProto.DataType.values())
_MOST_METADATA = 1 << 24  # bytes; graphs of hundreds of megabytes would only take time
_KEYS = (
    *("timesformer_onnx.format", "task", "input", "dtype", "config", "preprocessor_config"),
    *("frame_sampling", "golden", "source", "made_with", "calibration", "int8_target"),
)


class _Texts:
    """Texts that are not UTF-8, which protobuf refuses: markers stand for them in the model.

    Attributes:
        markers: Maps each marker to the text that replaces it; both have the same length.
    """

    def __init__(self) -> None:
        self.markers: dict[bytes, bytes] = {}

    def marker(self, contents: bytes) -> str:
        """Makes a marker as long as the contents, which replace it later."""
        try:
            return contents.decode()
        except UnicodeDecodeError:
            marker = f"<{len(self.markers)}>".ljust(len(contents), "~")[: len(contents)]
            self.markers[marker.encode()] = contents
            return marker

    def serialized(self, model: onnx.ModelProto) -> bytes:
        """Serializes the model, and replaces the markers."""
        data: bytes = model.SerializeToString()
        for marker, contents in self.markers.items():
            data = data.replace(marker, contents)
        return data


def damage_graph(data: bytes, random: Random) -> bytes:
    """Damages a model in its structure.

    Raises:
        ValueError: It is not a model.
    """
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # an error of protobuf
        raise ValueError("not a model") from error
    texts = _Texts()
    pick(_DAMAGES, random)(model, texts, random)
    if random.random() < 0.02:
        return data + texts.serialized(model)  # protobuf merges the two messages
    return texts.serialized(model)


def _text(texts: _Texts, random: Random) -> str:
    return texts.marker(str(pick((*TEXTS, *PATHS), random)).encode("utf-8", "surrogatepass"))


def _metadata_value(model: onnx.ModelProto, texts: _Texts, random: Random) -> None:
    entry = _entry(model, random)
    if entry.value.startswith(("{", "[")):
        entry.value = texts.marker(damage_json(entry.value, random))
    else:
        entry.value = _text(texts, random)


def _metadata_key(model: onnx.ModelProto, texts: _Texts, random: Random) -> None:
    entry = _entry(model, random)
    entry.key = pick(_KEYS, random) if random.random() < 0.7 else _text(texts, random)


def _metadata_more(model: onnx.ModelProto, texts: _Texts, random: Random) -> None:
    config = '{"num_frames": 4, "id2label": {"0": "a"}, "size": 24}'
    value = texts.marker(damage_json(config, random))
    for _ in range(min(pick((1, 1, 1, 2000), random), 1 + _MOST_METADATA // len(value))):
        model.metadata_props.add(key=pick(_KEYS, random), value=value)


def _metadata_less(model: onnx.ModelProto, _texts: _Texts, random: Random) -> None:
    if model.metadata_props:
        del model.metadata_props[int(random.integers(len(model.metadata_props)))]


def _entry(model: onnx.ModelProto, random: Random) -> onnx.StringStringEntryProto:
    if not model.metadata_props:
        model.metadata_props.add(key="timesformer_onnx.format", value="1")
    return pick(model.metadata_props, random)


def _tensor(model: onnx.ModelProto, random: Random) -> onnx.TensorProto:
    tensors = [*model.graph.initializer]
    for node in model.graph.node:
        tensors += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
    return pick(tensors, random) if tensors else model.graph.initializer.add(name="w", dims=[1])


def _tensor_field(model: onnx.ModelProto, texts: _Texts, random: Random) -> None:
    """Changes the stated type, shape or name of a tensor, or cuts its values short."""
    tensor = _tensor(model, random)
    what = int(random.integers(5))
    if what == 0:
        tensor.data_type = pick(_TYPES, random)
    elif what == 1 and tensor.dims:
        tensor.dims[int(random.integers(len(tensor.dims)))] = pick(_NUMBERS, random)
    elif what == 2:
        tensor.dims.extend(pick(_NUMBERS, random) for _ in range(pick((1, 2, 50), random)))
    elif what == 3:
        tensor.raw_data = tensor.raw_data[: int(random.integers(len(tensor.raw_data) + 1))]
    else:
        tensor.name = _text(texts, random)


def _tensor_value(model: onnx.ModelProto, _texts: _Texts, random: Random) -> None:
    """Changes the values of a tensor; integers are sizes, axes and indices."""
    tensor = _tensor(model, random)
    if tensor.data_type == TensorProto.INT64:
        tensor.raw_data = b"".join(
            pick(_NUMBERS, random).to_bytes(8, "little", signed=True)
            for _ in range(len(tensor.raw_data) // 8)
        )
    else:
        tensor.raw_data = pick((b"\xff", b"\0", b"\x7f"), random) * len(tensor.raw_data)


def _external(model: onnx.ModelProto, texts: _Texts, random: Random) -> None:
    """Makes a tensor external: in a file outside the folder, or at an impossible offset."""
    tensor = _tensor(model, random)
    was_external = bool(tensor.external_data)
    tensor.data_location = TensorProto.EXTERNAL
    if not was_external or random.random() < 0.6:
        path = str(pick(PATHS, random)).encode("utf-8", "surrogatepass")
        tensor.external_data.add(key="location", value=texts.marker(path))
    for key in ("offset", "length"):
        if random.random() < 0.4:
            tensor.external_data.add(key=key, value=pick((*_OFFSETS, "0", "16"), random))


def _hidden_external(model: onnx.ModelProto, texts: _Texts, random: Random) -> None:
    """Puts an external tensor where a check may miss it: attribute, subgraph, sparse tensor."""
    path = str(pick(PATHS, random)).encode("utf-8", "surrogatepass")
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=texts.marker(path))
    constant = helper.make_node("Constant", [], ["hidden_value"], value=tensor)
    what = int(random.integers(4))
    if what == 0:
        model.graph.node.insert(0, constant)
    elif what == 1:
        indices = TensorProto(name="i", data_type=TensorProto.INT64, dims=[4])
        model.graph.sparse_initializer.add(values=tensor, indices=indices, dims=[9])
    elif what == 2:
        function = helper.make_function(
            "hidden", "F", [], ["hidden_value"], [constant], [helper.make_opsetid("", 18)]
        )
        model.functions.append(function)
        model.opset_import.append(helper.make_opsetid("hidden", 1))
        model.graph.node.insert(0, helper.make_node("F", [], ["called"], domain="hidden"))
    else:
        output = helper.make_tensor_value_info("hidden_value", TensorProto.FLOAT, [4])
        branch = helper.make_graph([constant], "branch", [], [output])
        true = helper.make_tensor("condition", TensorProto.BOOL, [], [True])
        model.graph.initializer.append(true)
        node = helper.make_node(
            "If", ["condition"], ["chosen"], then_branch=branch, else_branch=branch
        )
        model.graph.node.insert(0, node)


def _shape(model: onnx.ModelProto, texts: _Texts, random: Random) -> None:
    """Changes the shape, type or name of an input or output."""
    info = pick([*model.graph.input, *model.graph.output], random)
    shape = info.type.tensor_type.shape
    what = int(random.integers(7))
    if what == 0 and shape.dim:
        pick(shape.dim, random).dim_value = pick(_NUMBERS, random)
    elif what == 1 and shape.dim:
        pick(shape.dim, random).dim_param = _text(texts, random)
    elif what == 2:
        info.type.tensor_type.elem_type = pick(_TYPES, random)
    elif what == 3:
        info.name = _text(texts, random)
    elif what == 4 and shape.dim:
        del shape.dim[int(random.integers(len(shape.dim)))]
    elif what == 5:
        shape.dim.add(dim_value=pick(_NUMBERS, random))
    else:
        element = helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
        kinds = (helper.make_sequence_type_proto, helper.make_optional_type_proto)
        info.type.CopyFrom(pick(kinds, random)(element))


def _open_shape(model: onnx.ModelProto, _texts: _Texts, random: Random) -> None:
    """Leaves sizes open, which the configuration then has to state."""
    for value in [*model.graph.input, *model.graph.output]:
        for dimension in value.type.tensor_type.shape.dim[1:]:
            if random.random() < 0.5:
                dimension.dim_param = "any"


def _interface(model: onnx.ModelProto, _texts: _Texts, random: Random) -> None:
    """Adds or removes inputs and outputs."""
    values = pick((model.graph.input, model.graph.output), random)
    if random.random() < 0.5 and values:
        del values[int(random.integers(len(values)))]
    else:
        for number in range(pick((1, 2, 3000), random)):
            values.append(helper.make_tensor_value_info(f"v{number}", TensorProto.FLOAT, [1]))


def _node(model: onnx.ModelProto, texts: _Texts, random: Random) -> None:
    """Changes the operator, inputs or name of a node."""
    if not model.graph.node:
        return
    node = pick(model.graph.node, random)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)]
    what = int(random.integers(6))
    if what == 0:
        node.op_type = pick(_OPERATORS, random)
    elif what == 1 and node.input:
        node.input[int(random.integers(len(node.input)))] = pick(names, random)
    elif what == 2 and node.output:
        node.output[int(random.integers(len(node.output)))] = pick(names, random)
    elif what == 3:
        node.domain = pick(("com.microsoft", "x", "ai.onnx.ml", ""), random)
    elif what == 4:
        model.graph.node.remove(node)
    else:
        node.name = node.op_type = _text(texts, random)


def _attribute(model: onnx.ModelProto, texts: _Texts, random: Random) -> None:
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    if not attributes:
        return
    attribute = pick(attributes, random)
    if attribute.ints:
        attribute.ints[int(random.integers(len(attribute.ints)))] = pick(_NUMBERS, random)
    elif random.random() < 0.7:
        attribute.i = pick(_NUMBERS, random)
    else:
        attribute.name = _text(texts, random)


def _version(model: onnx.ModelProto, texts: _Texts, random: Random) -> None:
    what = int(random.integers(3))
    if what == 0:
        model.ir_version = pick(_NUMBERS, random)
    elif what == 1 and model.opset_import:
        model.opset_import[0].version = pick(_NUMBERS, random)
    else:
        model.opset_import.add(domain=_text(texts, random), version=1)


def _functions(model: onnx.ModelProto, _texts: _Texts, random: Random) -> None:
    """Adds functions that call the next one twice each; the last one may call the first."""
    count = int(random.integers(1, 22))
    for number in range(count):
        called = f"F{number + 1}" if number + 1 < count else pick(("F0", "Identity"), random)
        domain = "" if called == "Identity" else "bomb"
        nodes = [
            helper.make_node(called, ["x"], ["y"], domain=domain),
            helper.make_node(called, ["y"], ["z"], domain=domain),
        ]
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("bomb", 1)]
        function = helper.make_function("bomb", f"F{number}", ["x"], ["z"], nodes, imports)
        model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("bomb", 1))
    start = model.graph.input[0].name if model.graph.input else "x"
    model.graph.node.append(helper.make_node("F0", [start], ["exploded"], domain="bomb"))


def _nested(model: onnx.ModelProto, _texts: _Texts, random: Random) -> None:
    """Nests graphs in graphs."""
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph([helper.make_node("Identity", ["one"], ["inner"])], "g", [], [output])
    graph.initializer.append(one)
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    for _ in range(pick((1, 5, 20, 90), random)):
        node = helper.make_node("If", ["yes"], ["inner"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [output])
        if graph.ByteSize() > 1 << 20:
            break
    model.graph.node.append(graph.node[0])


def _heavy(model: onnx.ModelProto, _texts: _Texts, random: Random) -> None:
    """Adds a valid program that takes all time or all memory."""
    if not model.graph.input:
        return
    start = model.graph.input[0].name
    size = np.array([pick(_NUMBERS, random), pick((1, 2, 65536), random)])
    add = model.graph.initializer.extend
    add([numpy_helper.from_array(size, "size"), numpy_helper.from_array(np.array(True), "go")])
    what = int(random.integers(4))
    if what == 0:
        nodes = [helper.make_node("ConstantOfShape", ["size"], ["heavy"])]
    elif what == 1:
        nodes = [
            helper.make_node("Shape", [start], ["shape"]),
            helper.make_node("ReduceProd", ["shape"], ["product"], keepdims=1),
            helper.make_node("Mul", ["product", "size"], ["larger"]),
            helper.make_node("ConstantOfShape", ["larger"], ["heavy"]),
        ]
    else:
        more = pick((("Identity", ["last"]), ("Concat", ["last", "last"])), random)
        options = {"axis": 0} if more[0] == "Concat" else {}
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["on"], ["on_and_on"]),
                helper.make_node(*more, ["next"], **options),
            ],
            "body",
            [
                helper.make_tensor_value_info("number", TensorProto.INT64, []),
                helper.make_tensor_value_info("on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("last", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("on_and_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
            ],
        )
        values = "ones" if what == 2 else "seen"  # loading may already compute with constants
        nodes = [
            helper.make_node("Cast", [start], ["seen"], to=TensorProto.FLOAT),
            helper.make_node("Loop", ["", "go", values], ["heavy"], body=body),
        ]
        add([numpy_helper.from_array(np.ones(8, np.float32), "ones")])
    model.graph.node.extend(nodes)
    model.graph.output.append(helper.make_tensor_value_info("heavy", TensorProto.FLOAT, None))


_Damage = Callable[[onnx.ModelProto, _Texts, Random], None]
_DAMAGES: tuple[_Damage, ...] = (
    *(_metadata_value,) * 5,
    *(_metadata_key, _metadata_more, _metadata_less),
    *(_tensor_field, _tensor_value) * 2,
    *(_external,) * 4,
    *(_hidden_external,) * 2,
    *(_shape,) * 5,
    *(_open_shape, _interface, _node, _node, _attribute, _version, _functions, _nested, _heavy),
)
