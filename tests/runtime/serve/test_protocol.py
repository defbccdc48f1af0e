"""The Open Inference Protocol: what a client may send, and one line for everything else.

``tests/end_to_end/test_tritonclient.py`` asks with a client that others wrote.
"""

from __future__ import annotations

import base64
import json
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto
from timesformer_runtime import InvalidOptionError, VideoClassifier
from timesformer_runtime.input.sampling import Sampling
from timesformer_runtime.input.views import Views
from timesformer_runtime.serve import protocol

from tests.service import served
from tests.tiny_graphs import FRAMES, SIZE, TinyGraph, write_sidecars

ROUTE = "/v2/models/shots/infer"


@pytest.fixture(scope="module")
def shape(classifier: VideoClassifier) -> list[int]:
    """The shape of one clip."""
    (tensor,) = classifier.model.session.inputs
    return [1, *(length for length in tensor.shape[1:] if isinstance(length, int))]


def ask(client: httpx.Client, request: object, binary: bytes | None = None) -> httpx.Response:
    text = request if isinstance(request, bytes) else json.dumps(request).encode()
    headers = {} if binary is None else {"Inference-Header-Content-Length": str(len(text))}
    return client.post(ROUTE, content=text + (binary or b""), headers=headers)


def tensor(shape: list[Any], **fields: Any) -> dict[str, Any]:
    return {"name": "pixel_values", "datatype": "FP32", "shape": shape, **fields}


def video(content: bytes, **fields: Any) -> dict[str, Any]:
    return {
        "name": "video",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": len(content) + 4},
        **fields,
    }


def element(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def refusal(answer: httpx.Response) -> str:
    assert answer.status_code == 400, answer.text
    message: str = answer.json()["error"]
    assert "\n" not in message
    assert len(message) < 1000
    return message


def test_metadata(client: httpx.Client, shape: list[int]) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data", "classification"]
    for route in ("/v2/models/shots", "/v2/models/shots/versions/1"):
        metadata = client.get(route).json()
        assert metadata["name"] == "shots"
        assert metadata["inputs"] == [
            {"name": "pixel_values", "datatype": "FP32", "shape": [-1, *shape[1:]]},
            {"name": "video", "datatype": "BYTES", "shape": [1]},
        ]
        assert client.get(f"{route}/ready").json() == {"name": "shots", "ready": True}
    for route in ("/v2/models/other", "/v2/models/shots/versions/2", "/v2/models/other/ready"):
        answer = client.get(route)
        assert answer.status_code == 404
        assert "there is no" in answer.json()["error"]


def test_a_batch_of_clips(
    client: httpx.Client, classifier: VideoClassifier, shape: list[int]
) -> None:
    batch = np.random.default_rng(0).normal(size=[3, *shape[1:]]).astype(np.float32)
    expected = [classifier.run(clip[None], ["logits"], 60.0)["logits"] for clip in batch]
    given = tensor(list(batch.shape), data=batch.tolist())
    answer = ask(client, {"id": "a", "inputs": [given]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == "a"
    (output,) = (one for one in answer.json()["outputs"] if one["name"] == "logits")
    np.testing.assert_allclose(
        np.reshape(output["data"], output["shape"]), expected, rtol=1e-5, atol=1e-6
    )
    given = tensor(list(batch.shape), parameters={"binary_data_size": batch.nbytes})
    wanted = [{"name": "logits", "parameters": {"binary_data": True}}]
    answer = ask(client, {"inputs": [given], "outputs": wanted}, batch.tobytes())
    length = int(answer.headers["Inference-Header-Content-Length"])
    found = np.frombuffer(answer.content[length:], "<f4").reshape(3, -1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_video_with_options(
    client: httpx.Client, classifier: VideoClassifier, folder: Path
) -> None:
    data = (folder / "short.mp4").read_bytes()
    other = VideoClassifier(classifier.model, Views(Sampling("center", 2)), {})
    expected = other.logits(folder / "short.mp4")
    parameters = {"sampling": "center", "frame_sampling_rate": 2}
    text = base64.b64encode(data).decode()
    for request, binary in (
        ({"inputs": [video(data)], "parameters": parameters}, element(data)),
        (
            {"inputs": [video(data, parameters={}, data=[text])], "parameters": parameters},
            None,
        ),
    ):
        answer = ask(client, request, binary)
        assert answer.status_code == 200, answer.text
        (output,) = (one for one in answer.json()["outputs"] if one["name"] == "logits")
        np.testing.assert_allclose(output["data"], expected, rtol=1e-5, atol=1e-6)
    message = refusal(
        ask(client, {"inputs": [video(data)], "parameters": {"samplin": 1}}, element(data))
    )
    assert "did you mean `sampling`" in message


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"{", "not valid"),
        (b"[]", "not valid"),
        (b"null", "not valid"),
        (b"\xff\xfe", "not valid"),
        (b'{"inputs": ' + b"[" * 100_000, "not valid"),
        (b'{"inputs": []}', "inputs"),
        (b'{"inputs": [{"name": "pixel_values"}]}', "datatype"),
        (b'{"inputs": [], "input": []}', "inputs"),
        ({"inputs": [tensor([1]), tensor([1])]}, "2 inputs"),
        ({"inputs": [tensor([1, 2], data=[1, 2])]}, "it must be [-1,"),
        ({"inputs": [tensor([], data=[])]}, "it must be [-1,"),
        ({"inputs": [tensor([0, 1], data=[])]}, "shape"),
        ({"inputs": [tensor([-1, 1], data=[])]}, "shape"),
        ({"inputs": [tensor([1.5], data=[])]}, "shape"),
        ({"inputs": [tensor([10**30], data=[])]}, "shape"),
        ({"inputs": [tensor([1] * 33, data=[])]}, "not valid at 'inputs.0.shape'"),
        (
            {"inputs": [video(b"", parameters={}, shape=[2**31 - 1] * 33, data="")]},
            "not valid at 'inputs.0.shape'",
        ),
        ({"inputs": [{**tensor([1]), "name": "pixels"}]}, "there is no input 'pixels'"),
        ({"inputs": [{**tensor([1]), "datatype": "INT64"}]}, "it must be FP32"),
        ({"inputs": [tensor([1])], "input": 1}, "'input'"),
        ({"inputs": [tensor([1], dat=[1])]}, "'dat'"),
        ({"inputs": [tensor([1], parameters={"binary_data_size": 2**31})]}, "whole number"),
        ({"inputs": [tensor([1], parameters={"binary_data_size": -4})]}, "whole number"),
        ({"inputs": [tensor([1], parameters={"binary_data_size": "4"})]}, "whole number"),
        ({"inputs": [video(b"", parameters={}, data=["no base64!"])]}, "base64"),
        ({"inputs": [video(b"", parameters={}, data=None)]}, "base64"),
        ({"inputs": [video(b"", parameters={}, shape=[2], data=["", ""])]}, "one element"),
    ],
)
def test_requests_that_are_not_valid(client: httpx.Client, request_: object, words: str) -> None:
    assert words in refusal(ask(client, request_))


MANY = 100_000


@pytest.mark.parametrize(
    "request_",
    [
        {str(name): 1 for name in range(MANY)},
        {"inputs": [0] * MANY},
        {"inputs": [{str(name): 1 for name in range(MANY)}]},
        {"inputs": [tensor([1])] * MANY},
        {"inputs": [tensor([1] * MANY)]},
        {"inputs": [tensor(["x"] * MANY)]},
        {"inputs": [video(b"", parameters={}, shape=[2**31 - 1] * MANY)]},
        {"inputs": [tensor([1])], "outputs": [0] * MANY},
        {"inputs": [tensor([1])], "outputs": [{"name": "logits"}] * MANY},
        {"inputs": [tensor([1, FRAMES, 3, SIZE, SIZE], data=["x" * 5000] + ["a"] * MANY)]},
        {"inputs": [tensor([1, FRAMES, 3, SIZE, SIZE], data=[[]] * MANY)]},
    ],
    ids=lambda request: json.dumps(request)[:60],
)
def test_memory_for_a_request_is_in_proportion(
    classifier: VideoClassifier, tmp_path: Path, request_: object
) -> None:
    text = json.dumps(request_).encode()
    body = tmp_path / "body"
    body.write_bytes(text)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidOptionError) as refused:
            protocol.read_request(body, None, classifier.model, tmp_path / "video")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(str(refused.value)) < 1000
    assert peak < 32 * len(text)


@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "-Infinity", "1e999", "1e39", '"x"', "null", "[1, 2]", "true", "9" * 999],
)
def test_values_that_are_not_finite_numbers(
    client: httpx.Client, shape: list[int], value: str
) -> None:
    count = int(np.prod(shape))
    data = "[" + "0," * (count - 1) + value + "]"
    text = json.dumps({"inputs": [tensor(shape, data="DATA")]}).replace('"DATA"', data)
    assert refusal(ask(client, text.encode()))


def test_binary_data_that_are_not_finite(client: httpx.Client, shape: list[int]) -> None:
    values = np.full(shape, np.nan, np.float32)
    given = tensor(shape, parameters={"binary_data_size": values.nbytes})
    assert "not finite" in refusal(ask(client, {"inputs": [given]}, values.tobytes()))


def test_binary_sizes_that_lie(client: httpx.Client, shape: list[int], folder: Path) -> None:
    values = np.zeros(shape, np.float32).tobytes()
    for stated, sent in ((len(values), values[:-4]), (len(values) - 4, values), (4, values[:4])):
        given = tensor(shape, parameters={"binary_data_size": stated})
        assert refusal(ask(client, {"inputs": [given]}, sent))
    data = (folder / "short.mp4").read_bytes()
    for stated in (0, len(data) - 1, len(data) + 1, 2**32 - 1):
        lying = stated.to_bytes(4, "little") + data
        assert "states" in refusal(ask(client, {"inputs": [video(data)]}, lying))
    tiny = video(b"", parameters={"binary_data_size": 2})
    assert "states" in refusal(ask(client, {"inputs": [tiny]}, b"xx"))


@pytest.mark.parametrize("length", ["0", "-1", "x", "1e3", "999999999", "9" * 5000, "²"])
def test_header_lengths_that_lie(client: httpx.Client, length: str) -> None:
    headers = httpx.Headers({b"Inference-Header-Content-Length": length.encode()})
    answer = client.post(ROUTE, content=b'{"inputs": []}', headers=headers)
    assert refusal(answer)


@pytest.mark.parametrize(
    "output",
    [
        {"name": "other"},
        {"name": "logits", "parameters": {"binary_data": "yes"}},
        {"name": "logits", "parameters": {"classification": -1}},
        {"name": "logits", "parameters": {"classification": True}},
    ],
)
def test_outputs_that_are_not_there(
    client: httpx.Client, shape: list[int], output: dict[str, Any]
) -> None:
    given = tensor(shape, data=np.zeros(shape).tolist())
    message = refusal(ask(client, {"inputs": [given], "outputs": [output]}))
    assert output["name"] in message


def test_an_output_is_given_once_in_each_form(client: httpx.Client, shape: list[int]) -> None:
    values, labels = {"name": "logits"}, {"name": "logits", "parameters": {"classification": 1}}
    given = {"inputs": [tensor(shape, data=np.zeros(shape).tolist())]}
    answer = ask(client, {**given, "outputs": [values, labels]})
    assert [output["datatype"] for output in answer.json()["outputs"]] == ["FP32", "BYTES"]
    for outputs in ([values, values], [labels, values, labels]):
        assert "logits is asked for twice" in refusal(ask(client, {**given, "outputs": outputs}))


def test_options_without_effect(client: httpx.Client, shape: list[int]) -> None:
    given = tensor(shape, data=np.zeros(shape).tolist())
    message = refusal(ask(client, {"inputs": [given], "parameters": {"sampling": "center"}}))
    assert "sampling" in message


def test_a_broken_video(client: httpx.Client) -> None:
    data = b"no video" * 50
    answer = ask(client, {"inputs": [video(data)]}, element(data))
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("video ")


def test_tensors_of_other_types(folder: Path) -> None:
    """Frames that the graph preprocesses itself, float16, and a second output."""
    graphs = {
        "frames": TinyGraph(
            input_name="frames",
            input_type=TensorProto.UINT8,
            shape=("batch", FRAMES, "height", "width", 3),
            features=True,
        ),
        "half": TinyGraph(input_type=TensorProto.FLOAT16),
    }
    for name, graph in graphs.items():
        graph.save(folder / name / "onnx" / "model.onnx")
        write_sidecars(folder / name)
    frames = np.random.default_rng(0).integers(0, 256, (1, FRAMES, 30, 40, 3), np.uint8)
    pixels = np.random.default_rng(0).normal(size=(1, FRAMES, 3, SIZE, SIZE)).astype(np.float16)
    models = [folder / name for name in graphs]
    with (
        served(*models, "--device", "cpu", "--max-pixels", "1200") as service,
        service.client() as client,
    ):
        for model, values, datatype in zip(
            models, (frames, pixels), ("UINT8", "FP16"), strict=True
        ):
            route = f"/v2/models/{model.name}"
            metadata = client.get(route).json()
            assert metadata["inputs"][0]["datatype"] == datatype
            given = {
                "name": metadata["inputs"][0]["name"],
                "datatype": datatype,
                "shape": list(values.shape),
            }
            binary = {**given, "parameters": {"binary_data_size": values.nbytes}}
            text = json.dumps({"inputs": [binary]}).encode()
            headers = {"Inference-Header-Content-Length": str(len(text))}
            answers = [
                client.post(f"{route}/infer", content=text + values.tobytes(), headers=headers),
                client.post(
                    f"{route}/infer", json={"inputs": [{**given, "data": values.tolist()}]}
                ),
            ]
            with VideoClassifier.from_pretrained(model, device="cpu") as classifier:
                expected = classifier.run(values, classifier.outputs, 60.0)
            for answer in answers:
                assert answer.status_code == 200, answer.text
                found = {one["name"]: one for one in answer.json()["outputs"]}
                assert found.keys() == expected.keys()
                for output, array in expected.items():
                    assert found[output]["shape"] == [1, len(array)]
                    np.testing.assert_allclose(found[output]["data"], array, rtol=1e-3, atol=1e-3)
        large: dict[str, Any] = {"name": "frames", "datatype": "UINT8"}
        large["shape"] = [1, FRAMES, 31, 40, 3]
        large["data"] = np.zeros(large["shape"]).astype(int).tolist()
        answer = client.post("/v2/models/frames/infer", json={"inputs": [large]})
        assert answer.status_code == 413
        assert "40x31 pixels" in answer.json()["error"]
        large["data"] = np.full(large["shape"], 256).tolist()
        answer = client.post("/v2/models/frames/infer", json={"inputs": [large]})
        assert "from 0 to 255" in refusal(answer)
