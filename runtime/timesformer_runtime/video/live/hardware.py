"""HardwareDecoding: asks FFmpeg to decode on hardware, and checks that it really does."""

from __future__ import annotations

from timesformer_runtime.errors import DeviceError, InvalidOptionError, quoted
from timesformer_runtime.video.pyav import av

# A codec that all hardware decodes: the device is opened once with it, before any source.
_USUAL_CODEC = "h264"


class HardwareDecoding:
    """Decodes on one kind of hardware, and never silently on the CPU.

    Args:
        name: FFmpeg's name of the hardware, such as ``cuda``, ``vaapi`` or ``videotoolbox``.

    Raises:
        InvalidOptionError: This FFmpeg does not know that hardware.
        DeviceError: This machine does not have it, or its driver does not work.
    """

    def __init__(self, name: str) -> None:
        known = av.codec.hwaccel.hwdevices_available()
        if name not in known:
            raise InvalidOptionError(
                f"`hardware` is {quoted(name)}; the FFmpeg of PyAV knows "
                f"{', '.join(known) or 'no hardware'} here: name one of them, or leave it out"
            )
        self._name = name
        try:
            self.settings().create(av.Codec(_USUAL_CODEC, "r"))
        # PyAV raises NotImplementedError where the codec does not know the hardware.
        except (av.FFmpegError, OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or "PyAV does not decode on it"
            raise DeviceError(
                f"`hardware` is {name}, which does not decode on this machine ({reason}); install "
                "its driver, or leave it out to decode on the CPU"
            ) from error

    def settings(self) -> av.codec.hwaccel.HWAccel:
        """Makes the settings of one connection for PyAV, without its fallback to the CPU."""
        return av.codec.hwaccel.HWAccel(self._name, allow_software_fallback=False)

    def check(self, stream: av.VideoStream, source: str) -> None:
        """Makes sure that an open stream decodes on the hardware.

        Args:
            stream: The stream, with its decoder open.
            source: Name of the source, for the error.

        Raises:
            DeviceError: The decoder is one of the CPU.
        """
        if not stream.codec_context.is_hwaccel:
            raise DeviceError(
                f"{source}: its codec {stream.codec_context.name} does not decode on {self._name}; "
                "leave out `hardware`"
            )
