"""The clips that variants in reduced precision are compared with PyTorch on.

Clips are read when they are needed and never held together: videos may be long, wide and many.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import timesformer_runtime
from timesformer_runtime.agreement import Array
from timesformer_runtime.preprocess import Preprocessing
from timesformer_runtime.sampling import uniform
from timesformer_runtime.video import VideoDecoder

from timesformer_exporter.fidelity import BATCHES
from timesformer_exporter.reference import golden_clips, run_clip
from timesformer_exporter.trace import TracedModel

LEAST_CLIPS = 16
CALIBRATION = "calibration video"
_SAMPLES = Path(timesformer_runtime.__file__).parent / "sample_clips"


@dataclasses.dataclass(frozen=True)
class GateClip:
    """One clip.

    Attributes:
        kind: ``calibration video``, ``sample video`` or ``generated clip``.
        read: Gives the frames, uint8 [T, H, W, 3].
    """

    kind: str
    read: Callable[[], Array]


@dataclasses.dataclass(frozen=True)
class GateReference:
    """Clips, and PyTorch's answers to them.

    Attributes:
        clips: At least 16, no two alike.
        preprocessing: The model's.
        answers: Logits or features, float32 [clips, labels] or [clips, hidden].
    """

    clips: tuple[GateClip, ...]
    preprocessing: Preprocessing
    answers: Array

    @property
    def kinds(self) -> Mapping[str, int]:
        """How many clips there are of each kind."""
        return Counter(clip.kind for clip in self.clips)

    def inputs(self, name: str, *, mirrored: bool = False) -> Iterator[Array]:
        """One clip after the other, as the graph takes them.

        Args:
            name: ``frames`` (as read) or ``pixel_values`` (preprocessed).
            mirrored: Exchange left and right: much the same, but other clips, to fit a variant to
                without showing it those that judge it.
        """
        for clip in self.clips:
            frames = np.ascontiguousarray(clip.read()[:, :, ::-1]) if mirrored else clip.read()
            yield frames if name == "frames" else self.preprocessing(frames)


def gate_clips(
    num_frames: int, size: tuple[int, int], videos: Sequence[Path] = ()
) -> Iterator[GateClip]:
    """Calibration videos, and after them sample videos and generated clips to fill up with.

    Args:
        num_frames: Frames in a clip, spread evenly over a video.
        size: Height and width of the generated clips.
        videos: Calibration videos, all of which are to be used.
    """
    for kind, paths in (
        (CALIBRATION, videos),
        ("sample video", sorted(_SAMPLES.glob("*.mp4"))),
    ):
        for path in paths:
            yield GateClip(kind, functools.partial(read_video, path, num_frames))
    # The first generated clips are those that the float32 graph is compared on.
    for number in range(max(BATCHES), max(BATCHES) + LEAST_CLIPS):
        yield GateClip("generated clip", functools.partial(_generate, number, num_frames, size))


def gate_reference(
    module: TracedModel,
    answer: str,
    preprocessing: Preprocessing,
    clips: Iterator[GateClip],
    on_clip: Callable[[int], None] = lambda _number: None,
    calibrating: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> GateReference:
    """Runs PyTorch on all calibration videos, and on other clips until there are enough.

    Args:
        module: The model as loaded, taking ``pixel_values``.
        answer: The output that counts, ``logits`` or ``features``.
        preprocessing: The model's preprocessing.
        clips: From ``gate_clips``. Of clips with the same frames only the first is used.
        on_clip: Is called with the clip's number, from 1, before each clip.
        calibrating: Is entered while PyTorch runs a calibration video.
    """
    index = list(module.output_names).index(answer)
    used: list[GateClip] = []
    answers: list[Array] = []
    seen: set[bytes] = set()
    for clip in clips:
        if clip.kind != CALIBRATION and len(used) >= LEAST_CLIPS:
            break
        on_clip(len(used) + 1)
        frames = clip.read()
        digest = hashlib.sha256(frames.tobytes()).digest()
        if digest in seen:
            continue
        seen.add(digest)
        used.append(clip)
        with calibrating() if clip.kind == CALIBRATION else nullcontext():
            answers.append(run_clip(module, preprocessing(frames))[index])
    return GateReference(tuple(used), preprocessing, np.concatenate(answers))


def read_video(path: Path, num_frames: int) -> Array:
    """A clip of a video, its frames spread evenly: uint8 [T, H, W, 3]."""
    with VideoDecoder(path) as video:
        return video.frames(uniform(len(video), num_frames)).array()


def _generate(number: int, num_frames: int, size: tuple[int, int]) -> Array:
    (clip,) = golden_clips(number, 1, num_frames, size)
    return clip
