"""Many live sources in one process: turns, events, and messages to other systems."""

from timesformer_runtime.cameras.events import EventChange, EventRule, EventRules, EventTracker
from timesformer_runtime.cameras.settings import SourceSettings
from timesformer_runtime.cameras.watching import CameraResult, Cameras, Counts
from timesformer_runtime.workloads.stream_sources import LiveSettings
from timesformer_runtime.workloads.windows import WindowSettings

__all__ = [
    "CameraResult",
    "Cameras",
    "Counts",
    "EventChange",
    "EventRule",
    "EventRules",
    "EventTracker",
    "LiveSettings",
    "SourceSettings",
    "WindowSettings",
]
