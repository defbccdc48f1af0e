"""Preprocessing against transformers' Pillow path, and what a configuration may say."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime import resample as resampling
from timesformer_runtime.errors import InvalidModelError, InvalidVideoError, TimesformerError
from timesformer_runtime.input.image_processors import _IMAGE_PROCESSORS
from timesformer_runtime.input.preprocess import Preprocessing

from tests.transformers_classes import pillow_processor, since_transformers_5

PUBLISHED: dict[str, Any] = {
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_processor_type": "VideoMAEImageProcessor",
    "crop_size": {"height": 224, "width": 224},
    "image_mean": [0.45, 0.45, 0.45],
    "image_std": [0.225, 0.225, 0.225],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}


def noise(*shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def transformers_result(
    config: dict[str, Any], frames: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """What transformers makes of frames [T, H, W, 3] without torchvision: [T, C, h, w]."""
    pytest.importorskip("PIL")
    processor = pillow_processor("VideoMAEImageProcessor")(**config)
    batch = processor([list(frames)], input_data_format="channels_last", return_tensors="np")
    result: npt.NDArray[np.float32] = batch["pixel_values"][0]
    return result


SIZES = [
    (224, 224),
    (224, 398),
    (240, 320),
    (320, 240),
    (225, 399),
    (270, 480),
    (360, 640),
    (1280, 720),
    (1080, 1920),
    (96, 96),
    (50, 33),
    (7, 5),
    (1, 1),
    (1, 40),
    (300, 2),
]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_equals_transformers_for_the_published_configuration(height: int, width: int) -> None:
    frames = noise(2, height, width, 3)
    result = Preprocessing.from_dict(PUBLISHED)(frames)
    assert result.shape == (2, 3, 224, 224)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, transformers_result(PUBLISHED, frames))


@pytest.mark.parametrize("filter_number", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(("height", "width"), [(200, 300), (33, 47), (500, 90)])
def test_equals_transformers_for_every_filter(filter_number: int, height: int, width: int) -> None:
    config = PUBLISHED | {"resample": filter_number}
    frames = noise(1, height, width, 3)
    result = Preprocessing.from_dict(config)(frames)
    np.testing.assert_array_equal(result, transformers_result(config, frames))


@pytest.mark.parametrize(
    "changes",
    [
        {"do_resize": False},
        {"do_rescale": False},
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"do_center_crop": False, "size": {"height": 64, "width": 80}},
        {"do_center_crop": False},
        {"do_center_crop": False, "do_resize": False},
        {"size": {"height": 100, "width": 37}},
        {"size": {"shortest_edge": 256}},
        {"size": {"shortest_edge": 64}, "crop_size": {"height": 99, "width": 60}},
        {"size": {"shortest_edge": 64}, "crop_size": {"height": 60, "width": 301}},
        {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        {"image_mean": 0.3, "image_std": 0.7},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0]},
    ],
    ids=str,
)
def test_equals_transformers_for_every_option(changes: dict[str, Any]) -> None:
    config = PUBLISHED | changes
    frames = noise(2, 120, 171, 3)
    result = Preprocessing.from_dict(config)(frames)
    expected = transformers_result(config, frames)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("changes", [{}, {"size": 64, "crop_size": 60}, {"size": [70, 80]}])
def test_equals_transformers_for_absent_values_and_older_spellings(changes: dict[str, Any]) -> None:
    frames = noise(1, 100, 130, 3)
    result = Preprocessing.from_dict(changes | {"feature_extractor_type": "VideoMAE"})(frames)
    np.testing.assert_array_equal(result, transformers_result(changes, frames))


# What a fine-tuned checkpoint may have beside it: the types of other models, which differ in their
# defaults, in what a single number as size means, and in how they crop and rescale.
OTHER_PROCESSORS: list[dict[str, Any]] = [
    {"image_processor_type": "VideoMAEImageProcessorFast"},
    {"feature_extractor_type": "VideoMAEFeatureExtractor", "size": 96, "crop_size": 90},
    {"image_processor_type": "ViTImageProcessor"},
    {"image_processor_type": "ViTImageProcessor", "size": 224},
    {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "image_mean": [0.45] * 3},
    {"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 100}},
    {"image_processor_type": "ViTImageProcessor", "size": [50, 81], "do_center_crop": False},
    {
        "image_processor_type": "ViTImageProcessorFast",
        "size": 64,
        "do_center_crop": True,
        "crop_size": 48,
    },
    {"image_processor_type": "ViTImageProcessor", "size": 64, "default_to_square": False},
    {"image_processor_type": "DeiTImageProcessor"},
    {"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "resample": 2},
    {"image_processor_type": "DeiTImageProcessor", "do_center_crop": False, "size": 100},
    {"image_processor_type": "ConvNextImageProcessor"},
    {"image_processor_type": "ConvNextImageProcessor", "size": 224},
    {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.95},
    {"image_processor_type": "ConvNextImageProcessor", "size": 97, "crop_pct": 0.7},
    {"image_processor_type": "ConvNextImageProcessor", "size": 97, "crop_pct": 1.3},
    {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 400}},
    {
        "image_processor_type": "ConvNextImageProcessor",
        "size": 384,
        "do_center_crop": True,
        "crop_size": 333,
    },
    {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": False,
        "do_center_crop": True,
        "crop_size": 50,
    },
    {"image_processor_type": "CLIPImageProcessor"},
    {"feature_extractor_type": "CLIPFeatureExtractor", "size": 112, "crop_size": 112},
    {"image_processor_type": "CLIPImageProcessor", "image_mean": [0, 0.1, 0.2]},
    {"image_processor_type": "VivitImageProcessor"},
    {"image_processor_type": "VivitImageProcessor", "offset": False, "rescale_factor": 1 / 255},
    {"feature_extractor_type": "VivitFeatureExtractor", "size": 72, "do_normalize": False},
    {"image_processor_type": "VivitImageProcessor", "do_rescale": False, "offset": False},
    {"image_processor_type": "BeitImageProcessor"},
    {"image_processor_type": "BeitImageProcessor", "size": 256, "do_center_crop": True},
    {"image_processor_type": "BitImageProcessor"},
    {"image_processor_type": "BlipImageProcessor", "size": 100},
    {"image_processor_type": "ChineseCLIPImageProcessor", "size": 100},
    {"image_processor_type": "MobileNetV1ImageProcessor"},
    {"image_processor_type": "PvtImageProcessor", "size": 100},
    {"image_processor_type": "SegformerImageProcessor", "size": 100},
    {"image_processor_type": "SiglipImageProcessor"},
    {"image_processor_type": "SiglipImageProcessor", "size": 100},
]


def gradient(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A frame [1, H, W, 3] whose levels change evenly, in another direction for each channel."""
    y, x = np.mgrid[:height, :width]
    levels = [255 * y // max(height - 1, 1), 255 * x // max(width - 1, 1), (x + 2 * y) % 256]
    return np.stack(levels, axis=-1).astype(np.uint8)[None]


@since_transformers_5()
@pytest.mark.parametrize("values", OTHER_PROCESSORS, ids=str)
def test_equals_the_processor_that_transformers_makes_of_the_file(
    values: dict[str, Any], tmp_path: Path
) -> None:
    pillow = pytest.importorskip("PIL")
    transformers = pytest.importorskip("transformers")
    sizes = [(120, 171), (96, 400)]
    if int(pillow.__version__.split(".")[0]) >= 13:  # before, it had another order for tall frames
        sizes += [(173, 97), (451, 303)]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    preprocessing = Preprocessing.from_dict(values)
    as_written = Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict())))
    for height, width in sizes:
        for frames in (noise(1, height, width, 3), gradient(height, width)):
            batch = processor(list(frames), input_data_format="channels_last", return_tensors="np")[
                "pixel_values"
            ]
            expected = batch.reshape(1, *batch.shape[-3:])  # some have an axis for videos
            np.testing.assert_array_equal(preprocessing(frames), expected)
            np.testing.assert_array_equal(as_written(frames), expected)


def test_every_known_image_processor_is_compared_with_transformers() -> None:
    names = {str(value) for values in OTHER_PROCESSORS for value in values.values()}
    for known in _IMAGE_PROCESSORS:
        assert any(name.startswith((f"{known}Image", f"{known}Feature")) for name in names), known


def test_one_channel_is_pillows_grey() -> None:
    image = pytest.importorskip("PIL.Image")
    frames = noise(1, 90, 120, 3)
    preprocessing = Preprocessing(
        size=(45, 51), do_center_crop=False, image_mean=(0.5,), image_std=(0.25,)
    )
    grey = image.fromarray(frames[0]).convert("L").resize((51, 45), image.Resampling.BILINEAR)
    values = np.asarray(grey).astype(np.float64) * (1 / 255)
    expected = (values.astype(np.float32) - np.float32(0.5)) / np.float32(0.25)
    np.testing.assert_array_equal(preprocessing(frames), expected[None, None])


@pytest.mark.parametrize("filter_number", [1, 2, 3])
@pytest.mark.parametrize(
    ("source", "target", "vertical_first"),
    [
        ((90, 160), (40, 71), False),
        ((160, 90), (71, 40), False),  # 89 rows less, no more than twice 50 columns
        ((160, 60), (106, 40), True),  # a phone's
        ((160, 90), (40, 40), True),
        ((60, 90), (40, 120), True),
        ((60, 90), (60, 40), False),
    ],
)
def test_the_passes_come_in_pillows_order(
    filter_number: int, source: tuple[int, int], target: tuple[int, int], vertical_first: bool
) -> None:
    image = pytest.importorskip("PIL.Image")
    frame = noise(*source, 3)
    between = (target[0], source[1]) if vertical_first else (source[0], target[1])
    # Each of these two does one pass only, whatever version of Pillow this is.
    first = image.fromarray(frame).resize(between[::-1], filter_number)
    expected = np.asarray(first.resize(target[::-1], filter_number)).transpose(2, 0, 1)
    whole = resampling.Rectangle(0, 0, *target)
    np.testing.assert_array_equal(resampling.resize(frame, target, filter_number, whole), expected)
    part = resampling.Rectangle(top=3, left=5, height=20, width=30)
    np.testing.assert_array_equal(
        resampling.resize(frame, target, filter_number, part), expected[:, 3:23, 5:35]
    )


def test_a_window_is_cut_from_the_whole_result() -> None:
    image = noise(61, 83, 3)
    whole = resampling.resize(
        image, (40, 130), resampling.BICUBIC, resampling.Rectangle(0, 0, 40, 130)
    )
    window = resampling.Rectangle(top=7, left=33, height=21, width=64)
    part = resampling.resize(image, (40, 130), resampling.BICUBIC, window)
    np.testing.assert_array_equal(part, whole[:, 7:28, 33:97])


def test_an_extreme_aspect_ratio_costs_only_what_the_crop_keeps() -> None:
    # Resized as a whole it would be 224 x 3,584,000 pixels.
    frames = noise(1, 1, 16000, 3)
    result = Preprocessing()(frames)
    assert result.shape == (1, 3, 224, 224)
    # The crop is narrower than one pixel of the frame: every row of it is the same gradient.
    assert np.ptp(result, axis=2).max() == 0


@pytest.mark.parametrize(("height", "width"), [(60, 91), (91, 60), (64, 64), (1, 9), (200, 300)])
def test_crops_lie_along_the_longer_side(height: int, width: int) -> None:
    image = pytest.importorskip("PIL.Image")
    frame = noise(height, width, 3)
    preprocessing = Preprocessing(size=40, crop_size=(32, 32))
    resized = preprocessing.resized_size(height, width)
    whole = np.asarray(image.fromarray(frame).resize(resized[::-1], image.Resampling.BILINEAR))
    tall = resized[0] > resized[1]
    room = max(resized) - 32
    offsets = {"start": 0, "center": room // 2, "end": room}
    together = preprocessing.planes(frame, tuple(offsets))
    for (crop, offset), planes in zip(offsets.items(), together, strict=True):
        top, left = (offset, 4) if tall else (4, offset)
        expected = whole[top : top + 32, left : left + 32].transpose(2, 0, 1)
        assert planes.dtype == np.uint8
        np.testing.assert_array_equal(planes, expected)
        np.testing.assert_array_equal(preprocessing.planes(frame, [crop])[0], expected)


def test_a_crop_larger_than_the_frame_keeps_it_in_the_middle() -> None:
    frame = noise(20, 30, 3)
    preprocessing = Preprocessing(do_resize=False, crop_size=(40, 40))
    (centred,) = preprocessing.planes(frame)
    np.testing.assert_array_equal(centred[:, 10:30, 5:35], frame.transpose(2, 0, 1))
    assert int(centred.sum()) == int(frame.sum())  # black around it
    for planes in preprocessing.planes(frame, ("start", "end")):
        np.testing.assert_array_equal(planes, centred)


def test_frames_of_several_sizes() -> None:
    large, small = noise(80, 120, 3), noise(30, 20, 3)
    preprocessing = Preprocessing(size=32, crop_size=(32, 32))
    result = preprocessing([large, small, small])
    np.testing.assert_array_equal(result[0], preprocessing([large])[0])
    np.testing.assert_array_equal(result[1], preprocessing([small])[0])
    np.testing.assert_array_equal(result[2], result[1])
    with pytest.raises(InvalidVideoError, match=r"frame 1 becomes \(48, 32\) pixels"):
        Preprocessing(size=32, do_center_crop=False)([large, small])


@pytest.mark.parametrize(
    ("values", "size"),
    [
        (PUBLISHED, (224, 224)),
        ({"crop_size": {"height": 96, "width": 64}}, (96, 64)),
        ({"do_center_crop": False, "size": {"height": 70, "width": 80}}, (70, 80)),
        ({"do_center_crop": False}, None),
        ({"do_center_crop": False, "do_resize": False}, None),
    ],
)
def test_output_size(values: dict[str, Any], size: tuple[int, int] | None) -> None:
    assert Preprocessing.from_dict(values).output_size == size


@pytest.mark.parametrize(
    "values",
    [PUBLISHED, {"size": {"height": 9, "width": 8}}, {"image_mean": [0.5], "image_std": [1]}],
)
def test_to_dict_reads_back(values: dict[str, Any]) -> None:
    preprocessing = Preprocessing.from_dict(values)
    written = json.loads(json.dumps(preprocessing.to_dict()))
    assert Preprocessing.from_dict(written) == preprocessing
    assert written["image_processor_type"] == "VideoMAEImageProcessor"


def test_to_dict_keeps_a_published_file_as_it_is() -> None:
    assert Preprocessing.from_dict(PUBLISHED).to_dict() == PUBLISHED


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("do_resize", "yes"),
        ("size", 0),
        ("size", "large"),
        ("size", {"longest_edge": 224}),
        ("size", {"shortest_edge": 224, "longest_edge": 300}),
        ("size", {"height": 224}),
        ("size", [1, 2, 3]),
        ("size", 100_000),
        ("crop_size", {"shortest_edge": 5}),
        ("crop_size", -3),
        ("crop_size", "all"),
        ("resample", 6),
        ("resample", "bilinear"),
        ("resample", True),
        ("rescale_factor", "1/255"),
        ("rescale_factor", float("nan")),
        ("image_mean", [0.1, 0.2]),
        ("image_mean", [0.1, 0.2, "0.3"]),
        ("image_mean", [0.5]),
        ("image_std", [0.2, 0.0, 0.2]),
        ("do_pad", True),
        ("offset", True),
        ("do_flip_channel_order", True),
    ],
    ids=str,
)
def test_an_invalid_value_is_named_with_its_key(key: str, value: object) -> None:
    with pytest.raises(InvalidModelError) as caught:
        Preprocessing.from_dict({key: value})
    message = str(caught.value)
    assert key in message or (key == "image_mean" and "image_std" in message)
    assert "preprocessor_config.json" in message
    assert "\n" not in message


def test_a_configuration_that_is_no_object() -> None:
    with pytest.raises(InvalidModelError, match="must be a JSON object"):
        Preprocessing.from_dict([1, 2])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), "no frames"),
        (np.zeros((2, 8, 8, 3), np.float32), "float32"),
        (np.zeros((2, 8, 8), np.uint8), r"shape \(8, 8\)"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"shape \(8, 8, 4\)"),
        (np.zeros((2, 0, 8, 3), np.uint8), r"shape \(0, 8, 3\)"),
        (["a.png"], "a frame is str"),
    ],
)
def test_frames_that_are_none(frames: Any, message: str) -> None:
    with pytest.raises(InvalidVideoError, match=message):
        Preprocessing()(frames)


def test_a_result_without_limits_is_refused() -> None:
    with pytest.raises(TimesformerError, match="more than 8192 a side"):
        Preprocessing(do_center_crop=False)(noise(1, 1, 400, 3))


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Preprocessing().size = 5  # type: ignore[misc]
