"""Explanation: a model's answer to a video, and how much of each patch reached it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from timesformer_runtime.classifier import VideoClassifier
from timesformer_runtime.errors import InvalidModelError
from timesformer_runtime.explain.regions import Geometry
from timesformer_runtime.model.loaded import ROLLOUT
from timesformer_runtime.pictures.heat import Rgb
from timesformer_runtime.pipeline import Pipeline, Video
from timesformer_runtime.results import Answer, Ranking, VideoResult, View
from timesformer_runtime.video.pixels import ConvertedFrame

Shares = npt.NDArray[np.float32]

_HOTTEST = 99.0  # percentile of the shares that gets the hottest colour: single peaks hide the rest
_MOST_MEASURED = 1000  # views: a long video has thousands of windows
_LEAST_SPREAD = 1.02  # hottest by coldest share, below which the heat would only show rounding


@dataclasses.dataclass(frozen=True)
class ViewHeat:
    """A view, and how much of each of its patches reached the answer.

    Attributes:
        view: The frames and the crop.
        shares: float32 [frames, rows, columns], as multiples of an even share: 1 for a patch that
            has as much as the mean over all patches of the view.
    """

    view: View
    shares: Shares

    @property
    def of_frames(self) -> Shares:
        """The mean share of each frame, float32 [frames]."""
        return np.asarray(self.shares.mean(axis=(1, 2)))

    @property
    def times(self) -> tuple[float, ...]:
        """The times of the frames in seconds; for arrays, their numbers."""
        return self.view.times or tuple(map(float, self.view.indices))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.shares.shape[1], self.shares.shape[2]

    def to_dict(self) -> dict[str, Any]:
        """The frames and their shares as JSON types."""
        return {
            "crop": self.view.crop,
            "indices": list(self.view.indices),
            "times": list(self.times),
            "shares": self.of_frames.round(4).tolist(),
        }


class HeatScale(NamedTuple):
    """Turns shares into heat from 0 to 1, alike for all views of a video."""

    coldest: float
    hottest: float

    @classmethod
    def of(cls, views: Sequence[ViewHeat]) -> HeatScale:
        """The scale for these views; of very many, that of some that are chosen at random."""
        chosen = np.random.default_rng(0).permutation(len(views))[:_MOST_MEASURED].tolist()
        shares = np.concatenate([views[number].shares.ravel() for number in sorted(chosen)])
        return cls(float(shares.min()), float(np.percentile(shares, _HOTTEST)))

    def heat(self, shares: Shares) -> Shares:
        """The heat of shares; 0 everywhere where the shares hardly differ."""
        if not self.hottest > self.coldest * _LEAST_SPREAD:
            return np.zeros_like(shares)
        return (shares - np.float32(self.coldest)) / np.float32(self.hottest - self.coldest)


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A video's result, with the heat of each view.

    Attributes:
        result: The labels and the frames; its ``outputs`` have ``attention_rollout`` [views,
            frames, rows, columns], the shares themselves.
        views: The heat of each view: the crops of the first clip, then those of the next.
        pictures: For each view the pixels that it saw, uint8 [height, width, 3] a frame.
    """

    result: VideoResult
    views: tuple[ViewHeat, ...]
    pictures: tuple[tuple[Rgb, ...], ...]

    @property
    def scale(self) -> HeatScale:
        """The scale of the heat."""
        return HeatScale.of(self.views)


def explanation_of(
    classifier: VideoClassifier, video: Video, ranking: Ranking | None = None
) -> Explanation:
    """Runs a model on a video, and computes how much of each patch reaches the answer.

    Args:
        classifier: A classifier whose model has the output ``attention_rollout``.
        video: A path, a binary file object, or frames.
        ranking: How logits become labels with scores.

    Raises:
        MissingOutputError: The model does not have the output; the message has the command that
            exports it.
        TimesformerError: As for ``VideoClassifier.classify``.
    """
    outputs = wanted_outputs(classifier)
    geometry = Geometry(classifier)
    reading = classifier.read(video)
    answer = classifier.predict(reading.frames, ranking, outputs, spent=reading.seconds)
    views = heat_of_views(answer, reading.views, classifier)
    return Explanation(
        reading.result(answer), views, pictures_of_views(reading.frames, views, geometry)
    )


def wanted_outputs(pipeline: Pipeline) -> tuple[str, ...]:
    """The outputs to compute: rollout, and logits where the model has them.

    Raises:
        MissingOutputError: The model has no rollout.
    """
    pipeline.check_outputs([ROLLOUT])
    return ("logits", ROLLOUT) if "logits" in pipeline.model.outputs else (ROLLOUT,)


def heat_of_views(
    answer: Answer, views: Sequence[View], pipeline: Pipeline
) -> tuple[ViewHeat, ...]:
    """Reads the heat of each view out of an answer.

    Raises:
        InvalidModelError: The output does not have the shape for these views.
    """
    return views_with_heat(rollouts_of(answer, views, pipeline), views)


def rollouts_of(answer: Answer, views: Sequence[View], pipeline: Pipeline) -> Shares:
    """Gives the rollout of each view, float32 [views, frames, rows, columns].

    Raises:
        InvalidModelError: The output does not have the shape for these views.
    """
    rollouts = answer.outputs[ROLLOUT]
    frames = pipeline.input.num_frames
    if rollouts.ndim != 4 or rollouts.shape[:2] != (len(views), frames) or not rollouts.size:
        raise InvalidModelError(
            f"{pipeline.model.name}: its {ROLLOUT} are {list(rollouts.shape)} for {len(views)} "
            f"view(s); they must be [views, {frames}, rows, columns]: export the model with "
            "timesformer-export"
        )
    if rollouts.min() < 0:
        raise InvalidModelError(
            f"{pipeline.model.name}: its {ROLLOUT} are not shares; some are < 0"
        )
    return rollouts


def views_with_heat(rollouts: Shares, views: Sequence[View]) -> tuple[ViewHeat, ...]:
    """Turns the rollout of each view, [views, frames, rows, columns], into multiples of a share."""
    even = rollouts.mean(axis=(1, 2, 3), keepdims=True)
    shares = rollouts / np.where(even > 0, even, np.float32(1))
    return tuple(ViewHeat(view, heat) for view, heat in zip(views, shares, strict=True))


def pictures_of_views(
    frames: Sequence[ConvertedFrame], views: Sequence[ViewHeat], geometry: Geometry
) -> tuple[tuple[Rgb, ...], ...]:
    """The pixels that each view saw.

    Args:
        frames: The converted frames of all clips, one clip after the other.
        views: The crops of the first clip, then those of the next.
        geometry: Makes pictures of converted frames.
    """
    length = len(views[0].shares)
    clips = [frames[start : start + length] for start in range(0, len(frames), length)]
    pictures: list[tuple[Rgb, ...]] = []
    for clip in clips:
        crops = [geometry.pictures(frame, views[0].grid) for frame in clip]
        pictures += [tuple(frame) for frame in zip(*crops, strict=True)]
    return tuple(pictures)
