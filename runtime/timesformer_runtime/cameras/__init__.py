"""Many live sources in one process: turns, events, and messages to other systems."""

from timesformer_runtime.cameras.events import EventRule, EventRules, EventTracker
from timesformer_runtime.cameras.settings import SourceSettings
from timesformer_runtime.cameras.watching import CameraResult, Cameras

__all__ = [
    "CameraResult",
    "Cameras",
    "EventRule",
    "EventRules",
    "EventTracker",
    "SourceSettings",
]
