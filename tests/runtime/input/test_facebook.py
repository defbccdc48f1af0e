"""The authors' test transform against PyTorch, written out as they have it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.errors import InvalidOptionError, InvalidVideoError
from timesformer_runtime.input.crops import CROPS
from timesformer_runtime.input.facebook import FacebookPreprocessing
from timesformer_runtime.input.preprocess import Preprocessing

PUBLISHED = Preprocessing(image_mean=(0.45, 0.4, 0.5), image_std=(0.225, 0.25, 0.2))

SIZES = [
    (224, 224),
    (224, 398),
    (240, 320),
    (320, 240),
    (341, 256),
    (256, 455),
    (360, 640),
    (1080, 1920),
    (720, 405),
    (57, 80),
    (225, 224),
    (1, 3),
]


def noise(*shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def authors_result(
    frames: npt.NDArray[np.uint8], crop_size: int, short_side: int, spatial_idx: int
) -> npt.NDArray[np.float32]:
    """tensor_normalize, short-side scale and uniform_crop of frames [T, H, W, 3]."""
    torch = pytest.importorskip("torch")
    clip = torch.from_numpy(frames).float() / 255.0
    clip = (clip - torch.tensor(PUBLISHED.image_mean)) / torch.tensor(PUBLISHED.image_std)
    clip = clip.permute(3, 0, 1, 2)
    height, width = clip.shape[2:]
    if min(height, width) != short_side:
        new_width, new_height = short_side, short_side
        if width < height:
            new_height = math.floor((float(height) / width) * short_side)
        else:
            new_width = math.floor((float(width) / height) * short_side)
        clip = torch.nn.functional.interpolate(
            clip, size=(new_height, new_width), mode="bilinear", align_corners=False
        )
    height, width = clip.shape[2:]
    y_offset = math.ceil((height - crop_size) / 2)
    x_offset = math.ceil((width - crop_size) / 2)
    if height > width:
        y_offset = [0, y_offset, height - crop_size][spatial_idx]
    else:
        x_offset = [0, x_offset, width - crop_size][spatial_idx]
    clip = clip[:, :, y_offset : y_offset + crop_size, x_offset : x_offset + crop_size]
    result: npt.NDArray[np.float32] = clip.permute(1, 0, 2, 3).numpy()
    return result


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_three_crops_are_the_authors(height: int, width: int, number: int) -> None:
    frames = noise(2, height, width, 3)
    preprocessing = FacebookPreprocessing.of(PUBLISHED, crops=3)
    result = np.stack([preprocessing.pixels(frame, CROPS[number]) for frame in frames])
    assert result.dtype == np.float32
    expected = authors_result(frames, 224, 224, number)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("crop_size", "short_side"), [(224, 256), (448, 448), (112, 128)])
def test_one_crop_is_the_middle_of_a_larger_frame(
    height: int, width: int, crop_size: int, short_side: int
) -> None:
    frames = noise(1, height, width, 3)
    config = PUBLISHED.to_dict() | {"crop_size": crop_size, "size": crop_size}
    preprocessing = FacebookPreprocessing.of(Preprocessing.from_dict(config), crops=1)
    assert (preprocessing.crop_size, preprocessing.short_side) == (crop_size, short_side)
    expected = authors_result(frames, crop_size, short_side, 1)
    np.testing.assert_allclose(preprocessing.pixels(frames[0])[None], expected, rtol=0, atol=1e-5)


def test_it_is_not_hugging_faces() -> None:
    frame = noise(360, 641, 3)
    facebook = FacebookPreprocessing.of(PUBLISHED, crops=3).pixels(frame)
    assert np.abs(facebook - PUBLISHED([frame])[0]).mean() > 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": {"height": 96, "width": 64}}, "this one takes 96x64 with 3 channels"),
        ({"do_center_crop": False}, "this one takes frames of any size"),
        ({"image_mean": [0.5], "image_std": [0.5]}, "with 1 channels"),
        ({"do_normalize": False}, "divides pixels by 255 and normalises them"),
        ({"do_rescale": False}, "divides pixels by 255 and normalises them"),
        ({"rescale_factor": 1 / 127.5}, "divides pixels by 255 and normalises them"),
    ],
)
def test_models_that_take_something_else(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        FacebookPreprocessing.of(Preprocessing.from_dict(changes), crops=3)


def test_a_frame_that_is_none() -> None:
    with pytest.raises(InvalidVideoError, match="a frame is float32"):
        FacebookPreprocessing.of(PUBLISHED, crops=3).pixels(np.zeros((8, 8, 3), np.float32))
