"""Heat lies where the patch is: through resize, crops, protocols and time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto
from timesformer_runtime import VideoClassifier, Views
from timesformer_runtime.errors import InvalidModelError, MissingOutputError
from timesformer_runtime.explain import Explanation, ViewHeat, explanation_of
from timesformer_runtime.explain.explanation import HeatScale
from timesformer_runtime.explain.moving_heat import MovingHeat
from timesformer_runtime.explain.regions import Geometry
from timesformer_runtime.input.sampling import Sampling
from timesformer_runtime.results import View

from tests.bright_model import COLUMNS, PATCH, ROWS, frames_with_square, write_bright_model
from tests.tiny_graphs import FRAMES, TinyGraph, moving_frames, own_metadata, write_exported_model

Rgb = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bright_model(tmp_path_factory.mktemp("bright") / "model")


def _classifier(model: Path, **views: Any) -> VideoClassifier:
    return VideoClassifier.from_pretrained(model, device="cpu", views=Views(**views))


def _over_grey(classifier: VideoClassifier, found: Explanation, height: int, width: int) -> Rgb:
    """Lays the heat over a grey frame of the video's size, at its start."""
    heat = MovingHeat(found.views, found.scale, Geometry(classifier))
    return heat.over(np.full((height, width, 3), 90, np.uint8), 0.0, (height, width))


def _hottest(picture: Rgb) -> tuple[float, float]:
    """The middle of the yellow pixels: row and column."""
    yellow = picture[..., 0].astype(int) - picture[..., 2]
    rows, columns = np.nonzero(yellow > 0.9 * yellow.max())
    return float(rows.mean()), float(columns.mean())


@pytest.mark.parametrize("views", [{}, {"crops": 3}, {"protocol": "facebook", "crops": 3}], ids=str)
@pytest.mark.parametrize(
    ("size", "corner"),
    [((48, 64), (20, 30)), ((48, 48), (4, 33)), ((96, 48), (30, 10)), ((40, 120), (15, 50))],
    ids=str,
)
def test_heat_lies_over_what_the_model_saw_there(
    model: Path, views: dict[str, Any], size: tuple[int, int], corner: tuple[int, int]
) -> None:
    classifier = _classifier(model, **views)
    found = explanation_of(classifier, frames_with_square(6, *size, *corner))
    row, column = _hottest(_over_grey(classifier, found, *size))
    tallest = max(size[0] / ROWS, min(size) / COLUMNS) / 2  # half a patch in pixels of the video
    assert abs(row - (corner[0] + 4.5)) <= tallest
    assert abs(column - (corner[1] + 4.5)) <= tallest


def test_what_no_view_saw_is_darker(model: Path) -> None:
    classifier = _classifier(model)
    found = explanation_of(classifier, frames_with_square(6, 40, 120, 15, 50))
    picture = _over_grey(classifier, found, 40, 120)
    assert (picture[:, :39] < 60).all()  # left of the middle square of 40 pixels
    assert (picture[:, 81:] < 60).all()
    assert (picture[:, 41:79].max(axis=2) >= 60).all()


def test_a_graph_that_crops_itself_and_one_that_reads_bgr(tmp_path: Path) -> None:
    frames = frames_with_square(6, 24, 48, 8, 22, side=6)
    in_graph = write_bright_model(
        tmp_path / "frames",
        input_name="frames",
        input_type=TensorProto.UINT8,
        shape=("batch", FRAMES, "height", "width", 3),
    )
    reversed_channels = write_bright_model(tmp_path / "bgr")
    for classifier in (_classifier(in_graph), _classifier(reversed_channels, channel_order="bgr")):
        found = explanation_of(classifier, frames)
        row, column = _hottest(_over_grey(classifier, found, 24, 48))
        assert abs(row - 10.5) <= PATCH[0] / 2
        assert abs(column - 24.5) <= PATCH[1] / 2
        assert found.pictures[0][0].shape == (24, 24, 3)
        seen = frames[0][:, 12:36]
        assert np.abs(found.pictures[0][0].astype(int) - seen).max() <= 1


@pytest.mark.parametrize("views", [{"crops": 3}, {"protocol": "facebook", "crops": 3}], ids=str)
def test_each_view_has_its_own_heat_and_pictures(model: Path, views: dict[str, Any]) -> None:
    classifier = _classifier(model, sampling=Sampling("dense", 1, 2), **views)
    frames = moving_frames(20)
    found = explanation_of(classifier, frames)
    assert [view.view.crop for view in found.views] == ["start", "center", "end"] * 2
    assert found.result.outputs["attention_rollout"].shape == (6, FRAMES, ROWS, COLUMNS)
    assert [len(pictures) for pictures in found.pictures] == [FRAMES] * 6
    for view, pictures in zip(found.views, found.pictures, strict=True):
        assert view.shares.mean() == pytest.approx(1, abs=1e-5)
        seen = (np.stack(pictures) / 255 - [0.45, 0.4, 0.5]) / [0.225, 0.25, 0.2]
        patches = seen.reshape(FRAMES, ROWS, PATCH[0], COLUMNS, PATCH[1], 3).mean((2, 4, 5))
        expected = np.exp(patches) / np.exp(patches).mean()
        np.testing.assert_allclose(view.shares, expected, rtol=0.02)


def _view(shares: npt.NDArray[np.float32], times: tuple[float, ...]) -> ViewHeat:
    return ViewHeat(View("center", tuple(range(len(times))), times), shares)


def test_heat_moves_evenly_from_frame_to_frame(model: Path) -> None:
    shares = np.zeros((3, ROWS, COLUMNS), dtype=np.float32)
    shares[1] = 2.0
    heat = MovingHeat(
        [_view(shares, (1.0, 2.0, 4.0))], HeatScale(0.0, 2.0), Geometry(_classifier(model))
    )
    grey = np.full((24, 24, 3), 90, np.uint8)

    def red(seconds: float) -> int:
        return int(heat.over(grey, seconds, (24, 24))[12, 12, 0])

    assert red(0.0) == red(1.0) == red(4.0) == red(9.0)
    assert red(1.0) < red(1.5) < red(2.0)
    assert red(2.0) > red(2.5) > red(3.0)
    assert red(1.5) == red(3.0)


def test_a_clip_that_wraps_around_a_short_video_has_its_heat_at_its_times(model: Path) -> None:
    shares = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((4, ROWS, COLUMNS), np.float32)
    in_order = _view(shares, (0.0, 1.0, 2.0, 3.0))
    wrapped = _view(np.roll(shares, 2, axis=0), (2.0, 3.0, 0.0, 1.0))
    grey = np.full((24, 24, 3), 90, np.uint8)
    expected, found = (
        [heat.over(grey, seconds, (24, 24)) for seconds in (0.0, 0.5, 1.0, 1.7, 2.0, 3.0)]
        for heat in (
            MovingHeat([view], HeatScale(0.0, 3.0), Geometry(_classifier(model)))
            for view in (in_order, wrapped)
        )
    )
    np.testing.assert_array_equal(found, expected)


def test_a_wrapped_clip_counts_in_all_of_its_time(model: Path) -> None:
    cold = _view(np.zeros((2, ROWS, COLUMNS), np.float32), (2.5, 3.5))
    hot = _view(np.ones((2, ROWS, COLUMNS), np.float32), (2.0, 0.0))
    heat = MovingHeat([cold, hot], HeatScale(0.0, 1.0), Geometry(_classifier(model)))
    grey = np.full((24, 24, 3), 90, np.uint8)
    reds = [int(heat.over(grey, s, (24, 24))[12, 12, 0]) for s in (0.0, 1.0, 2.0, 3.0)]
    assert reds[0] == reds[1] == reds[2] > reds[3]


def test_a_clip_counts_only_in_its_own_time(model: Path) -> None:
    cold = np.zeros((2, ROWS, COLUMNS), np.float32)
    hot = np.ones((2, ROWS, COLUMNS), np.float32)
    heat = MovingHeat(
        [_view(cold, (0.0, 1.0)), _view(hot, (5.0, 6.0))],
        HeatScale(0.0, 1.0),
        Geometry(_classifier(model)),
    )
    grey = np.full((24, 24, 3), 90, np.uint8)
    reds = [int(heat.over(grey, s, (24, 24))[12, 12, 0]) for s in (0.5, 2.9, 3.1, 5.5, 9.0)]
    assert reds[0] == reds[1] < reds[2] == reds[3] == reds[4]


def test_shares_that_hardly_differ_give_no_heat() -> None:
    shares = np.array([[[1.0, 1.001]]], dtype=np.float32)
    scale = HeatScale.of([_view(shares, (0.0,))])
    assert (scale.heat(shares) == 0).all()


def test_of_many_views_the_scale_takes_all_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timesformer_runtime.explain.explanation._MOST_MEASURED", 100)
    crops = [np.full((1, 1, 1), share, np.float32) for share in (1.0, 2.0, 3.0)]
    scale = HeatScale.of([_view(shares, (0.0,)) for shares in crops * 100])
    assert (scale.coldest, scale.hottest) == (1.0, 3.0)


def test_a_model_without_rollout_names_the_export_command(tmp_path: Path) -> None:
    local = {"model": "my-model", "revision": None}
    for fields, ending in (
        ({}, "timesformer-export --explain --model shots/original"),
        ({"dtype": "int8"}, "--explain --dtype int8 --model shots/original"),
        ({"source": json.dumps(local)}, "--explain --model FOLDER/my-model"),
        ({"source": json.dumps(local | {"revision": "1f"})}, "--explain --model my-model"),
    ):
        metadata = {**own_metadata(), **fields}
        graph = TinyGraph(metadata=metadata).save(tmp_path / "model.onnx")
        classifier = VideoClassifier.from_pretrained(graph, device="cpu")
        with pytest.raises(MissingOutputError, match=f"{ending}$"):
            explanation_of(classifier, moving_frames(6))


def test_a_graph_that_preprocesses_and_does_not_say_how(tmp_path: Path) -> None:
    folder = write_bright_model(
        tmp_path / "frames",
        input_name="frames",
        input_type=TensorProto.UINT8,
        shape=("batch", FRAMES, "height", "width", 3),
        metadata={},
    )
    write_exported_model(tmp_path / "sidecars")
    (tmp_path / "sidecars" / "config.json").rename(folder / "config.json")
    with pytest.raises(InvalidModelError, match="does not say how; export it"):
        explanation_of(_classifier(folder), moving_frames(6))
