"""Runs exported TimeSformers on videos, without PyTorch.

    from timesformer_runtime import VideoClassifier

    classifier = VideoClassifier.from_pretrained("my-bundle")
    classifier("clip.mp4")  # [{"label": ..., "score": ...}, ...], best first

Importing this package is cheap and works without ONNX Runtime; the classes load on first use.
"""

import importlib
from typing import TYPE_CHECKING

from timesformer_runtime.errors import (
    DeviceError,
    HubError,
    InvalidModelError,
    InvalidOptionError,
    InvalidVideoError,
    MissingDependencyError,
    MissingOutputError,
    ModelNotFoundError,
    TimesformerError,
    VideoNotFoundError,
)

if TYPE_CHECKING:
    from timesformer_runtime.classifier import VideoClassifier
    from timesformer_runtime.results import GoldenCheck, Prediction, Seconds, VideoResult

    __version__: str

__all__ = [
    "DeviceError",
    "GoldenCheck",
    "HubError",
    "InvalidModelError",
    "InvalidOptionError",
    "InvalidVideoError",
    "MissingDependencyError",
    "MissingOutputError",
    "ModelNotFoundError",
    "Prediction",
    "Seconds",
    "TimesformerError",
    "VideoClassifier",
    "VideoNotFoundError",
    "VideoResult",
    "__version__",
]

_LAZY = {
    "VideoClassifier": "timesformer_runtime.classifier",
    "GoldenCheck": "timesformer_runtime.results",
    "Prediction": "timesformer_runtime.results",
    "Seconds": "timesformer_runtime.results",
    "VideoResult": "timesformer_runtime.results",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("timesformer-onnx")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
