"""Small, intact videos for the fuzzer to damage: one for each common container and codec."""

import os
from pathlib import Path
from typing import Any

from tests.fuzz.campaign import Campaign
from tests.fuzz.worker import LIMITS
from tests.video_files import moving_pictures, write_video

_SAMPLE = Path(__file__).parents[2] / "runtime/timesformer_runtime/sample_clips/dissolve.mp4"
_B_FRAMES = {"x264-params": "keyint=8:bframes=2:scenecut=0"}
_VPX = {"g": "8", "cpu-used": "8", "deadline": "realtime"}

_SETTINGS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"options": _B_FRAMES},
    "h264_first.mp4": {"options": _B_FRAMES, "container_options": {"movflags": "faststart"}},
    "h264_fragments.mp4": {
        "options": _B_FRAMES,
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "h264.mkv": {"options": _B_FRAMES},
    "h264.ts": {"options": _B_FRAMES},
    "h264.flv": {"options": _B_FRAMES},
    "h264.avi": {"options": _B_FRAMES},
    "h264.h264": {"options": _B_FRAMES},
    "fields.mp4": {"options": {"x264-params": "tff=1:keyint=8"}},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "keyint=8:bframes=2:log-level=none", "preset": "ultrafast"},
    },
    "vp8.webm": {"codec": "libvpx", "options": _VPX},
    "vp9.webm": {"codec": "libvpx-vp9", "options": _VPX},
    "av1.mkv": {"codec": "libsvtav1", "options": {"preset": "12", "g": "8"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "8"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2", "g": "8"}},
    "mpeg1.mpg": {"codec": "mpeg1video", "options": {"g": "8"}},
    "motion_jpeg.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "animation.gif": {"codec": "gif", "pixels": "rgb8"},
    "windows.asf": {"codec": "wmv2"},
    "lossless.mkv": {"codec": "ffv1"},
}


def make_seeds(folder: Path) -> list[str]:
    """Writes the files into a folder, which must exist; returns their names."""
    os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder prints pages
    frames = moving_pictures(16)
    written = [write_video(folder / name, frames, **_SETTINGS[name]) for name in _SETTINGS]
    sample = folder / _SAMPLE.name
    sample.write_bytes(_SAMPLE.read_bytes())
    return [path.name for path in (*written, sample)]


VIDEOS = Campaign(
    worker="tests.fuzz.worker",
    make_seeds=make_seeds,
    successes=("read", "marked"),
    success="gave frames",
    most_seconds=2 * LIMITS.time,
    most_mib=400,
)
