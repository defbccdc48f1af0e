"""The work for one request, without a server."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from pathlib import Path

import click
import httpx
import pytest
from starlette.requests import ClientDisconnect
from timesformer_runtime import DecodeLimits, VideoClassifier
from timesformer_runtime.errors import InferenceTimeoutError, InvalidVideoError
from timesformer_runtime.input.views import Views
from timesformer_runtime.results import Ranking
from timesformer_runtime.serve import protocol
from timesformer_runtime.serve.app import make_app
from timesformer_runtime.serve.engine import Engine
from timesformer_runtime.serve.metrics import Metrics
from timesformer_runtime.serve.place import Place
from timesformer_runtime.serve.query import OptionReader, Queries
from timesformer_runtime.serve.service import Service
from timesformer_runtime.serve.settings import ServiceSettings
from timesformer_runtime.workloads.timeline import Timeline
from timesformer_runtime.workloads.windows import WindowSettings

from tests.patience import PATIENCE

_LAST = 10


class LeavingPlace(Place):
    """A place whose client leaves when it is looked after for the tenth time."""

    calls = 0

    def check(self) -> None:
        self.calls += 1
        if self.calls == _LAST:
            self.is_gone.set()
        super().check()


@pytest.mark.parametrize("workload", ["clip", "timeline"])
def test_a_client_that_leaves_ends_the_reading(folder: Path, workload: str) -> None:
    classifier = VideoClassifier.from_pretrained(folder / "shots", device="cpu", threads=1)
    engine = Engine({"shots": classifier}, 1, DecodeLimits(), 0, Metrics())
    video = str(folder / "long.mp4")

    def work(place: Place) -> object:
        pipeline = engine.pipeline(classifier, Views(), place, engine.limits)
        if workload == "clip":
            return pipeline.read(video)
        with contextlib.closing(Timeline(pipeline, video, WindowSettings(8.0), Ranking(1))) as one:
            return next(one)

    staying, leaving = Place(lambda _: None), LeavingPlace(lambda _: None)
    with contextlib.closing(engine):
        assert engine._timed(staying, lambda: work(staying), 0.0)
        with pytest.raises(ClientDisconnect):
            engine._timed(leaving, lambda: work(leaving), 0.0)
    assert leaving.calls == _LAST


def test_a_place_is_held_while_a_thread_writes(folder: Path) -> None:
    classifier = VideoClassifier.from_pretrained(folder / "shots", device="cpu", threads=1)
    engine = Engine({"shots": classifier}, 1, DecodeLimits(), 0, Metrics())
    begun, may_end = threading.Event(), threading.Event()

    def write() -> None:
        begun.set()
        may_end.wait(PATIENCE)

    async def leave_early() -> None:
        released = asyncio.Event()
        place = Place(lambda _: released.set())
        writing = asyncio.create_task(engine.in_writer_thread(place, write))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        place.leave()
        assert not released.is_set()
        may_end.set()
        await asyncio.wait_for(released.wait(), PATIENCE)

    with contextlib.closing(engine):
        asyncio.run(leave_early())


def test_a_disk_that_is_full_of_a_request_has_no_room_for_its_video(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(protocol, "_write_video", full)
    classifier = VideoClassifier.from_pretrained(folder / "shots", device="cpu", threads=1)
    engine = Engine({"shots": classifier}, 1, DecodeLimits(), 0, Metrics())
    options = OptionReader(click.Command("none", callback=dict))
    app = make_app(
        Service(engine, ServiceSettings(DecodeLimits()), tmp_path),
        Queries(classify=options, timeline=options, infer=options),
    )

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            video = {"name": "video", "datatype": "BYTES", "shape": [1], "data": ["eA=="]}
            return await client.post("/v2/models/shots/infer", json={"inputs": [video]})

    with contextlib.closing(engine):
        answer = asyncio.run(ask())
    assert answer.status_code == 507
    assert "No space left" in answer.json()["error"]
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_service_is_counted_and_logged(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = VideoClassifier.from_pretrained(folder / "shots", device="cpu", threads=1)
    engine = Engine({"shots": classifier}, 1, DecodeLimits(), 0, Metrics())
    service = Service(engine, ServiceSettings(DecodeLimits()), tmp_path)
    with contextlib.closing(engine):
        names = {"/uploads/1": "a.mp4"}
        late, wrong = InferenceTimeoutError("/uploads/1: late"), InvalidVideoError("wrong")
        assert service.noted(late, names, "shots") == (503, "a.mp4: late")
        assert service.noted(wrong, names, "shots") == (422, "wrong")
    assert caplog.messages == ["a.mp4: late"]
    assert b'timesformer_errors_total{kind="InferenceTimeoutError"} 1.0' in engine.metrics.text()
