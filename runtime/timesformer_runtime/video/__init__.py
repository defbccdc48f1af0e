"""Opens videos safely, scans their packets, and decodes only what the chosen frames need."""

from typing import TYPE_CHECKING

from timesformer_runtime.video.limits import DecodeLimits

if TYPE_CHECKING:
    from timesformer_runtime.video.decoder import DecodedFrames, VideoDecoder

__all__ = ["DecodeLimits", "DecodedFrames", "VideoDecoder"]


def __getattr__(name: str) -> object:
    """Imports the decoder on first use, because it needs PyAV."""
    if name in __all__:
        from timesformer_runtime.video import decoder  # noqa: PLC0415

        return getattr(decoder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
