"""Several views of a video by value: clips, crops, protocols, channel order, resize."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto
from timesformer_runtime import InvalidOptionError, Sampling, VideoClassifier, Views
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.resample import BILINEAR, Rectangle, resize

from tests.tiny_graphs import (
    FRAMES,
    SIZE,
    TinyGraph,
    decode_all,
    expected_features,
    expected_logits,
    moving_frames,
    own_metadata,
    preprocessor_config,
    write_video,
)

PREPROCESSING = Preprocessing.from_dict(preprocessor_config())
WIDE = moving_frames(21, 48, 80)
TALL = moving_frames(21, 80, 48)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 frames at 10 a second, no two alike."""
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", WIDE)


def load(views: Views | None, graph: TinyGraph | None = None) -> VideoClassifier:
    graph = graph or TinyGraph(metadata=own_metadata(), features=True)
    return VideoClassifier.from_pretrained(
        graph.proto().SerializeToString(), device="cpu", threads=1, views=views
    )


def takes_frames() -> TinyGraph:
    return TinyGraph(
        input_name="frames",
        input_type=TensorProto.UINT8,
        shape=("batch", FRAMES, "height", "width", 3),
        metadata=own_metadata(input="frames", preprocessor_config=None),
    )


def logits_of(pixel_values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return expected_logits(pixel_values, channel_axis=1)


def crops_of(frames: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    """Start, centre and end as model input [T, 3, SIZE, SIZE], each cut out before the crop."""
    height, width = PREPROCESSING.resized_size(*frames.shape[1:3])
    window = Rectangle(0, 0, height, width)
    resized = [resize(frame, (height, width), BILINEAR, window) for frame in frames]
    whole = np.stack(resized).transpose(0, 2, 3, 1)
    room = max(height, width) - SIZE
    offsets = (0, room // 2, room)
    if height > width:
        return [PREPROCESSING(whole[:, offset : offset + SIZE]) for offset in offsets]
    return [PREPROCESSING(whole[:, :, offset : offset + SIZE]) for offset in offsets]


# --- Clips and crops -----------------------------------------------------------------------------


def test_clips_are_averaged(video: Path) -> None:
    classifier = load(Views(Sampling("dense", rate=3, clips=3)))
    expected = [[0, 3, 6, 9], [6, 9, 12, 15], [11, 14, 17, 20]]
    result = classifier.classify(video, outputs=["logits", "features"])
    frames = decode_all(video)
    clips = [PREPROCESSING(frames[indices]) for indices in expected]
    logits = np.mean([logits_of(clip) for clip in clips], axis=0)
    features = np.mean([expected_features(clip, channel_axis=1) for clip in clips], axis=0)
    np.testing.assert_allclose(result.outputs["logits"], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.outputs["features"], features, rtol=1e-4, atol=1e-5)
    scores = np.exp(logits) / np.exp(logits).sum()
    assert result.predictions[0]["score"] == pytest.approx(scores.max(), rel=1e-4)
    assert [list(view.indices) for view in result.views] == expected
    assert [view.crop for view in result.views] == ["center"] * 3
    assert list(result.indices) == [index for clip in expected for index in clip]
    assert result.times == pytest.approx([index / 10 for index in result.indices])
    assert result.duplicates == 0  # clips may share frames
    as_json = json.loads(json.dumps(result.to_dict()))
    assert as_json["views"] == {"clips": 3, "crops": ["center"]}
    assert as_json["frames"]["indices"] == list(result.indices)


@pytest.mark.parametrize("frames", [WIDE, TALL, moving_frames(21, 60, 60)])
def test_three_crops_are_averaged(frames: npt.NDArray[np.uint8]) -> None:
    classifier = load(Views(crops=3))
    result = classifier.classify(frames)
    chosen = frames[[0, 6, 13, 20]]
    logits = np.mean([logits_of(crop) for crop in crops_of(chosen)], axis=0)
    np.testing.assert_allclose(result.outputs["logits"], logits, rtol=1e-4, atol=1e-5)
    assert [view.crop for view in result.views] == ["start", "center", "end"]
    assert {view.indices for view in result.views} == {(0, 6, 13, 20)}
    assert result.indices == (0, 6, 13, 20)
    one = load(None).logits(frames)
    np.testing.assert_allclose(one, logits_of(crops_of(chosen)[1]), rtol=1e-4, atol=1e-5)


def test_clips_times_crops(video: Path) -> None:
    result = load(Views(Sampling("dense", rate=2, clips=2), crops=3)).classify(video)
    frames = decode_all(video)
    clips = [[0, 2, 4, 6], [14, 16, 18, 20]]
    views = [crop for indices in clips for crop in crops_of(frames[indices])]
    logits = np.mean([logits_of(view) for view in views], axis=0)
    np.testing.assert_allclose(result.outputs["logits"], logits, rtol=1e-4, atol=1e-5)
    seen = [(list(view.indices), view.crop) for view in result.views]
    assert seen == [(clip, crop) for clip in clips for crop in ("start", "center", "end")]
    assert list(result.indices) == clips[0] + clips[1]
    assert result.to_dict()["views"] == {"clips": 2, "crops": ["start", "center", "end"]}


def test_a_short_video_tells_its_duplicates() -> None:
    frames = moving_frames(3, 48, 80)
    views = Views(Sampling("dense", rate=2, clips=2))
    assert load(views).classify(frames).duplicates == 4  # 0 2 2 2, twice
    wrapped = load(Views(Sampling("pipeline", short="wrap"))).classify(frames)
    assert wrapped.indices == (0, 1, 2, 0)
    assert wrapped.duplicates == 1
    np.testing.assert_allclose(
        wrapped.outputs["logits"],
        logits_of(PREPROCESSING(frames[[0, 1, 2, 0]])),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_frame_is_converted_once(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = load(Views(Sampling("dense", rate=3, clips=3), crops=3))
    converted = []
    convert = type(classifier.input).convert

    def counting(self: Any, frame: npt.NDArray[np.uint8]) -> Any:
        converted.append(frame)
        return convert(self, frame)

    monkeypatch.setattr(type(classifier.input), "convert", counting)
    result = classifier.classify(video)
    assert len(converted) == len(set(result.indices)) < len(result.indices)


def test_large_frames_are_not_held_together(tmp_path: Path) -> None:
    """As of many 4K frames, which would take gigabytes."""
    grey = np.arange(40, dtype=np.uint8)[:, None, None, None]
    path = write_video(tmp_path / "large.mp4", np.tile(grey, (1, 360, 640, 3)))
    classifier = load(Views(Sampling("dense", rate=1, clips=10)))
    classifier.classify(path)  # what is made once is made
    tracemalloc.start()
    result = classifier.classify(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(result.indices)) == 40
    assert peak < 40 * 360 * 640 * 3 / 2


def test_frames_that_someone_else_decodes(video: Path) -> None:
    classifier = load(Views(Sampling("dense", clips=2, rate=3), crops=3))
    frames = decode_all(video)
    chosen = classifier.input.choose(len(frames), 10.0)
    answer = classifier.predict([classifier.input.convert(frames[index]) for index in chosen])
    result = classifier.classify(video)
    assert answer.predictions == result.predictions
    np.testing.assert_array_equal(answer.outputs["logits"], result.outputs["logits"])


# --- The authors' protocol -----------------------------------------------------------------------


def authors_views(
    frames: npt.NDArray[np.uint8], short_side: int, numbers: tuple[int, ...]
) -> list[npt.NDArray[np.float32]]:
    """Normalise, resize without antialiasing, crop: in PyTorch, as their loader does."""
    torch = pytest.importorskip("torch")
    config = preprocessor_config()
    clip = torch.from_numpy(frames.copy()).float() / 255.0
    clip = (clip - torch.tensor(config["image_mean"])) / torch.tensor(config["image_std"])
    clip = clip.permute(3, 0, 1, 2)
    height, width = clip.shape[2:]
    size = (short_side, int(width / height * short_side))
    if width < height:
        size = (int(height / width * short_side), short_side)
    clip = torch.nn.functional.interpolate(clip, size=size, mode="bilinear", align_corners=False)
    middle = [int(np.ceil((length - SIZE) / 2)) for length in size]
    views = []
    for number in numbers:
        top, left = middle
        if height > width:
            top = [0, top, size[0] - SIZE][number]
        else:
            left = [0, left, size[1] - SIZE][number]
        part = clip[:, :, top : top + SIZE, left : left + SIZE]
        views.append(part.permute(1, 0, 2, 3).numpy())
    return views


@pytest.mark.parametrize("frames", [WIDE, TALL, moving_frames(21, 33, 33)])
def test_protocol_facebook_sums_the_logits_of_three_crops(
    frames: npt.NDArray[np.uint8],
) -> None:
    classifier = load(Views.facebook(Sampling("facebook", rate=5)))
    result = classifier.classify(frames, top_k=1)
    assert result.indices == (0, 6, 12, 19)  # linspace(0, 19, 4), truncated
    views = [logits_of(view) for view in authors_views(frames[list(result.indices)], 24, (0, 1, 2))]
    total = np.sum(views, axis=0)
    np.testing.assert_allclose(result.outputs["logits"], total, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(classifier.logits(frames), total, rtol=1e-4, atol=1e-4)
    # The scores are those of the mean: a sum would make every answer look certain.
    mean = total / 3
    expected = np.exp(mean - mean.max()) / np.exp(mean - mean.max()).sum()
    assert result.predictions[0]["score"] == pytest.approx(expected.max(), rel=1e-3)


def test_protocol_facebook_goes_by_the_frame_rate(video: Path) -> None:
    """At 10 frames a second, a rate of 12 thirtieths of a second is every fourth frame."""
    result = load(Views.facebook(Sampling("facebook", rate=12))).classify(video)
    assert result.indices == (0, 5, 10, 15)  # linspace(0, 15, 4)
    assert load(Views.facebook(Sampling("facebook", rate=12))).classify(WIDE).indices[-1] == 20


def test_protocol_facebook_with_one_crop_and_with_segments() -> None:
    one = load(Views.facebook(Sampling("facebook", rate=5), crops=1)).logits(WIDE)
    (view,) = authors_views(WIDE[[0, 6, 12, 19]], 27, (1,))  # 8/7 of the crop's size
    np.testing.assert_allclose(one, logits_of(view), rtol=1e-4, atol=1e-4)
    ssv2 = load(Views.facebook(Sampling("segments"), channel_order="bgr"))
    result = ssv2.classify(WIDE)
    assert result.indices == (2, 7, 12, 17)
    views = authors_views(WIDE[[2, 7, 12, 17]][..., ::-1], 24, (0, 1, 2))
    expected = np.sum([logits_of(view) for view in views], axis=0)
    np.testing.assert_allclose(result.outputs["logits"], expected, rtol=1e-4, atol=1e-4)


# --- Channels and resize -------------------------------------------------------------------------


def test_blue_comes_first_where_the_model_wants_it(video: Path) -> None:
    frames = decode_all(video)[[0, 6, 13, 20]]
    logits = load(Views(channel_order="bgr")).logits(video)
    expected = logits_of(PREPROCESSING(frames[..., ::-1]))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(logits - load(None).logits(video)).max() > 0.1
    logits = load(Views(channel_order="bgr"), takes_frames()).logits(video)
    expected = expected_logits(frames[..., ::-1], channel_axis=3)
    np.testing.assert_allclose(logits, expected, rtol=1e-4)


def test_a_fast_resize_is_close(video: Path) -> None:
    fast, exact = load(Views(resize="fast")).logits(video), load(None).logits(video)
    assert 0 < np.abs(fast - exact).max() < 0.1 * np.abs(exact).max()


def test_a_fast_resize_never_makes_frames_huge() -> None:
    scale_to = load(Views(resize="fast")).input.rendering().scale_to
    assert scale_to is not None
    assert scale_to(48, 80) == (24, 40)
    assert scale_to(2, 2000) == (2, 2000)  # not 24x24000: only the crop of it is resized
    assert load(None).input.rendering().scale_to is None


# --- What does not go together -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (Views(crops=3), "`crops=3` does not apply to this model: its graph resizes"),
        (Views.facebook(crops=1), "`protocol=facebook` does not apply to this model"),
        (Views(resize="fast"), "`resize=fast` does not apply .* `input=pixel_values`"),
    ],
)
def test_graphs_that_preprocess_refuse(views: Views, message: str) -> None:
    views = Views(crops=views.crops, protocol=views.protocol, resize=views.resize)
    with pytest.raises(InvalidOptionError, match=message):
        load(views, takes_frames())


@pytest.mark.parametrize(
    ("config", "views", "message"),
    [
        (
            {"do_center_crop": False, "size": {"height": 24, "width": 24}},
            Views(crops=3),
            "`crops=3`",
        ),
        ({"size": {"height": 24, "width": 24}}, Views(crops=3), "3 equal views"),
        ({"do_normalize": False}, Views.facebook(Sampling("segments")), "`protocol=facebook`"),
    ],
)
def test_models_that_cannot_be_seen_so(config: Any, views: Views, message: str) -> None:
    graph = TinyGraph(metadata=own_metadata(preprocessor_config=preprocessor_config() | config))
    with pytest.raises(InvalidOptionError, match=message):
        load(views, graph)


def test_a_grey_model_has_no_order_of_channels() -> None:
    graph = TinyGraph(
        shape=("batch", FRAMES, 1, SIZE, SIZE),
        metadata=own_metadata(preprocessor_config=preprocessor_config(channels=1)),
    )
    with pytest.raises(InvalidOptionError, match="this one is grey"):
        load(Views(channel_order="bgr"), graph)


def test_a_rate_that_nothing_tells_is_asked_for_when_the_model_is_loaded() -> None:
    with pytest.raises(InvalidOptionError, match="needs a `frame_sampling_rate` for a model of 4"):
        load(Views(Sampling("center")))
    assert load(Views(Sampling("pipeline"))).views.sampling.rate == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": "center"}, r"`sampling` is 'center'; give a Sampling"),
        ({"crops": 2}, "`crops` is 2; it must be 1 or 3"),
        ({"crops": True}, "`crops` is True; it must be 1 or 3"),
        ({"protocol": "mmaction"}, "`protocol` is 'mmaction'; it must be huggingface or facebook"),
        ({"channel_order": "BGR"}, "`channel_order` is 'BGR'; it must be rgb or bgr"),
        ({"resize": None}, "`resize` is None; it must be exact or fast"),
        ({"square_pixels": 1}, "`square_pixels` is 1; it must be False or True"),
        ({"protocol": "facebook", "resize": "fast"}, "leave out `resize=fast`"),
    ],
    ids=str,
)
def test_options_that_are_not_valid(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        Views(**options)


def test_views_and_limits_that_are_none() -> None:
    with pytest.raises(InvalidOptionError, match="`views` is 'center'; it must be a Views"):
        load("center")  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="`limits` is 5; it must be a DecodeLimits"):
        VideoClassifier.from_pretrained("anything", limits=5)  # type: ignore[arg-type]


def test_outputs_that_cannot_be_averaged() -> None:
    graph = TinyGraph(output="hidden_states.0", features=True, metadata=own_metadata())
    several = load(Views(crops=3), graph)
    with pytest.raises(InvalidOptionError, match=r"hidden_states\.0 of 3 views cannot be"):
        several.classify(WIDE, outputs=["hidden_states.0"])
    assert load(None, graph).classify(WIDE, outputs=["hidden_states.0"]).views[0].crop == "center"


def test_views_in_words() -> None:
    assert Views().describe() == "uniform frames"
    views = Views(
        Sampling("dense", 4, 2, "wrap"),
        crops=3,
        channel_order="bgr",
        resize="fast",
        square_pixels=True,
    )
    assert views.describe() == (
        "dense frames at rate 4, short wrap, 6 views (clips 2, crops 3), bgr, fast resize, "
        "square pixels"
    )
    assert Views.facebook(crops=1).describe() == "facebook frames, protocol facebook"


def test_views_travel_with_a_classifier() -> None:
    classifier = load(Views(Sampling("dense", rate=3, clips=2), crops=3))
    copy = pickle.loads(pickle.dumps(classifier))
    assert copy.views == classifier.views
    np.testing.assert_array_equal(copy.logits(WIDE), classifier.logits(WIDE))
    assert json.loads(json.dumps(classifier.views.to_dict()))["sampling"]["clips"] == 2
