"""Videos: opened safely, scanned, and decoded no further than the chosen frames need."""

from timesformer_runtime.video.decoder import DecodedFrames, VideoDecoder
from timesformer_runtime.video.limits import DecodeLimits

__all__ = ["DecodeLimits", "DecodedFrames", "VideoDecoder"]
