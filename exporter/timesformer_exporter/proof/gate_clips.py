"""Provides the clips on which the gate compares variants with PyTorch.

Each clip is read when it is needed, and only one is in memory: videos may be large and many.
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
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.input.sampling import uniform
from timesformer_runtime.model.agreement import Array
from timesformer_runtime.video import VideoDecoder

from timesformer_exporter.graph.trace import TracedModel
from timesformer_exporter.proof.fidelity import BATCHES
from timesformer_exporter.proof.reference import golden_clips, run_clip

LEAST_CLIPS = 16
CALIBRATION = "calibration video"
_SAMPLES = Path(timesformer_runtime.__file__).parent / "sample_clips"


@dataclasses.dataclass(frozen=True)
class GateClip:
    """A clip that is read on demand.

    Attributes:
        kind: ``calibration video``, ``sample video`` or ``generated clip``.
        read: Reads and returns the frames, uint8 [T, H, W, 3].
    """

    kind: str
    read: Callable[[], Array]


@dataclasses.dataclass(frozen=True)
class GateReference:
    """Clips, and PyTorch's outputs for them.

    Attributes:
        clips: At least 16 clips, no two alike.
        preprocessing: The model's preprocessing.
        outputs: PyTorch's logits or features, float32 [clips, labels] or [clips, hidden].
        rollouts: PyTorch's attention rollout, float32 [clips, T, rows, columns]; None where the
            graph has none.
    """

    clips: tuple[GateClip, ...]
    preprocessing: Preprocessing
    outputs: Array
    rollouts: Array | None = None

    @property
    def kinds(self) -> Mapping[str, int]:
        """The number of clips of each kind."""
        return Counter(clip.kind for clip in self.clips)

    def inputs(self, name: str, *, mirrored: bool = False) -> Iterator[Array]:
        """Yields one clip after the other as the graph's input, without the batch axis.

        Args:
            name: The graph's input: ``frames`` (as read) or ``pixel_values`` (preprocessed).
            mirrored: Exchange left and right. The export fits variants to the mirrored clips, so
                that the gate measures variants on other clips than those of the fit.
        """
        for clip in self.clips:
            frames = np.ascontiguousarray(clip.read()[:, :, ::-1]) if mirrored else clip.read()
            yield frames if name == "frames" else self.preprocessing(frames)


def gate_clips(
    num_frames: int, size: tuple[int, int], videos: Sequence[Path] = ()
) -> Iterator[GateClip]:
    """Yields all calibration videos, then the sample videos, then generated clips.

    Args:
        num_frames: Frames in a clip, spread evenly over a video.
        size: Height and width of the generated clips.
        videos: The calibration videos.
    """
    for kind, paths in (
        (CALIBRATION, videos),
        ("sample video", sorted(_SAMPLES.glob("*.mp4"))),
    ):
        for path in paths:
            yield GateClip(kind, functools.partial(read_video, path, num_frames))
    # The first generated clips belong to the fidelity check.
    for number in range(max(BATCHES), max(BATCHES) + LEAST_CLIPS):
        yield GateClip("generated clip", functools.partial(_generate, number, num_frames, size))


def gate_reference(
    module: TracedModel,
    output: str,
    preprocessing: Preprocessing,
    clips: Iterator[GateClip],
    on_clip: Callable[[int], None] = lambda _number: None,
    calibrating: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> GateReference:
    """Runs PyTorch on all calibration videos, and on other clips until there are 16 clips.

    Args:
        module: The model without rewrites, which takes ``pixel_values``; attention rollout is the
            last of its outputs, if wanted.
        output: The main output, ``logits`` or ``features``.
        preprocessing: The model's preprocessing.
        clips: The clips from ``gate_clips``. Of clips with equal frames only the first is used.
        on_clip: Called with the clip's number, from 1, before each clip.
        calibrating: Returns a context manager; PyTorch runs each calibration video inside one.
    """
    index = list(module.output_names).index(output)
    used: list[GateClip] = []
    outputs: list[Array] = []
    rollouts: list[Array] = []
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
            found = run_clip(module, preprocessing(frames))
        outputs.append(found[index])
        if module.outputs.rollout is not None:
            rollouts.append(found[-1])
    return GateReference(
        tuple(used),
        preprocessing,
        np.concatenate(outputs),
        np.concatenate(rollouts) if rollouts else None,
    )


def read_video(path: Path, num_frames: int) -> Array:
    """Reads a clip from a video, its frames spread evenly: uint8 [T, H, W, 3]."""
    with VideoDecoder(path) as video:
        return video.frames(uniform(len(video), num_frames)).array()


def _generate(number: int, num_frames: int, size: tuple[int, int]) -> Array:
    (clip,) = golden_clips(number, 1, num_frames, size)
    return clip
