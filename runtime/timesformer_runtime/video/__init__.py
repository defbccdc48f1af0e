"""Opens videos safely, scans their packets, and decodes only what the chosen frames need."""

from timesformer_runtime.video.decoder import DecodedFrames, VideoDecoder
from timesformer_runtime.video.limits import DecodeLimits

__all__ = ["DecodeLimits", "DecodedFrames", "VideoDecoder"]
