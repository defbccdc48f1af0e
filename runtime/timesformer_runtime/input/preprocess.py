"""From frames to a model's input, with the arithmetic of Hugging Face's Pillow path."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from timesformer_runtime import resample as resampling
from timesformer_runtime.errors import InvalidModelError, InvalidVideoError
from timesformer_runtime.input.crops import CENTER, Part
from timesformer_runtime.input.image_processors import invalid_value, preprocessing_fields

Frame = npt.NDArray[np.uint8]  # [H, W, 3], RGB
Planes = npt.NDArray[np.uint8]  # [C, h, w]

# Limits far above any model's input, so that a broken file cannot ask for terabytes.
_MAX_SIDE = 8192  # pixels of a result
_MAX_RESIZED = 1 << 24  # pixels of the longer side, of which a crop may keep a part
# Limit on the memory of a clip that is given to the model, and of the resize of a frame.
MAX_CLIP_BYTES = 1 << 31
_FLAGS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "offset")
_FILTERS = {
    resampling.NEAREST: "nearest",
    resampling.LANCZOS: "lanczos",
    resampling.BILINEAR: "bilinear",
    resampling.BICUBIC: "bicubic",
    resampling.BOX: "box",
    resampling.HAMMING: "hamming",
}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The steps of ``preprocessor_config.json``: resize, centre crop, rescale, normalise.

    Names, defaults and meanings are those of ``transformers.VideoMAEImageProcessor``; ``from_dict``
    also reads the configurations of other processors.

    Attributes:
        do_resize: True to resize frames.
        size: Length of the short side in pixels (the other keeps the aspect ratio), or
            ``(height, width)``.
        resample: Pillow's number of the filter: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic,
            4 box, 5 hamming; all but nearest are antialiased.
        do_center_crop: True to cut out the centre; where the frame is smaller, the rest is zero,
            i.e. black.
        crop_size: ``(height, width)`` of the crop in pixels.
        do_rescale: True to multiply pixels by ``rescale_factor``.
        rescale_factor: Usually 1/255.
        do_normalize: True to subtract ``image_mean`` and divide by ``image_std``.
        image_mean: One number per channel; 1 channel means grey frames, 3 mean RGB.
        image_std: One number per channel.
        offset: True to subtract 1 after rescaling, as ViViT's processor does.

    Raises:
        InvalidModelError: A field has a value that no preprocessing can have.
    """

    do_resize: bool = True
    size: int | tuple[int, int] = 224
    resample: int = resampling.BILINEAR
    do_center_crop: bool = True
    crop_size: tuple[int, int] = (224, 224)
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    offset: bool = False

    def __post_init__(self) -> None:
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise invalid_value(name, getattr(self, name), "true or false")
        for side in (self.size,) if isinstance(self.size, int) else _pair("size", self.size):
            _check_side("size", side)
        for side in _pair("crop_size", self.crop_size):
            _check_side("crop_size", side)
        if type(self.resample) is not int or self.resample not in _FILTERS:
            known = ", ".join(f"{number} ({name})" for number, name in _FILTERS.items())
            raise invalid_value("resample", self.resample, f"one of {known}")
        _check_number("rescale_factor", self.rescale_factor)
        self._check_statistics()
        with np.errstate(all="ignore"):
            if not np.isfinite(self._table()).all():
                raise invalid_value(
                    "rescale_factor with image_mean and image_std",
                    (self.rescale_factor, self.image_mean, self.image_std),
                    "numbers that give an input in the range of float32",
                )

    def __repr__(self) -> str:
        # Results files hold a hash of this text, so a field that a later version added may change
        # the text only where the field is used.
        unused = ("offset",) if not self.offset else ()
        fields = ((name, value) for name, value in vars(self).items() if name not in unused)
        return f"Preprocessing({', '.join(f'{name}={value!r}' for name, value in fields)})"

    def _check_statistics(self) -> None:
        for name in ("image_mean", "image_std"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(values) not in {1, 3}:
                raise invalid_value(name, values, "1 number (grey) or 3 numbers (RGB)")
            for value in values:
                _check_number(name, value)
        if len(self.image_mean) != len(self.image_std):
            raise invalid_value("image_std", self.image_std, "as long as image_mean")
        if 0 in self.image_std:
            raise invalid_value("image_std", self.image_std, "numbers other than 0")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "preprocessor_config.json") -> Self:
        """Reads the contents of a ``preprocessor_config.json``.

        Absent and null values take the defaults of the processor that the contents name, or of
        VideoMAE's if they name none; unknown keys are ignored. Older forms are accepted, too:
        ``size`` and ``crop_size`` as integers or ``[height, width]``.

        Args:
            values: The contents.
            source: The name of the file, for messages.

        Raises:
            InvalidModelError: A value is not valid, or names a step or a processor that is not
                known here.
        """
        try:
            if not isinstance(values, Mapping):
                raise invalid_value("the preprocessing", values, "a JSON object")
            return cls(**preprocessing_fields(values))
        except InvalidModelError as error:
            raise InvalidModelError(f"{error}: correct it in {source}") from error

    def to_dict(self) -> dict[str, Any]:
        """Makes the contents of a ``preprocessor_config.json`` that transformers reads."""
        values = dataclasses.asdict(self)
        name = "VivitImageProcessor" if values.pop("offset") else "VideoMAEImageProcessor"
        values["size"] = (
            {"shortest_edge": self.size} if isinstance(self.size, int) else _height_width(self.size)
        )
        values["crop_size"] = _height_width(self.crop_size)
        values["image_mean"] = list(self.image_mean)
        values["image_std"] = list(self.image_std)
        if self.offset:
            values["offset"] = True
        return {"image_processor_type": name, **values}

    @property
    def num_channels(self) -> int:
        """Channels of the result: 1 (grey) or 3 (RGB)."""
        return len(self.image_mean)

    @property
    def output_size(self) -> tuple[int, int] | None:
        """Height and width of the result; None where they depend on the video."""
        if self.do_center_crop:
            return self.crop_size
        if self.do_resize and not isinstance(self.size, int):
            return self.size
        return None

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a frame after the resize, before the crop."""
        if not self.do_resize:
            return height, width
        if not isinstance(self.size, int):
            return self.size
        # As transformers computes it, with a float division and truncation.
        long_side = int(self.size * max(height, width) / min(height, width))
        return (long_side, self.size) if width <= height else (self.size, long_side)

    def check_clip(self, num_frames: int) -> None:
        """Makes sure that clips of ``num_frames`` frames take no more memory than any model needs.

        Where the size of frames depends on the video, ``normalize`` checks each clip.

        Raises:
            InvalidModelError: A clip would take more, as resized or as cropped.
        """
        resized = self.resized_size(1, 1) if self.do_resize else None  # the smallest: of a square
        for size in (self.output_size, resized):
            if size is not None and self._bytes(num_frames, size) > MAX_CLIP_BYTES:
                raise InvalidModelError(
                    f"a clip of {num_frames} frames of {size[0]}x{size[1]} pixels would take more "
                    f"than {MAX_CLIP_BYTES >> 20} MB; no model is for such clips: take fewer "
                    "frames, or correct size and crop_size in preprocessor_config.json"
                )

    def __call__(self, frames: npt.NDArray[np.uint8] | Sequence[Frame]) -> npt.NDArray[np.float32]:
        """Turns frames into the input of a model.

        Args:
            frames: uint8 RGB [T, H, W, 3], or a sequence of [H, W, 3] whose sizes may differ.

        Returns:
            float32 [T, C, h, w], contiguous; ``(h, w)`` is ``output_size`` where that is known.

        Raises:
            InvalidVideoError: There are no frames, a frame is not uint8 [H, W, 3], or frames of
                several sizes would give an input of several sizes.
        """
        planes: list[Planes] = []
        for t, frame in enumerate(frames):
            repeated = t > 0 and frame is frames[t - 1]  # short videos repeat frames
            planes += [planes[-1]] if repeated else self.planes(frame)
        return self.normalize(planes)

    def planes(self, frame: Frame, crops: Sequence[str] = (CENTER,)) -> list[Planes]:
        """Computes the pixels that a model sees of a frame: resized and cropped, not normalised.

        Args:
            frame: uint8 RGB [H, W, 3].
            crops: The wanted parts of the longer side, out of ``CROPS`` of ``crops.py``.

        Returns:
            uint8 [C, h, w] for each crop.

        Raises:
            InvalidVideoError: The frame is not uint8 [H, W, 3], or its result would be too large.
        """
        check_frame(frame)
        resized = self.resized_size(*frame.shape[:2])
        size = self._result_size(frame, resized)
        parts = [Part.of(resized, size, crop) for crop in crops]
        image = frame if self.num_channels == 3 else _luma(frame)
        rectangles = [part.rectangle for part in parts]
        planes = resampling.resize_parts(image, resized, self.resample, rectangles)
        return [part.padded(plane) for part, plane in zip(parts, planes, strict=True)]

    def normalize(self, planes: Sequence[Planes]) -> npt.NDArray[np.float32]:
        """Rescales and normalises the pixels of the frames of a clip.

        Args:
            planes: For each frame the pixels of one crop, from the method ``planes``, uint8
                [C, h, w].

        Returns:
            float32 [T, C, h, w], contiguous.

        Raises:
            InvalidVideoError: There are no frames, or they have several sizes.
        """
        if len(planes) == 0:
            raise InvalidVideoError("there are no frames; a video needs at least one")
        if self._bytes(len(planes), planes[0].shape[1:]) > MAX_CLIP_BYTES:
            raise InvalidVideoError(
                f"{len(planes)} frames of {planes[0].shape[1]}x{planes[0].shape[2]} pixels take "
                f"more than {MAX_CLIP_BYTES >> 20} MB; give a smaller video, or use a model with "
                "do_center_crop"
            )
        table = self._table()
        result = np.empty((len(planes), *planes[0].shape), dtype=np.float32)
        for t, frame in enumerate(planes):
            if frame.shape != planes[0].shape:
                raise InvalidVideoError(
                    f"frame {t} becomes {frame.shape[1:]} pixels and frame 0 "
                    f"{planes[0].shape[1:]}; give frames of one size, or a model with "
                    "do_center_crop"
                )
            if t > 0 and frame is planes[t - 1]:
                result[t] = result[t - 1]
                continue
            for channel, plane in enumerate(frame):
                # "clip" only saves the check of bounds: the table has an entry for each byte.
                np.take(table[channel], plane, out=result[t, channel], mode="clip")
        return result

    def _result_size(self, frame: Frame, resized: tuple[int, int]) -> tuple[int, int]:
        """Computes height and width of the result; refuses sizes that take too much memory."""
        size = self.output_size or resized
        if max(size) > _MAX_SIDE:
            raise InvalidVideoError(
                f"a frame of {frame.shape[0]}x{frame.shape[1]} pixels becomes {size[0]}x{size[1]}, "
                f"more than {_MAX_SIDE} a side; use a model with do_center_crop"
            )
        if max(resized) > _MAX_RESIZED or self._bytes(1, size) > MAX_CLIP_BYTES:
            raise InvalidVideoError(
                f"a frame of {frame.shape[0]}x{frame.shape[1]} pixels would be resized to "
                f"{resized[0]}x{resized[1]}, which takes more than {MAX_CLIP_BYTES >> 20} MB; "
                "give a smaller one, or use a model with do_center_crop"
            )
        return size

    def _bytes(self, num_frames: int, size: tuple[int, int]) -> int:
        """Counts the bytes of a float32 clip, or of a frame in the passes of its resize if more."""
        return self.num_channels * size[0] * size[1] * max(4 * num_frames, 16)

    def _table(self) -> npt.NDArray[np.float32]:
        """Maps each value of a pixel to its value after normalisation: float32 [C, 256]."""
        values = np.tile(np.arange(256, dtype=np.float64), (self.num_channels, 1))
        if self.do_rescale:
            values *= self.rescale_factor
        table = values.astype(np.float32)  # from here on float32, as transformers does
        if self.offset:
            table -= 1
        if self.do_normalize:
            table -= np.array(self.image_mean, dtype=np.float32)[:, None]
            table /= np.array(self.image_std, dtype=np.float32)[:, None]
        return table


def _luma(frame: Frame) -> npt.NDArray[np.uint8]:
    """Computes the ITU-R 601 luma, rounded as in Pillow's mode L: uint8 [H, W, 1]."""
    red, green, blue = (frame[..., channel].astype(np.uint32) for channel in range(3))
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return luma.astype(np.uint8)[..., None]


def check_frame(frame: object) -> None:
    """Makes sure that an object is a frame.

    Raises:
        InvalidVideoError: The object is not uint8 [H, W, 3].
    """
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        kind = frame.dtype if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InvalidVideoError(f"a frame is {kind}; give uint8 arrays [height, width, 3] of RGB")
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise InvalidVideoError(f"a frame has shape {frame.shape}; give [height, width, 3], RGB")


def _pair(name: str, size: object) -> tuple[object, object]:
    if not isinstance(size, tuple) or len(size) != 2:
        raise invalid_value(name, size, "an integer or (height, width)")
    return size


def _height_width(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _check_side(name: str, side: object) -> None:
    if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= _MAX_SIDE:
        raise invalid_value(name, side, f"integers from 1 to {_MAX_SIDE}")


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise invalid_value(name, value, "finite numbers")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False
