"""Reads a video frame by frame, and finds its transitions part after part, in bounded memory."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from timesformer_runtime.classifier import VideoClassifier
from timesformer_runtime.errors import InvalidModelError, InvalidOptionError, listed
from timesformer_runtime.input.model_input import ModelInput
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.results import Ranking, apply_function
from timesformer_runtime.shots.edit_list import EditList, Transition
from timesformer_runtime.shots.search import (
    CONTEXT,
    RATE,
    Labels,
    find_transitions,
    without_overlaps,
)
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.pixels import ConvertedFrame
from timesformer_runtime.video.playback import play
from timesformer_runtime.video.source import Source
from timesformer_runtime.workloads.bounded_queue import BoundedQueue
from timesformer_runtime.workloads.timeline import decoding_threads
from timesformer_runtime.workloads.workers import Workers, check_workers

Progress = Callable[[float, float | None], None]

_NEEDED = ("none", "cut", "dissolve")
_CHUNK = 8  # frames that the reading thread hands over at a time
_AHEAD = 16  # chunks
_PART_BYTES = 1 << 28  # of the frames of a part
_MOST_FRAMES = 1500  # of a part
_VALUES = 12_288  # of a frame that are compared with those of other frames


def find_shots(
    classifier: VideoClassifier,
    video: Source,
    *,
    workers: int = 1,
    progress: Progress | None = None,
    check_rate: Callable[[float], None] | None = None,
) -> EditList:
    """Finds the shots of a video and the transitions between them.

    Memory holds at most 1,500 frames, as the model sees them, whatever the length of the video.

    Args:
        classifier: A model for shot transitions, such as the bundled ones: it has the labels
            ``none``, ``cut`` and ``dissolve``. All its other labels count as gradual transitions.
        video: Path or binary file object.
        workers: How many clips the model works on at a time.
        progress: Called with the seconds of video that are searched, and those that the file
            states.
        check_rate: Called with the frames per second that the file states, before the search; may
            raise.

    Raises:
        InvalidModelError: The model does not have these labels.
        InvalidOptionError: The model's views choose frames, or ``workers`` is not valid.
        TimesformerError: As for ``VideoClassifier.classify``.
    """
    classifier.check_outputs(["logits"])
    check_workers(workers)
    labels = _labels(classifier)
    if classifier.views.sampling.method != "uniform":
        raise InvalidOptionError(
            f"`sampling={classifier.views.sampling.method}` does not apply to shots: every frame "
            "is searched; leave it out"
        )
    finder = _Finder(classifier, labels, workers)
    waits = True
    try:
        return finder.find(video, progress or (lambda *_: None), check_rate or (lambda _: None))
    except KeyboardInterrupt:
        waits = False  # reading from a slow disk or a silent pipe may take long
        raise
    finally:
        finder.close(wait=waits)


def _labels(pipeline: Pipeline) -> Labels:
    names = pipeline.model.labels or ()
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise InvalidModelError(
            f"{pipeline.model.name}: it cannot find shots, because it has no label "
            f"{' and no label '.join(missing)} (it has {listed(names) or 'no labels'}); give a "
            "model for shot transitions, such as an export of models/shot-transitions-divided"
        )
    return Labels(tuple(names))


class _Chunk(NamedTuple):
    """Frames of a file in a row.

    Attributes:
        frames: The converted frames.
        times: Their times in seconds.
        rate: Frames per second that the file states.
        duration: Seconds that the file states; None where it states none.
        problems: The problems of the file; complete in the last chunk, which may have no frames.
    """

    frames: tuple[ConvertedFrame, ...]
    times: tuple[float, ...]
    rate: float
    duration: float | None
    problems: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads all frames of a file, in this process or, after pickling, in a reader process."""

    model_input: ModelInput
    limits: DecodeLimits
    threads: int

    def chunks(self, video: Source) -> Generator[_Chunk, None, None]:
        """Gives the frames, some at a time."""
        rendering = self.model_input.rendering()
        with play(video, threads=self.threads, limits=self.limits) as playback:
            frames: list[ConvertedFrame] = []
            times: list[float] = []

            def chunk(problems: tuple[str, ...]) -> _Chunk:
                values = tuple(frames), tuple(times)
                return _Chunk(*values, playback.rate, playback.duration, problems)

            for frame in playback.frames():
                frames.append(frame.render(rendering))
                times.append(frame.seconds)
                playback.check(frames[-1].nbytes * (_frames_of_part(frames[-1]) + _CHUNK * _AHEAD))
                if len(frames) == _CHUNK:
                    yield chunk(())
                    frames.clear()
                    times.clear()
            yield chunk(playback.problems())


def _frames_of_part(frame: ConvertedFrame) -> int:
    """Computes of how many such frames a part consists."""
    return max(4 * CONTEXT, min(_MOST_FRAMES, _PART_BYTES // max(1, frame.nbytes)))


class _Finder:
    """Finds the transitions of one video; close it afterwards."""

    def __init__(self, pipeline: Pipeline, labels: Labels, workers: int) -> None:
        self._pipeline = pipeline
        self._labels = labels
        self._readers = pipeline.new_readers()
        self._reader = _Reader(
            pipeline.input,
            pipeline.limits.in_reader_process().for_long_videos(),
            decoding_threads(pipeline, workers),
        )
        self._pool = Workers(workers, "shots: model")
        self._thread: threading.Thread | None = None
        self._chunks: BoundedQueue[_Chunk] = BoundedQueue(_AHEAD, drop=False)

    def close(self, *, wait: bool) -> None:
        """Ends the threads and processes; ``wait`` tells if it waits for their work."""
        self._chunks.close()
        self._readers.close()
        self._pool.close(wait=wait)
        if self._thread is not None and wait:
            self._thread.join()

    def find(
        self, video: Source, progress: Progress, check_rate: Callable[[float], None]
    ) -> EditList:
        """Reads the video and finds its transitions; call it once."""
        self._thread = self._chunks.fill(self._read(video), "shots: reading")
        frames: list[ConvertedFrame] = []  # of the part
        times: list[float] = []  # of all frames
        found: list[Transition] = []
        start = 0  # index of the part's first frame
        rate = 0.0
        problems: tuple[str, ...] = ()
        for chunk in self._chunks:
            if not rate:
                check_rate(chunk.rate)
            rate, problems = chunk.rate, chunk.problems
            frames += chunk.frames
            times += chunk.times
            if frames and len(frames) >= _frames_of_part(frames[0]):
                context = min(_context(rate), len(frames) // 4)
                found += self._search(frames, start, rate, len(frames) - context)
                kept = 2 * context
                start += len(frames) - kept
                del frames[:-kept]
                progress(times[-1], chunk.duration)
        found += self._search(frames, start, rate, len(frames))
        return EditList(rate, tuple(times), tuple(without_overlaps(found)), problems)

    def _read(self, video: Source) -> Generator[_Chunk, None, None]:
        reader = self._reader
        return self._readers.answers(reader.chunks, video, reader.limits, threads=reader.threads)

    def _search(
        self, frames: Sequence[ConvertedFrame], start: int, rate: float, end: int
    ) -> list[Transition]:
        """Searches a part of the video.

        Args:
            frames: The frames.
            start: The index of the first of them in the video.
            rate: Frames per second.
            end: Number of frames from which on transitions are left to the next part.

        Returns:
            The transitions, with indices in the video.
        """
        if not frames:
            return []
        part = find_transitions(
            _some_values(frames),
            rate,
            self._pipeline.input.num_frames,
            self._labels,
            lambda clips: self._scores(frames, clips),
        )
        return [
            dataclasses.replace(one, first=one.first + start, last=one.last + start)
            for one in part
            if one.split < end
        ]

    def _scores(
        self, frames: Sequence[ConvertedFrame], clips: Sequence[npt.NDArray[np.int64]]
    ) -> npt.NDArray[np.float64]:
        """Runs the model on clips; returns softmax probabilities [clips, labels]."""

        def run(clip: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            chosen = [frames[index] for index in clip.tolist()]
            answer = self._pipeline.predict(chosen, Ranking(top_k=1))
            return self._pipeline.mean_logits(answer.outputs["logits"])

        answers = [self._pool.start(run, clip) for clip in clips]
        logits = np.stack([answer.result() for answer in answers]).astype(np.float64)
        return apply_function("softmax", logits)


def _context(rate: float) -> int:
    """Computes how many frames around a transition a search needs."""
    return max(CONTEXT, round(CONTEXT * rate / RATE))


def _some_values(frames: Sequence[ConvertedFrame]) -> npt.NDArray[np.float32]:
    """Takes values of each frame, spread over it: float32 [frames, values]."""
    size = frames[0].size
    chosen = np.linspace(0, size - 1, min(size, _VALUES)).astype(np.int64)
    return np.stack([frame.reshape(-1)[chosen] for frame in frames]).astype(np.float32)
