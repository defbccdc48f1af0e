"""Hardware decoding: asked for, it is real, or an error; no test needs the hardware."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import av
import pytest
from timesformer_runtime import InvalidOptionError
from timesformer_runtime.errors import DeviceError
from timesformer_runtime.video.live.address import live_address
from timesformer_runtime.video.live.hardware import HardwareDecoding
from timesformer_runtime.video.live.source import LiveSource


class Working:
    """Stands for PyAV's class where the hardware works."""

    def __init__(self, name: str, **options: Any) -> None:
        assert options == {"allow_software_fallback": False}
        self.name = name

    def create(self, _codec: object) -> None:
        pass


class Broken(Working):
    def create(self, _codec: object) -> None:
        raise av.error.PermissionError(1, "Operation not permitted")


class Unsupported(Working):
    def create(self, _codec: object) -> None:
        raise NotImplementedError("no config")  # as PyAV does for a codec that the device lacks


def use(monkeypatch: pytest.MonkeyPatch, kind: type[Working]) -> None:
    monkeypatch.setattr(av.codec.hwaccel, "hwdevices_available", lambda: ["cuda", "vaapi"])
    monkeypatch.setattr(av.codec.hwaccel, "HWAccel", kind)


def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Working)
    with pytest.raises(InvalidOptionError, match=r"`hardware` is 'abacus'; .* cuda, vaapi"):
        HardwareDecoding("abacus")


@pytest.mark.parametrize(
    ("kind", "reason"), [(Broken, "Operation not permitted"), (Unsupported, "PyAV does not")]
)
def test_hardware_that_does_not_work(
    monkeypatch: pytest.MonkeyPatch, kind: type[Working], reason: str
) -> None:
    use(monkeypatch, kind)
    with pytest.raises(DeviceError, match=f"`hardware` is cuda, .*{reason}.* leave it out"):
        HardwareDecoding("cuda")


def test_a_decoder_of_the_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Working)
    decoding = HardwareDecoding("cuda")
    streams = [
        SimpleNamespace(codec_context=SimpleNamespace(is_hwaccel=is_real, name="h264"))
        for is_real in (True, False)
    ]
    decoding.check(streams[0], "door")  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="door: its codec h264 does not decode on cuda"):
        decoding.check(streams[1], "door")  # type: ignore[arg-type]


def test_a_codec_that_the_hardware_does_not_decode_ends_the_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Connecting again would not help, also where the attempts have no end."""
    use(monkeypatch, Working)
    seen: list[Any] = []

    def refuse(*_: object, **options: Any) -> None:
        seen.append(options["hwaccel"])
        raise NotImplementedError  # as PyAV does for a codec that the device lacks

    monkeypatch.setattr(av, "open", refuse)
    source = LiveSource(
        live_address("udp://127.0.0.1:9"),
        timeout=1.0,
        reconnect=None,
        notify=print,
        hardware="vaapi",
    )
    with pytest.raises(DeviceError, match=r"udp://127.0.0.1:9: `hardware` does not decode its"):
        next(source.frames(threading.Event()))
    assert [each.name for each in seen] == ["vaapi"]
