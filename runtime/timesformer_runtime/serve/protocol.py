"""The Open Inference Protocol, version 2: requests and answers as bytes, and nothing of HTTP.

A request is JSON. With the extension for binary data, the JSON comes first and the values of the
tensors follow, in the order of the inputs; a header states the length of the JSON. A model has two
inputs, of which a request gives one: the input of its graph, or ``video``, the bytes of a video.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidOptionError, listed, quoted
from timesformer_runtime.extras import needs_extra
from timesformer_runtime.model.loaded import LoadedModel
from timesformer_runtime.model.session import TensorInfo

with needs_extra("serve"):
    from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError, model_validator

VERSION = "1"  # of every model
EXTENSIONS = ("binary_tensor_data", "classification")
VIDEO = "video"

_MOST_JSON = 16 << 20  # bytes; parsed numbers take several times as much memory
_LONGEST_DIMENSION = 1 << 31
_MOST_DIMENSIONS = 16  # of a tensor: the product of a million lengths would take minutes
_MOST_TENSORS = 16  # inputs or outputs of a request
_LENGTH = 4  # bytes that state the length of an element of BYTES
_BINARY_OUTPUT = "binary_data_output"
_DATATYPES: Mapping[str, tuple[str, npt.DTypeLike]] = {
    "tensor(float)": ("FP32", np.float32),
    "tensor(float16)": ("FP16", np.float16),
    "tensor(uint8)": ("UINT8", np.uint8),
}

Array = npt.NDArray[Any]


class _Strict(BaseModel):
    """A part of a request; other fields than its own are refused.

    pydantic would describe each field that is too many, and each wrong element of a list, in more
    memory than the request has by a hundred times. So the first one is the last.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    @model_validator(mode="after")
    def _has_no_other_fields(self) -> Self:
        for name in self.model_extra or ():
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"there is no field {quoted(name)}; there are {known}")
        return self


class _Input(_Strict):
    name: str
    datatype: str
    shape: Annotated[
        list[Annotated[int, Field(ge=1, lt=_LONGEST_DIMENSION)]],
        Field(max_length=_MOST_DIMENSIONS),
        FailFast(),
    ]
    parameters: dict[str, Any] = {}
    data: Any = None


class _Output(_Strict):
    name: str
    parameters: dict[str, Any] = {}


class _Request(_Strict):
    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=_MOST_TENSORS), FailFast()]
    outputs: Annotated[list[_Output], Field(max_length=_MOST_TENSORS), FailFast()] = []


@dataclasses.dataclass(frozen=True)
class WantedOutput:
    """An output that a client wants.

    Attributes:
        name: Its name.
        is_binary: True for bytes after the JSON, False for numbers in it.
        classes: How many labels the client wants in place of the values; 0 for the values.
    """

    name: str
    is_binary: bool
    classes: int


@dataclasses.dataclass(frozen=True)
class InferRequest:
    """A request that was read and checked.

    Attributes:
        id: The client's own word for it.
        tensor: The input of the graph; None where there is a video.
        video: A file with the bytes of the video; None where there is a tensor.
        outputs: The outputs that the client wants.
        options: The other parameters, which choose the frames of a video.
    """

    id: str | None
    tensor: Array | None
    video: Path | None
    outputs: tuple[WantedOutput, ...]
    options: Mapping[str, Any]


def read_request(
    body: Path, json_length: int | None, model: LoadedModel, video: Path
) -> InferRequest:
    """Reads a request.

    Args:
        body: A file with the bytes of the request.
        json_length: How many of them are JSON; None for all.
        model: The model that is asked.
        video: The file into which to write the bytes of a video.

    Raises:
        InvalidOptionError: The request is not one of the protocol, or not one for this model.
    """
    size = body.stat().st_size
    if json_length is None:
        json_length = size
    if not 1 <= json_length <= min(size, _MOST_JSON):
        raise InvalidOptionError(
            f"the JSON of the request has {json_length} bytes; it must be 1 to "
            f"{min(size, _MOST_JSON)}, and larger tensors must come as binary data"
        )
    with body.open("rb") as file:
        request = _parsed(file.read(json_length))
    offsets = _offsets(request.inputs, json_length, size)
    if len(request.inputs) != 1:
        raise InvalidOptionError(
            f"the request has {len(request.inputs)} inputs; give one: {graph_input(model).name} "
            f"or {VIDEO}"
        )
    (given,), (offset,) = request.inputs, offsets
    is_video = given.name == VIDEO and graph_input(model).name != VIDEO
    if is_video:
        _write_video(given, body, offset, video)
    return InferRequest(
        request.id,
        None if is_video else _tensor(given, body, offset, graph_input(model)),
        video if is_video else None,
        _wanted(request, model),
        {name: value for name, value in request.parameters.items() if name != _BINARY_OUTPUT},
    )


def _parsed(text: bytes) -> _Request:
    try:
        return _Request.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        is_own = first["type"] == "value_error"  # to which pydantic adds a prefix
        reason = str(first["ctx"]["error"]) if is_own else first["msg"]
        raise InvalidOptionError(
            f"the request is not valid{f' at {quoted(where)}' if where else ''}: {reason}"
        ) from error


def _offsets(inputs: Sequence[_Input], start: int, size: int) -> list[int | None]:
    """Where the binary data of each input begin; None for inputs that are in the JSON.

    Raises:
        InvalidOptionError: The stated sizes are not those of the body.
    """
    offsets: list[int | None] = []
    for given in inputs:
        length = given.parameters.get("binary_data_size")
        if length is None:
            offsets.append(None)
            continue
        if type(length) is not int or not 0 <= length <= size - start:
            raise InvalidOptionError(
                f"`binary_data_size` of {quoted(given.name)} is {quoted(length)}; it must be a "
                f"whole number of at most {size - start}, the bytes that are left of the body"
            )
        offsets.append(start)
        start += length
    if start != size:
        raise InvalidOptionError(
            f"{size - start} bytes of the body belong to no input; correct `binary_data_size` or "
            "the header Inference-Header-Content-Length"
        )
    return offsets


def graph_input(model: LoadedModel) -> TensorInfo:
    """The input of a model's graph."""
    return next(tensor for tensor in model.session.inputs if tensor.name == model.input.name)


def _shape_of(tensor: TensorInfo) -> list[int]:
    """The shape as the protocol writes it: -1 for every length that may change."""
    return [length if isinstance(length, int) else -1 for length in tensor.shape]


def _tensor(given: _Input, body: Path, offset: int | None, wanted: TensorInfo) -> Array:
    """Reads the input of the graph."""
    datatype, dtype = _DATATYPES[wanted.type]
    if given.name != wanted.name:
        raise InvalidOptionError(
            f"there is no input {quoted(given.name)}; there is {wanted.name} and {VIDEO}"
        )
    if given.datatype != datatype:
        raise InvalidOptionError(
            f"{wanted.name} has the datatype {quoted(given.datatype)}; it must be {datatype}"
        )
    shape = _shape_of(wanted)
    fits = len(shape) == len(given.shape) and all(
        length in {-1, other} for length, other in zip(shape, given.shape, strict=True)
    )
    if not fits:
        raise InvalidOptionError(f"{wanted.name} has the shape {given.shape}; it must be {shape}")
    count = math.prod(given.shape)
    if offset is None:
        values = _from_json(given, count, dtype)
    else:
        size = given.parameters["binary_data_size"]
        if size != count * np.dtype(dtype).itemsize:
            raise InvalidOptionError(
                f"{wanted.name} has {size} bytes; {given.shape} of {datatype} are "
                f"{count * np.dtype(dtype).itemsize}"
            )
        values = np.fromfile(body, np.dtype(dtype).newbyteorder("<"), count, offset=offset)
    if not np.isfinite(values).all():
        raise _not_finite(wanted.name)
    return values.astype(dtype, copy=False).reshape(given.shape)


def _from_json(given: _Input, count: int, dtype: npt.DTypeLike) -> Array:
    # As objects: numpy would give every element of a list with texts the room of the longest one.
    values = np.asarray(given.data, dtype=object)
    if values.size != count or not set(map(type, values.flat)) <= {int, float}:
        raise InvalidOptionError(
            f"the data of {given.name} are not {count} numbers, as the shape {given.shape} says"
        )
    try:
        exact = values.ravel().astype(np.float64)
    except OverflowError as error:
        raise _not_finite(given.name) from error
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values are refused
        converted: Array = exact.astype(dtype)
    if np.dtype(dtype).kind == "u" and not np.array_equal(converted, exact):
        raise InvalidOptionError(f"the data of {given.name} are not whole numbers from 0 to 255")
    return converted


def _not_finite(name: str) -> InvalidOptionError:
    return InvalidOptionError(f"{name} has values that are not finite numbers")


def _write_video(given: _Input, body: Path, offset: int | None, video: Path) -> None:
    """Writes the bytes of a video into a file."""
    if given.datatype != "BYTES" or math.prod(given.shape) != 1:
        raise InvalidOptionError(
            f"{VIDEO} is {quoted(given.datatype)} of shape {given.shape}; it must be one element "
            "of BYTES, shape [1]"
        )
    if offset is None:
        video.write_bytes(_decoded(given.data))
        return
    size = given.parameters["binary_data_size"]
    with body.open("rb") as source, video.open("wb") as target:
        source.seek(offset)
        stated = int.from_bytes(source.read(_LENGTH), "little")
        if size < _LENGTH or stated != size - _LENGTH:
            raise InvalidOptionError(
                f"the element of {VIDEO} states {stated} bytes, but its data have "
                f"{max(0, size - _LENGTH)}"
            )
        shutil.copyfileobj(source, target, 1 << 20)  # one input only, so it reaches to the end


def _decoded(data: Any) -> bytes:
    while isinstance(data, list) and len(data) == 1:
        (data,) = data
    try:
        return base64.b64decode(data, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise InvalidOptionError(
            f"the data of {VIDEO} are not one text in base64; write one, or send binary data"
        ) from error


def _wanted(request: _Request, model: LoadedModel) -> tuple[WantedOutput, ...]:
    usual = request.parameters.get(_BINARY_OUTPUT, False)
    main = [name for name in ("logits", "features") if name in model.outputs]
    asked = request.outputs or [_Output(name=name) for name in main or model.outputs]
    wanted: dict[tuple[str, bool], WantedOutput] = {}
    for output in asked:
        if output.name not in model.outputs:
            raise InvalidOptionError(
                f"there is no output {quoted(output.name)}; there is {listed(model.outputs)}"
            )
        is_binary = output.parameters.get("binary_data", usual)
        classes = output.parameters.get("classification", 0)
        if type(is_binary) is not bool or type(classes) is not int or classes < 0:
            raise InvalidOptionError(
                f"`binary_data` of {output.name} must be true or false, and `classification` a "
                "number of labels"
            )
        if classes and output.name != "logits":
            raise InvalidOptionError(f"`classification` is for logits, not for {output.name}")
        form = output.name, classes > 0
        if form in wanted:  # a short request could ask for more values than memory holds
            raise InvalidOptionError(f"{output.name} is asked for twice in one form; ask once")
        wanted[form] = WantedOutput(output.name, is_binary, classes)
    return tuple(wanted.values())


def described(name: str, model: LoadedModel) -> dict[str, Any]:
    """The metadata of a model."""
    given = graph_input(model)
    graph_outputs = {tensor.name: tensor for tensor in model.session.outputs}
    outputs = [(output, graph_outputs[inside]) for output, inside in model.outputs.items()]
    return {
        "name": name,
        "versions": [VERSION],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": given.name, "datatype": _DATATYPES[given.type][0], "shape": _shape_of(given)},
            {"name": VIDEO, "datatype": "BYTES", "shape": [1]},
        ],
        "outputs": [
            {"name": output, "datatype": "FP32", "shape": _shape_of(tensor)}
            for output, tensor in outputs
        ],
    }


def write_answer(
    name: str,
    request: InferRequest,
    values: Mapping[str, npt.NDArray[np.float32]],
    labels: Sequence[str] | None,
) -> tuple[bytes, int | None]:
    """Writes the answer to a request.

    Args:
        name: The name of the model.
        request: The request.
        values: The wanted outputs, with a batch axis.
        labels: The names of the classes, for clients that want labels.

    Returns:
        The body; and how many of its bytes are JSON, None for all.
    """
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for wanted in request.outputs:
        array: Array = values[wanted.name]
        if wanted.classes:
            array = _classes(array, wanted.classes, labels)
        output: dict[str, Any] = {
            "name": wanted.name,
            "datatype": "BYTES" if wanted.classes else "FP32",
            "shape": list(array.shape),
        }
        if wanted.is_binary:
            parts.append(_bytes_of(array))
            output["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            output["data"] = array.ravel().tolist()
        outputs.append(output)
    answer = {"model_name": name, "model_version": VERSION, "outputs": outputs}
    if request.id is not None:
        answer["id"] = request.id
    text = json.dumps(answer).encode()
    return b"".join([text, *parts]), len(text) if parts else None


def _classes(
    logits: npt.NDArray[np.float32], count: int, labels: Sequence[str] | None
) -> npt.NDArray[np.object_]:
    """Writes the best classes as ``value:index:label``, as Triton does."""
    rows = []
    for row in logits:
        best = np.argsort(-row, kind="stable")[:count]
        names = labels or [f"LABEL_{index}" for index in range(len(row))]
        rows.append([f"{row[index]:f}:{index}:{names[index]}" for index in best])
    return np.array(rows, dtype=object)


def _bytes_of(array: Array) -> bytes:
    if array.dtype != object:
        return array.astype("<f4").tobytes()
    texts = [str(text).encode() for text in array.ravel()]
    return b"".join(len(text).to_bytes(_LENGTH, "little") + text for text in texts)
