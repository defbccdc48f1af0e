"""The contents of preprocessor_config.json: read, or each format's own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import InvalidModelError
from timesformer_runtime.preprocess import Preprocessing

from timesformer_exporter.checkpoints.facebook_settings import FacebookSettings
from timesformer_exporter.checkpoints.files import read_json
from timesformer_exporter.config import TimesformerConfig
from timesformer_exporter.errors import InvalidCheckpointError

_PROCESSOR = "VideoMAEImageProcessor"

# Mean and standard deviation of a channel: of the authors' models, which Hugging Face took over,
# and of mmaction2's (127.5 of 255).
_MEAN_STD = {
    "huggingface": (0.45, 0.225),
    "facebook": (0.45, 0.225),
    "mmaction2": (0.5, 0.5),
}


def default_preprocessing(
    checkpoint_format: str, config: TimesformerConfig, settings: FacebookSettings
) -> dict[str, Any]:
    """What a checkpoint of that format, without a preprocessor_config.json, was trained with."""
    if config.num_channels not in {1, 3}:
        raise InvalidCheckpointError(
            f"the model takes frames of {config.num_channels} channels, but a video gives 3 (RGB) "
            "or 1 (grey); only such models can be exported"
        )
    mean, std = ((value,) * config.num_channels for value in _MEAN_STD[checkpoint_format])
    for given in (settings.mean, settings.std):
        if given is not None and len(given) != config.num_channels:
            raise InvalidCheckpointError(
                f"the checkpoint's cfg has a DATA.MEAN or DATA.STD of {len(given)} numbers, but "
                f"the model has {config.num_channels} channels; add a preprocessor_config.json"
            )
    height, width = config.image_hw
    return Preprocessing(
        size=min(height, width),
        crop_size=(height, width),
        image_mean=settings.mean or mean,
        image_std=settings.std or std,
    ).to_dict()


def read_preprocessing(path: Path) -> dict[str, Any]:
    """Reads a preprocessor_config.json, or the file of a video processor in the same terms.

    Raises:
        InvalidCheckpointError: It is not valid JSON, or has a value that is not supported.
    """
    values = read_json(path)
    if values.pop("video_processor_type", None) is not None:
        values["image_processor_type"] = _PROCESSOR
    try:
        Preprocessing.from_dict(values)
    except InvalidModelError as error:
        raise InvalidCheckpointError(f"{path}: {error}") from error
    return values


def with_image_size(preprocessing: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """The same preprocessing for frames of another size (height, width).

    What was cut off around the crop keeps its share of the frame.
    """
    old = Preprocessing.from_dict(preprocessing)
    if old.output_size == size:
        return dict(preprocessing)
    height, width = size
    exact = {"height": height, "width": width}
    if not old.do_center_crop:
        return {**preprocessing, "size": exact}
    if isinstance(old.size, int):
        resized = {"shortest_edge": round(old.size * min(size) / min(old.crop_size))}
    else:
        resized = {
            "height": round(old.size[0] * height / old.crop_size[0]),
            "width": round(old.size[1] * width / old.crop_size[1]),
        }
    return {**preprocessing, "size": resized, "crop_size": exact}
