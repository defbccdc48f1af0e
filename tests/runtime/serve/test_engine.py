"""The work for one request, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect
from timesformer_runtime import DecodeLimits, VideoClassifier
from timesformer_runtime.input.views import Views
from timesformer_runtime.serve.engine import Engine, Place
from timesformer_runtime.serve.metrics import Metrics


def test_the_reading_ends_where_the_client_has_left(folder: Path) -> None:
    classifier = VideoClassifier.from_pretrained(folder / "shots", device="cpu", threads=1)
    engine = Engine({"shots": classifier}, 1, DecodeLimits(), 0, Metrics())
    here, gone = Place(lambda _: None), Place(lambda _: None)
    gone.is_gone.set()
    video = str(folder / "long.mp4")
    with pytest.raises(ClientDisconnect):
        engine.pipeline(classifier, Views(), gone, engine.limits).read(video)
    assert engine.pipeline(classifier, Views(), here, engine.limits).read(video).frames
    engine.close()
