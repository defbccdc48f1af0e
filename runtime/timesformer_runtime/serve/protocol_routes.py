"""The routes of the Open Inference Protocol, version 2, over REST."""

from __future__ import annotations

import functools
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from timesformer_runtime.classifier import VideoClassifier
from timesformer_runtime.errors import InvalidOptionError, VideoLimitError, listed, quoted
from timesformer_runtime.extras import needs_extra
from timesformer_runtime.input.views import Views
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.results import Seconds
from timesformer_runtime.serve import protocol
from timesformer_runtime.serve.place import Place
from timesformer_runtime.serve.protocol import InferRequest
from timesformer_runtime.serve.query import OptionReader
from timesformer_runtime.serve.service import Service
from timesformer_runtime.serve.uploads import receive_body, storing

with needs_extra("serve"):
    from fastapi import APIRouter, HTTPException, Request
    from fastapi.responses import Response

_JSON_LENGTH = "Inference-Header-Content-Length"

Values = dict[str, npt.NDArray[np.float32]]


def protocol_routes(service: Service, options: OptionReader) -> APIRouter:
    """Makes the routes, but for those of the health.

    Args:
        service: Works for the requests.
        options: Reads the parameters of a request with a video.
    """
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    @router.get("", summary="Describe the server")
    async def server() -> dict[str, Any]:
        return {
            "name": "timesformer",
            "version": version("timesformer-onnx"),
            "extensions": list(protocol.EXTENSIONS),
        }

    def found(request: Request, name: str) -> VideoClassifier:
        asked = request.path_params.get("model_version", protocol.VERSION)
        if asked != protocol.VERSION:
            raise HTTPException(
                404, f"there is no version {quoted(asked)}; there is {protocol.VERSION}"
            )
        return service.engine.model(name)[1]

    async def metadata(request: Request, name: str) -> dict[str, Any]:
        return protocol.described(name, found(request, name).model)

    async def ready(request: Request, name: str) -> dict[str, Any]:
        found(request, name).check_open()
        return {"name": name, "ready": True}

    async def infer(request: Request, name: str) -> Response:
        classifier = found(request, name)
        length = _json_length(request)
        engine = service.engine
        with engine.place() as place:
            body = await receive_body(request, place, service)
            video = service.new_path()
            place.clean_later(functools.partial(video.unlink, missing_ok=True))

            def job() -> tuple[bytes, int | None, Seconds]:
                path = body.stored()
                with storing():
                    asked = protocol.read_request(path, length, classifier.model, video)
                return _infer(service, name, classifier, place, asked, options)

            with service.explained({str(video): protocol.VIDEO}, name):
                content, json_length, seconds = await engine.work(request, place, job)
        engine.metrics.observe_all(seconds)
        if json_length is None:
            return Response(content, media_type="application/json")
        return Response(
            content,
            media_type="application/octet-stream",
            headers={_JSON_LENGTH: str(json_length)},
        )

    for path in ("/models/{name}", "/models/{name}/versions/{model_version}"):
        shown = "versions" not in path
        router.get(path, summary="Describe a model", include_in_schema=shown)(metadata)
        router.get(f"{path}/ready", summary="Tell that a model is loaded", include_in_schema=shown)(
            ready
        )
        router.post(
            f"{path}/infer",
            summary="Run a model on a tensor or a video",
            openapi_extra={"requestBody": {"required": True, **_REQUEST}},
            response_class=Response,
            responses={200: _ANSWER},
            include_in_schema=shown,
        )(infer)
    return router


_CONTENT: dict[str, Any] = {
    "application/json": {"schema": {"type": "object"}},
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
}
_REQUEST: dict[str, Any] = {
    "description": "A request of the Open Inference Protocol: JSON, or JSON and binary data.",
    "content": _CONTENT,
}
_ANSWER: dict[str, Any] = {
    "description": "An answer of the protocol: JSON, or JSON and binary data.",
    "content": _CONTENT,
}


def _json_length(request: Request) -> int | None:
    text = request.headers.get(_JSON_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 18:
        raise HTTPException(400, f"{_JSON_LENGTH} is {quoted(text)}; it must be a number of bytes")
    return int(text)


def _infer(
    service: Service,
    name: str,
    classifier: VideoClassifier,
    place: Place,
    request: InferRequest,
    options: OptionReader,
) -> tuple[bytes, int | None, Seconds]:
    """Answers a request, in a worker thread."""
    outputs = list(dict.fromkeys(output.name for output in request.outputs))
    views = Views()
    if request.video is None and request.options:
        raise InvalidOptionError(
            f"{listed(request.options)} have no effect on a tensor; leave them out, or send a "
            f"{protocol.VIDEO}"
        )
    if request.video is not None:
        views = options.from_mapping(request.options)["views"]
    pipeline = service.engine.pipeline(classifier, views, place, service.settings.limits)
    pipeline.check_outputs(outputs)
    if request.video is None:
        values, seconds = _of_tensor(pipeline, request, outputs, place)
    else:
        values, seconds = _of_video(pipeline, request.video, outputs, place)
    return (*protocol.write_answer(name, request, values, classifier.labels), seconds)


def _of_tensor(
    pipeline: Pipeline, request: InferRequest, outputs: list[str], place: Place
) -> tuple[Values, Seconds]:
    """Runs the model on each clip of a batch."""
    assert request.tensor is not None  # noqa: S101  # a request without a video has one
    _check_frames(pipeline, request.tensor)
    timer = pipeline.limits.run_timer(0.0)
    start = time.perf_counter()
    rows = []
    for clip in request.tensor:
        place.check()
        rows.append(pipeline.run(clip[None], outputs, timer()))
    values = {
        output: np.stack([row[output] for row in rows])
        if rows[0][output].ndim == 1
        else np.concatenate([row[output] for row in rows])
        for output in outputs
    }
    return values, Seconds(decode=0.0, preprocess=0.0, inference=time.perf_counter() - start)


def _check_frames(pipeline: Pipeline, tensor: npt.NDArray[Any]) -> None:
    """Checks the size of frames that a graph of its own resizes."""
    if pipeline.model.input.takes_frames:
        height, width = tensor.shape[2:4]
        if height * width > pipeline.limits.max_pixels:
            raise VideoLimitError(
                f"the frames have {width}x{height} pixels, above the limit of "
                f"{pipeline.limits.max_pixels}; send smaller ones"
            )


def _of_video(
    pipeline: Pipeline, video: Path, outputs: list[str], place: Place
) -> tuple[Values, Seconds]:
    reading = pipeline.read(str(video))
    place.check()
    answer = pipeline.predict(reading.frames, None, outputs, spent=reading.seconds)
    values = {
        output: array[None] if array.ndim == 1 else array
        for output, array in answer.outputs.items()
    }
    return values, reading.result(answer).seconds
