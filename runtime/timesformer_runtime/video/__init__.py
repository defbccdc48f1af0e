"""Videos: opened safely, scanned, and decoded no further than the chosen frames need."""

from timesformer_runtime.video.clip import Clip, read_clip
from timesformer_runtime.video.limits import DecodeLimits

__all__ = ["Clip", "DecodeLimits", "read_clip"]
