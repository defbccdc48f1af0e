"""The frames on the page are those that the model saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto
from timesformer_runtime import InvalidVideoError, VideoClassifier, VideoNotFoundError, Views
from timesformer_runtime.evaluate.report import frames_seen
from timesformer_runtime.input.preprocess import Preprocessing

from tests.tiny_graphs import (
    FRAMES,
    SIZE,
    TinyGraph,
    decode_all,
    moving_frames,
    own_metadata,
    preprocessor_config,
    write_video,
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 frames, no two alike."""
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", moving_frames(21))


def load(graph: TinyGraph, **options: Any) -> VideoClassifier:
    model = graph.proto().SerializeToString()
    return VideoClassifier.from_pretrained(model, device="cpu", threads=1, **options)


def seen(classifier: VideoClassifier, video: Path) -> npt.NDArray[np.uint8]:
    return np.stack(frames_seen(classifier)({"path": str(video)}))


def model_input(classifier: VideoClassifier, video: Path) -> npt.NDArray[np.float64]:
    """The first view as the graph gets it."""
    first = next(iter(classifier.input.views(classifier.read(video).frames)))
    return np.asarray(first[0], np.float64)


@pytest.mark.parametrize(
    "views",
    [Views(), Views(crops=3), Views(protocol="facebook"), Views(protocol="facebook", crops=3)],
)
def test_normalised_they_are_the_models_input(video: Path, views: Views) -> None:
    classifier = load(TinyGraph(metadata=own_metadata()), views=views)
    frames = seen(classifier, video)
    assert frames.shape == (FRAMES, SIZE, SIZE, 3)
    assert frames.dtype == np.uint8
    preprocessing = Preprocessing.from_dict(preprocessor_config())
    values = (frames / 255 - preprocessing.image_mean) / preprocessing.image_std
    # Half a grey level: the authors' protocol rounds nothing.
    step = 0.51 / 255 / min(preprocessing.image_std)
    expected = model_input(classifier, video).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(values, expected, atol=step)


def test_a_model_of_swapped_channels_shows_true_colours(video: Path) -> None:
    graph = TinyGraph(metadata=own_metadata())
    swapped = seen(load(graph, views=Views(channel_order="bgr")), video)
    np.testing.assert_array_equal(swapped, seen(load(graph), video))


def test_a_graph_that_crops_itself_shows_whole_frames(video: Path) -> None:
    graph = TinyGraph(
        input_name="frames",
        input_type=TensorProto.UINT8,
        shape=("batch", FRAMES, "height", "width", 3),
        metadata=own_metadata(),
    )
    classifier = load(graph)
    np.testing.assert_array_equal(seen(classifier, video), decode_all(video)[[0, 6, 13, 20]])


def test_a_video_that_is_gone_or_broken_is_the_usual_error(tmp_path: Path) -> None:
    frames = frames_seen(load(TinyGraph(metadata=own_metadata())))
    with pytest.raises(VideoNotFoundError):
        frames({"path": str(tmp_path / "gone.mp4")})
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video" * 100)
    with pytest.raises(InvalidVideoError):
        frames({"path": str(broken)})
