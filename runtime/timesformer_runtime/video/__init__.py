"""Videos: opened safely, scanned, and decoded no further than the chosen frames need."""

from timesformer_runtime.video.clip import Clip, read_clip

__all__ = ["Clip", "read_clip"]
