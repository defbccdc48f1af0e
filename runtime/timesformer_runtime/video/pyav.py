"""PyAV, which decodes videos with its own FFmpeg; one clear error where it is not installed.

All modules that read video files take ``av`` from here. Arrays of frames need none of them.
"""

from timesformer_runtime.errors import MissingDependencyError

_REMEDY = 'pip install "av>=18.1"; or give the frames as one array, uint8 RGB [T, height, width, 3]'

try:
    import av
    import av.container
    import av.error
    import av.stream
    import av.video.reformatter
except ImportError as error:
    if isinstance(error, ModuleNotFoundError) and error.name == "av":
        reason = "is not installed"
    else:
        reason = f"cannot be loaded ({' '.join(str(error).split())})"
    raise MissingDependencyError(f"PyAV, which reads videos, {reason}: {_REMEDY}") from error

__all__ = ["av"]
