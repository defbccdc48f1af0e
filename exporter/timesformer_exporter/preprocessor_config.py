"""The contents of preprocessor_config.json: read, or each format's own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timesformer_exporter.config import TimesformerConfig

_BILINEAR = 2  # PIL.Image.Resampling.BILINEAR

# Mean and standard deviation of a channel: of the authors' models, which Hugging Face took over,
# and of mmaction2's (127.5 of 255).
_MEAN_STD = {
    "huggingface": (0.45, 0.225),
    "facebook": (0.45, 0.225),
    "mmaction2": (0.5, 0.5),
}


def default_preprocessing(checkpoint_format: str, config: TimesformerConfig) -> dict[str, Any]:
    """What a checkpoint of that format, without a preprocessor_config.json, was trained with."""
    height, width = config.image_hw
    mean, std = _MEAN_STD[checkpoint_format]
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": min(height, width)},
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [mean] * config.num_channels,
        "image_std": [std] * config.num_channels,
    }


def with_image_size(preprocessing: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """The same preprocessing, whose results are frames of ``size`` (height, width)."""
    height, width = size
    exact = {"height": height, "width": width}
    changed = {**preprocessing, "crop_size": exact}
    old = preprocessing.get("size")
    if isinstance(old, Mapping) and "shortest_edge" not in old:
        return {**changed, "size": exact}
    return {**changed, "size": {"shortest_edge": min(height, width)}}
