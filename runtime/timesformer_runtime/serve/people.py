"""The routes for people: ``/v1/classify``, ``/v1/timeline``, ``/v1/models``."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import functools
import json
from collections.abc import AsyncIterator
from typing import Any

from timesformer_runtime.classifier import VideoClassifier
from timesformer_runtime.errors import TimesformerError
from timesformer_runtime.extras import needs_extra
from timesformer_runtime.results import PartResult, Ranking, VideoResult
from timesformer_runtime.serve.pictures import read_pictures
from timesformer_runtime.serve.place import Place
from timesformer_runtime.serve.query import OptionReader
from timesformer_runtime.serve.service import Service
from timesformer_runtime.serve.uploads import Upload, receive_video
from timesformer_runtime.workloads.timeline import Timeline
from timesformer_runtime.workloads.windows import WindowSettings

with needs_extra("serve"):
    from fastapi import APIRouter, Request
    from fastapi.responses import JSONResponse, Response, StreamingResponse
    from starlette.types import Message, Receive, Scope, Send

_MOST_PICTURES = 32

_VIDEO_BODY: dict[str, Any] = {
    "required": True,
    "description": "The bytes of a video, or a form with one file.",
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"video": {"type": "string", "format": "binary"}},
                "required": ["video"],
            }
        },
    },
}


def people_routes(
    service: Service, classify_options: OptionReader, timeline_options: OptionReader
) -> APIRouter:
    """Makes the routes.

    Args:
        service: Works for the requests.
        classify_options: Reads the query of ``/v1/classify``.
        timeline_options: Reads the query of ``/v1/timeline``.
    """
    router = APIRouter(prefix="/v1", tags=["videos"])

    @router.get("/models", summary="List the loaded models")
    async def models() -> JSONResponse:
        described = [_described(name, model) for name, model in service.engine.models.items()]
        return JSONResponse({"models": described})

    @router.post(
        "/classify", summary="Classify a video", openapi_extra=_described_request(classify_options)
    )
    async def classify(request: Request) -> JSONResponse:
        options = classify_options.from_query(request.query_params.multi_items())
        name, classifier = service.engine.model(options.pop("model"))
        with service.engine.place() as place:
            upload = await receive_video(request, place, service)
            job = functools.partial(_classify, service, classifier, place, upload, **options)
            with service.explained(upload.names, name):
                result, pictures = await service.engine.work(request, place, job)
        service.engine.metrics.observe_all(result.seconds)
        return JSONResponse({"video": upload.name, **result.to_dict(), **pictures})

    @router.post(
        "/timeline",
        summary="Classify a long video, window after window",
        description="Server-sent events while the video is read: segment, then end or error.",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
        openapi_extra=_described_request(timeline_options),
    )
    async def timeline(request: Request) -> Response:
        options = timeline_options.from_query(request.query_params.multi_items())
        name, classifier = service.engine.model(options.pop("model"))
        place = service.engine.take_place()
        try:
            upload = await receive_video(request, place, service)
            job = functools.partial(_begin_timeline, service, classifier, place, upload, **options)
            with service.explained(upload.names, name):
                # A file that is not a video is an error with a status of its own.
                segments, first = await service.engine.work(request, place, job)
        except BaseException:
            place.is_gone.set()
            place.leave()
            raise
        events = _events(service, place, segments, first, (upload.names, name))
        return _Events(place, events, service.settings.send_seconds)

    return router


def _described_request(options: OptionReader) -> dict[str, Any]:
    """What the pages of OpenAPI say about a request that FastAPI does not read itself."""
    return {"parameters": options.parameters, "requestBody": _VIDEO_BODY}


def _described(name: str, classifier: VideoClassifier) -> dict[str, Any]:
    return {
        "name": name,
        "dtype": classifier.dtype,
        "device": classifier.device,
        "threads": classifier.threads,
        "num_frames": classifier.num_frames,
        "labels": classifier.labels,
        "outputs": classifier.outputs,
        "notes": classifier.notes,
    }


def _classify(
    service: Service,
    classifier: VideoClassifier,
    place: Place,
    upload: Upload,
    **options: Any,
) -> tuple[VideoResult, dict[str, Any]]:
    """Classifies a video, in a worker thread.

    The thread also writes the end of the upload, and removes it: to leave that to other threads
    costs switches between threads.
    """
    try:
        return _result(service, classifier, place, str(upload.stored()), **options)
    finally:
        place.clean()


def _result(
    service: Service,
    classifier: VideoClassifier,
    place: Place,
    video: str,
    **options: Any,
) -> tuple[VideoResult, dict[str, Any]]:
    engine = service.engine
    pipeline = engine.pipeline(classifier, options["views"], place, engine.limits)
    pipeline.check_outputs(["logits"])
    reading = pipeline.read(video)
    place.check()
    answer = pipeline.predict(reading.frames, Ranking(options["top_k"]), spent=reading.seconds)
    result = reading.result(answer)
    if not options["pictures"]:
        return result, {}
    place.check()
    return result, {"pictures": _pictures(service, video, result)}


def _pictures(service: Service, video: str, result: VideoResult) -> list[dict[str, Any]]:
    """Gives the first frames that the model saw as small pictures."""
    indices = list(dict.fromkeys(result.indices))[:_MOST_PICTURES]
    limits = service.engine.limits.in_reader_process()
    job = functools.partial(read_pictures, indices=indices, limits=limits)
    return [
        {
            "index": index,
            "time": time,
            "jpeg": f"data:image/jpeg;base64,{base64.b64encode(data).decode()}",
        }
        for index, time, data in service.engine.read(job, video)
    ]


def _begin_timeline(
    service: Service,
    classifier: VideoClassifier,
    place: Place,
    upload: Upload,
    **options: Any,
) -> tuple[Timeline, PartResult | None]:
    """Gives a timeline and its first segment, in a worker thread."""
    engine = service.engine
    limits = dataclasses.replace(engine.limits, max_seconds=service.settings.timeline_seconds)
    segments = Timeline(
        engine.pipeline(classifier, options["views"], place, limits),
        str(upload.stored()),
        WindowSettings(options["window"], options["stride"]),
        Ranking(options["top_k"]),
        merge=options["merge"],
    )
    place.clean_later(segments.close)
    return segments, next(segments, None)


async def _events(
    service: Service,
    place: Place,
    segments: Timeline,
    first: PartResult | None,
    names: tuple[dict[str, str], str],
) -> AsyncIterator[bytes]:
    """Gives the events of a timeline, the first segment of which is there."""
    segment = first
    while segment is not None:
        service.engine.metrics.observe_all(segment.seconds)
        yield _event("segment", {**segment.to_dict(), "duration": segments.duration})
        try:
            segment = await service.engine.work_unwatched(place, lambda: next(segments, None))
        except (TimesformerError, MemoryError) as error:
            _, line = service.noted(error, *names)
            yield _event("error", {"error": line})
            return
    yield _event("end", {"duration": segments.duration, "problems": list(segments.problems)})


def _event(kind: str, values: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(values)}\n\n".encode()


class _Events(StreamingResponse):
    """Server-sent events; gives the place back when the last one is sent, or the client leaves."""

    def __init__(self, place: Place, events: AsyncIterator[bytes], send_seconds: float) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._place = place
        self._send_seconds = send_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._send_seconds):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            pass  # the client takes no more; the connection is closed
        finally:
            self._place.is_gone.set()
            self._place.leave()
