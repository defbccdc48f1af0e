"""The contents of preprocessor_config.json: read, or each format's own defaults."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import InvalidModelError
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.input.preprocessor_files import PreprocessorConfig, choose_preprocessor

from timesformer_exporter.checkpoints.facebook_settings import FacebookSettings
from timesformer_exporter.errors import InvalidCheckpointError
from timesformer_exporter.model.config import TimesformerConfig

# What a file may say about the processor and its arithmetic, besides the steps themselves.
_SETTLED = (
    "auto_map",
    "crop_pct",
    "default_to_square",
    "feature_extractor_type",
    "offset",
    "video_processor_type",
)

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
    """The preprocessing that checkpoints of a format were trained with, where no file tells."""
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


def read_preprocessing(paths: Sequence[Path]) -> PreprocessorConfig | None:
    """Reads the description of the preprocessing that counts, in the terms of one processor.

    Args:
        paths: The files beside a checkpoint that may have one.

    Returns:
        Its ``values`` describe the same steps as those of a VideoMAE or ViViT image processor, with
        no value left out, and keep what else the file has. None where there is no description.

    Raises:
        InvalidCheckpointError: A file is not valid JSON, or has a value or names a processor that
            is not supported.
    """
    config = None
    try:
        config = choose_preprocessor(paths)
        if config is None:
            return None
        preprocessing = config.read()
    except InvalidModelError as error:
        where = "" if config is None else f"{config.path}: "
        raise InvalidCheckpointError(f"{where}{error}") from error
    others = {
        key: value
        for key, value in config.values.items()
        if key not in _SETTLED and _is_writable(value)
    }
    return dataclasses.replace(config, values={**others, **preprocessing.to_dict()})


def with_image_size(preprocessing: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Changes a preprocessing to frames of another size (height, width).

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


def _is_writable(value: object) -> bool:
    """Tells if JSON can say a value: it cannot say NaN and infinity, which Python reads."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
