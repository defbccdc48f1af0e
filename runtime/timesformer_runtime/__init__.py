"""Runs exported TimeSformers on videos, without PyTorch.

    from timesformer_runtime import VideoClassifier

    classifier = VideoClassifier.from_pretrained("my-model")
    classifier("clip.mp4")  # [{"label": ..., "score": ...}, ...], best first

Importing this package is cheap and works without ONNX Runtime; the classes load on first use.
"""

import importlib
from typing import TYPE_CHECKING

from timesformer_runtime.errors import (
    ClosedError,
    DeviceError,
    HubError,
    InferenceTimeoutError,
    InvalidModelError,
    InvalidOptionError,
    InvalidVideoError,
    MissingDependencyError,
    MissingOutputError,
    ModelNotFoundError,
    NotEnoughMemoryError,
    SourceLostError,
    TimesformerError,
    VideoLimitError,
    VideoNotFoundError,
)

if TYPE_CHECKING:
    from timesformer_runtime.classifier import VideoClassifier
    from timesformer_runtime.input.sampling import Sampling
    from timesformer_runtime.input.views import Views
    from timesformer_runtime.results import (
        GoldenCheck,
        Prediction,
        Ranking,
        Seconds,
        VideoResult,
        View,
    )
    from timesformer_runtime.video.decoder import DecodedFrames, VideoDecoder
    from timesformer_runtime.video.limits import DecodeLimits
    from timesformer_runtime.workloads.batch import Outcome
    from timesformer_runtime.workloads.stream import LiveResult
    from timesformer_runtime.workloads.timeline import Segment, Timeline

    __version__: str

__all__ = [
    "ClosedError",
    "DecodeLimits",
    "DecodedFrames",
    "DeviceError",
    "GoldenCheck",
    "HubError",
    "InferenceTimeoutError",
    "InvalidModelError",
    "InvalidOptionError",
    "InvalidVideoError",
    "LiveResult",
    "MissingDependencyError",
    "MissingOutputError",
    "ModelNotFoundError",
    "NotEnoughMemoryError",
    "Outcome",
    "Prediction",
    "Ranking",
    "Sampling",
    "Seconds",
    "Segment",
    "SourceLostError",
    "Timeline",
    "TimesformerError",
    "VideoClassifier",
    "VideoDecoder",
    "VideoLimitError",
    "VideoNotFoundError",
    "VideoResult",
    "View",
    "Views",
    "__version__",
]

_LAZY = {
    "VideoClassifier": "timesformer_runtime.classifier",
    "DecodeLimits": "timesformer_runtime.video.limits",
    "DecodedFrames": "timesformer_runtime.video.decoder",
    "GoldenCheck": "timesformer_runtime.results",
    "LiveResult": "timesformer_runtime.workloads.stream",
    "Outcome": "timesformer_runtime.workloads.batch",
    "Prediction": "timesformer_runtime.results",
    "Ranking": "timesformer_runtime.results",
    "Seconds": "timesformer_runtime.results",
    "VideoResult": "timesformer_runtime.results",
    "Sampling": "timesformer_runtime.input.sampling",
    "Segment": "timesformer_runtime.workloads.timeline",
    "Timeline": "timesformer_runtime.workloads.timeline",
    "VideoDecoder": "timesformer_runtime.video.decoder",
    "View": "timesformer_runtime.results",
    "Views": "timesformer_runtime.input.views",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("timesformer-onnx")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
