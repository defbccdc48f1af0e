"""Asks a running service with the unmodified ``tritonclient``; imports nothing of this project.

    python triton_client.py ADDRESS MODEL VIDEO LOGITS.npy

``make check-serve`` runs it in an environment of its own, because tritonclient wants other versions
of packages than the exporter. LOGITS.npy has the expected logits of the video, [classes].
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient import http
from tritonclient.utils import InferenceServerException


def main() -> None:
    address, model, video, logits = sys.argv[1:]
    expected = np.load(logits)
    with http.InferenceServerClient(address.removeprefix("http://")) as client:
        _check_metadata(client, model)
        _check_video(client, model, Path(video).read_bytes(), expected)
        _check_tensor(client, model)
        _check_errors(client, model)
    print("tritonclient agrees")


def _check_metadata(client: Any, model: str) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model)
    assert client.is_model_ready(model, "1")
    assert not client.is_model_ready("other")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata(model)
    assert metadata["name"] == model
    assert [value["name"] for value in metadata["inputs"]] == ["pixel_values", "video"]


def _check_video(client: Any, model: str, video: bytes, expected: Any) -> None:
    given = http.InferInput("video", [1], "BYTES")
    given.set_data_from_numpy(np.array([video], dtype=object))
    answer = client.infer(model, [given], request_id="seven")
    assert answer.get_response()["id"] == "seven"
    np.testing.assert_allclose(answer.as_numpy("logits")[0], expected, rtol=1e-4, atol=1e-4)
    for is_binary in (True, False):
        output = http.InferRequestedOutput("logits", binary_data=is_binary, class_count=2)
        answer = client.infer(
            model, [given], outputs=[output], parameters={"sampling": "uniform", "short": "wrap"}
        )
        rows = answer.as_numpy("logits")
        assert rows.shape == (1, 2)
        best = rows[0][0].decode() if isinstance(rows[0][0], bytes) else rows[0][0]
        assert int(best.split(":")[1]) == int(expected.argmax())


def _check_tensor(client: Any, model: str) -> None:
    shape = client.get_model_metadata(model)["inputs"][0]["shape"]
    values = np.random.default_rng(0).normal(size=[2, *shape[1:]]).astype(np.float32)
    answers = []
    for given_binary in (True, False):
        for asked_binary in (True, False):
            given = http.InferInput("pixel_values", list(values.shape), "FP32")
            given.set_data_from_numpy(values, binary_data=given_binary)
            output = http.InferRequestedOutput("logits", binary_data=asked_binary)
            answers.append(client.infer(model, [given], outputs=[output]).as_numpy("logits"))
    for answer in answers:
        assert answer.shape[0] == 2
        np.testing.assert_allclose(answer, answers[0], rtol=1e-5, atol=1e-5)


def _check_errors(client: Any, model: str) -> None:
    given = http.InferInput("pixel_values", [1, 2], "FP32")
    given.set_data_from_numpy(np.zeros([1, 2], np.float32))
    _check_refused(lambda: client.infer(model, [given]), "it must be [-1, ")
    _check_refused(lambda: client.infer("other", [given]), "there is no model 'other'")
    given = http.InferInput("video", [1], "BYTES")
    given.set_data_from_numpy(np.array([b"no video" * 100], dtype=object))
    _check_refused(lambda: client.infer(model, [given]), "video cannot be opened")


def _check_refused(ask: Any, words: str) -> None:
    try:
        ask()
    except InferenceServerException as error:
        message = str(error)
    else:
        message = "(not refused)"
    assert words in message, message


if __name__ == "__main__":
    main()
