"""Makes the contents of preprocessor_config.json: from files, or a format's own defaults."""

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

# Fields that choose the processor's class and arithmetic. The exported file drops them: its steps
# are already those of one known processor.
_PROCESSOR_FIELDS = (
    "auto_map",
    "crop_pct",
    "default_to_square",
    "feature_extractor_type",
    "offset",
    "video_processor_type",
)

# Mean and standard deviation of each channel, by format. Hugging Face uses the numbers of the
# authors' models; mmaction2 uses 127.5 for pixels from 0 to 255.
_MEAN_STD = {
    "huggingface": (0.45, 0.225),
    "facebook": (0.45, 0.225),
    "mmaction2": (0.5, 0.5),
}


def default_preprocessing(
    checkpoint_format: str, config: TimesformerConfig, settings: FacebookSettings
) -> dict[str, Any]:
    """The preprocessing that a format's checkpoints are trained with, if no file describes it."""
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
    """Reads how a checkpoint's frames are preprocessed, from the files beside it.

    Args:
        paths: The files that may describe the preprocessing.

    Returns:
        The description, converted: its ``values`` state every field of a VideoMAE or ViViT image
        processor that takes the same steps, and keep the file's other fields. None where no file
        describes the preprocessing.

    Raises:
        InvalidCheckpointError: A file is not valid JSON, or names a processor or a value that is
            not supported.
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
        if key not in _PROCESSOR_FIELDS and _is_writable(value)
    }
    return dataclasses.replace(config, values={**others, **preprocessing.to_dict()})


def with_image_size(preprocessing: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Changes a preprocessing to frames of another size (height, width).

    The crop keeps its share of the resized frame.
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
    """True where JSON can express a value; Python also reads NaN and infinity, JSON has neither."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
