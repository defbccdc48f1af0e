"""Knows the image and video processors of transformers whose steps ``Preprocessing`` can do.

Each processor has its own defaults for fields that a configuration leaves out, and some have their
own arithmetic: reading one processor as another would silently give another input. The values
here are those of transformers 5.23. Frames are resized as by its Pillow backend; its torchvision
backend, which video processors always use, differs by one level of 255 in up to 2 % of the pixels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from timesformer_runtime import resample as resampling
from timesformer_runtime.errors import InvalidModelError, quoted
from timesformer_runtime.json_object import whole_number

Fields = dict[str, Any]  # arguments of Preprocessing

_TYPE_KEYS = ("video_processor_type", "image_processor_type", "feature_extractor_type")
# Ends of a type's name, old and new. The backend in a name (Fast, Pil) does not change the steps.
_SUFFIXES = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")
_VIDEO_SUFFIX = "VideoProcessor"

# Steps that ``Preprocessing`` does not have: leaving one out would silently give another input.
_UNSUPPORTED_STEPS = ("do_pad", "do_flip_channel_order", "use_square_size")
_PASSED_ON = ("do_resize", "do_center_crop", "do_rescale", "rescale_factor", "do_normalize")

# Mean and standard deviation of each channel.
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_OPENAI_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclasses.dataclass(frozen=True)
class _Processor:
    """The defaults of a processor, for fields that its configuration leaves out.

    Attributes:
        size: As in ``Preprocessing``.
        resample: As in ``Preprocessing``.
        statistics: Mean and standard deviation of each channel.
        crop_size: None where the processor has no default.
        do_center_crop: As in ``Preprocessing``.
        rescale_factor: As in ``Preprocessing``.
        is_square: True if a single number as ``size`` means both sides, not the shorter one.
        arrange: Changes the complete fields where this processor has its own arithmetic.
    """

    size: int | tuple[int, int]
    resample: int
    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    crop_size: tuple[int, int] | None = None
    do_center_crop: bool = False
    rescale_factor: float = 1 / 255
    is_square: bool = False
    arrange: Callable[[Fields, Mapping[str, Any]], None] | None = None


def preprocessing_fields(values: Mapping[str, Any]) -> Fields:
    """Turns a processor's configuration into the arguments of ``Preprocessing``.

    Absent and null values take the defaults of the processor that the configuration names, or those
    of VideoMAE's image processor where it names none. Keys that no step here needs are ignored.

    Args:
        values: The contents of a ``preprocessor_config.json``.

    Raises:
        InvalidModelError: The processor is not known here, or a value cannot be read.
    """
    name, processor = _named_processor(values)
    for step in _UNSUPPORTED_STEPS:
        if values.get(step):
            raise invalid_value(
                step, values[step], "absent or false: that step is not supported here"
            )
    mean, std = processor.statistics
    fields: Fields = {
        "do_center_crop": processor.do_center_crop,
        "rescale_factor": processor.rescale_factor,
    }
    fields |= {key: values[key] for key in _PASSED_ON if values.get(key) is not None}
    fields["resample"] = whole_number(_given(values, "resample", processor.resample))
    fields["image_mean"] = _statistics(_given(values, "image_mean", mean))
    fields["image_std"] = _statistics(_given(values, "image_std", std))
    fields["size"] = _size(values, processor)
    fields["crop_size"] = _crop_size(_given(values, "crop_size", processor.crop_size))
    if processor.arrange is not None:
        processor.arrange(fields, values)
    elif values.get("offset"):
        raise invalid_value("offset", values["offset"], f"absent or false for {name}")
    _fill_crop_size(fields, name)
    return fields


def invalid_value(name: str, value: object, limit: str) -> InvalidModelError:
    """Makes the error for a field of a configuration; the caller adds the name of the file."""
    return InvalidModelError(f"{name} is {quoted(value)}; it must be {limit}")


def _named_processor(values: Mapping[str, Any]) -> tuple[str, _Processor]:
    """Finds the processor that the configuration names; returns the name, too, for messages."""
    key = next((key for key in _TYPE_KEYS if values.get(key) is not None), None)
    if key is None:
        return "VideoMAEImageProcessor", _IMAGE_PROCESSORS["VideoMAE"]
    name = values[key]
    if not isinstance(name, str):
        raise invalid_value(key, name, "the name of a processor of transformers")
    known = _VIDEO_PROCESSORS if key == "video_processor_type" else _IMAGE_PROCESSORS
    suffixes = (_VIDEO_SUFFIX,) if key == "video_processor_type" else _SUFFIXES
    processor = known.get(_without_suffix(name, suffixes))
    if processor is None:
        raise InvalidModelError(
            f"{key} is {quoted(name)}, whose steps are not known here (known are those of "
            f"{', '.join(sorted(known))}); describe them as steps of a VideoMAEImageProcessor"
        )
    return name, processor


def _without_suffix(name: str, suffixes: tuple[str, ...]) -> str:
    return next((name.removesuffix(end) for end in suffixes if name.endswith(end)), name)


def _given(values: Mapping[str, Any], key: str, default: object) -> Any:
    value = values.get(key)
    return default if value is None else value


def _statistics(values: object) -> object:
    if isinstance(values, list | tuple):
        return tuple(values)
    return (values,) * 3  # transformers applies a single number to every channel


def _size(values: Mapping[str, Any], processor: _Processor) -> object:
    size = values.get("size")
    if size is None:
        return processor.size
    if isinstance(size, Mapping):
        sides = {name: whole_number(value) for name, value in size.items() if value is not None}
        if sides.keys() == {"shortest_edge"}:
            return sides["shortest_edge"]
        if sides.keys() == {"height", "width"}:
            return sides["height"], sides["width"]
        raise invalid_value("size", size, "{shortest_edge} or {height, width}")
    if isinstance(size, list | tuple):
        return tuple(whole_number(side) for side in size)
    is_square = _given(values, "default_to_square", processor.is_square)
    side = whole_number(size)
    return (side, side) if is_square else side


def _crop_size(size: object) -> object:
    if isinstance(size, Mapping):
        sides = {name: whole_number(value) for name, value in size.items() if value is not None}
        if sides.keys() != {"height", "width"}:
            raise invalid_value("crop_size", size, "{height, width}")
        return sides["height"], sides["width"]
    if isinstance(size, list | tuple):
        return tuple(whole_number(side) for side in size)
    return None if size is None else (whole_number(size),) * 2


def _fill_crop_size(fields: Fields, name: str) -> None:
    """Fills in a missing crop_size, which only a processor that crops must have."""
    if fields["crop_size"] is not None:
        return
    if fields["do_center_crop"] is True:
        raise InvalidModelError(
            f"do_center_crop is true, but there is no crop_size, for which {name} has no default; "
            "add it"
        )
    size = fields["size"]
    fields["crop_size"] = (size, size) if isinstance(size, int) else size


def _arrange_convnext(fields: Fields, values: Mapping[str, Any]) -> None:
    """Below size 384, resizes to more than the size and crops; from 384 on, squeezes frames."""
    size, share = fields["size"], _given(values, "crop_pct", 224 / 256)
    if isinstance(size, tuple):
        raise invalid_value("size", values.get("size"), "{shortest_edge} for ConvNext")
    if not isinstance(size, int) or fields.get("do_resize") is False:
        return  # nothing is resized, or the size is refused later
    if size >= 384:
        fields["size"] = (size, size)
        return
    if type(share) not in {int, float} or not 0 < share < math.inf:
        raise invalid_value("crop_pct", share, "a number above 0")
    if fields["do_center_crop"] and fields["crop_size"] != (size, size):
        raise invalid_value(
            "do_center_crop", True, f"absent or false for ConvNext, which crops to {size} itself"
        )
    fields |= {
        "size": int(min(size / share, 1 << 62)),
        "do_center_crop": True,
        "crop_size": (size, size),
    }


def _arrange_vivit(fields: Fields, values: Mapping[str, Any]) -> None:
    offset = _given(values, "offset", True)
    if offset and fields.get("do_rescale") is False:
        raise invalid_value("offset", offset, "false where do_rescale is")
    fields["offset"] = offset


def _arrange_vivit_video(fields: Fields, _values: Mapping[str, Any]) -> None:
    fields["offset"] = fields.get("do_rescale", True)  # this processor ignores its ``offset``


_BILINEAR, _BICUBIC = resampling.BILINEAR, resampling.BICUBIC
_SQUARE = (224, 224)

_VIDEOMAE = _Processor(224, _BILINEAR, _HALF, _SQUARE, do_center_crop=True)
_VIVIT = _Processor(
    256,
    _BILINEAR,
    _HALF,
    _SQUARE,
    do_center_crop=True,
    rescale_factor=1 / 127.5,
    arrange=_arrange_vivit,
)
_CLIP_PROCESSOR = _Processor(224, _BICUBIC, _OPENAI_CLIP, _SQUARE, do_center_crop=True)

_IMAGE_PROCESSORS: Mapping[str, _Processor] = {
    "Beit": _Processor(_SQUARE, _BICUBIC, _HALF, _SQUARE, is_square=True),
    "Bit": _CLIP_PROCESSOR,
    "Blip": _Processor((384, 384), _BICUBIC, _OPENAI_CLIP, is_square=True),
    "CLIP": _CLIP_PROCESSOR,
    "ChineseCLIP": _CLIP_PROCESSOR,
    "ConvNext": _Processor(384, _BICUBIC, _HALF, arrange=_arrange_convnext),
    "DeiT": _Processor((256, 256), _BICUBIC, _HALF, _SQUARE, do_center_crop=True, is_square=True),
    "MobileNetV1": _Processor(256, _BILINEAR, _HALF, _SQUARE, do_center_crop=True),
    "Pvt": _Processor(_SQUARE, _BICUBIC, _IMAGENET, is_square=True),
    "Segformer": _Processor((512, 512), _BILINEAR, _IMAGENET, is_square=True),
    "Siglip": _Processor(_SQUARE, _BICUBIC, _HALF),
    "ViT": _Processor(_SQUARE, _BILINEAR, _HALF, is_square=True),
    "VideoMAE": _VIDEOMAE,
    "Vivit": _VIVIT,
}
_VIDEO_PROCESSORS: Mapping[str, _Processor] = {
    "Timesformer": dataclasses.replace(_VIDEOMAE, statistics=_IMAGENET),
    "VideoMAE": _VIDEOMAE,
    "Vivit": dataclasses.replace(_VIVIT, arrange=_arrange_vivit_video),
}
