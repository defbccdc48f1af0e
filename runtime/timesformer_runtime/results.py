"""Results: dataclasses, and how logits become labels with scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidOptionError

FUNCTIONS = ("softmax", "sigmoid", "none")

_DEFAULT_FUNCTIONS = {"multi_label_classification": "sigmoid", "regression": "none"}


class Prediction(TypedDict):
    """One label with its score."""

    label: str
    score: float


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Options that turn logits into labels with scores.

    Attributes:
        top_k: How many labels, best first; None gives all of them.
        function_to_apply: ``softmax``, ``sigmoid`` or ``none``; None leaves it to the model's
            ``problem_type``, as Hugging Face's pipelines do.

    Raises:
        InvalidOptionError: A value is not allowed.
    """

    top_k: int | None = 5
    function_to_apply: str | None = None

    def __post_init__(self) -> None:
        top_k, function = self.top_k, self.function_to_apply
        if top_k is not None and (type(top_k) is not int or top_k < 1):
            raise InvalidOptionError(f"`top_k` is {top_k!r}; it must be an integer of at least 1")
        if function is not None and function not in FUNCTIONS:
            raise InvalidOptionError(
                f"`function_to_apply` is {function!r}; it must be one of {', '.join(FUNCTIONS)}"
            )

    def predictions(
        self,
        logits: npt.NDArray[np.float32],
        labels: Sequence[str],
        problem_type: str | None = None,
    ) -> tuple[Prediction, ...]:
        """Ranks the labels.

        Args:
            logits: float32 [classes].
            labels: The names of the classes.
            problem_type: As in Hugging Face's configuration.

        Returns:
            The best ``top_k`` labels, those of the highest logits first.
        """
        scores = apply_function(self.function_of(problem_type), logits.astype(np.float64))
        # By logits: the scores of very sure models may be equal, all of them 1.
        order = np.argsort(-logits, kind="stable")[: self.top_k]
        return tuple({"label": labels[index], "score": float(scores[index])} for index in order)

    def function_of(self, problem_type: str | None) -> str:
        """Names the function that makes scores of the logits of a model.

        Args:
            problem_type: As in Hugging Face's configuration.
        """
        return self.function_to_apply or _DEFAULT_FUNCTIONS.get(problem_type or "", "softmax")


def apply_function(function: str, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Makes scores of logits, float64 [..., classes], with one of ``FUNCTIONS``."""
    if function == "softmax":
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))
    if function == "sigmoid":
        return np.exp(-np.logaddexp(0.0, -logits))  # does not overflow
    return logits


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Wall time of the three steps for one video."""

    decode: float
    preprocess: float
    inference: float


@dataclasses.dataclass(frozen=True)
class Answer:
    """The model's answer to the frames of a video.

    Attributes:
        predictions: Best first; empty where ``logits`` were not requested.
        outputs: As in ``VideoResult``.
        preprocess: Seconds that making the model's input of the converted frames took.
        inference: Seconds that the model took.
    """

    predictions: tuple[Prediction, ...]
    outputs: Mapping[str, npt.NDArray[np.float32]]
    preprocess: float
    inference: float


@dataclasses.dataclass(frozen=True)
class View:
    """The frames and the crop that one run of the model saw.

    Attributes:
        crop: The part of the longer side of the frames: ``start``, ``center`` or ``end``.
        indices: The view's frames, counted as a full sequential decode yields them.
        times: Times of the view's frames, in seconds from the video's start; None for arrays.
    """

    crop: str
    indices: tuple[int, ...]
    times: tuple[float, ...] | None


def count_duplicates(indices: Sequence[int], num_frames: int) -> int:
    """Counts the frames that repeat another frame of the same clip.

    Args:
        indices: The frames of all clips, one clip after the other.
        num_frames: Number of frames of a clip.
    """
    clips = [indices[start : start + num_frames] for start in range(0, len(indices), num_frames)]
    return sum(len(clip) - len(set(clip)) for clip in clips)


@dataclasses.dataclass(frozen=True)
class VideoResult:
    """The result of one video: labels, the frames that were used, and problems of the file.

    Attributes:
        predictions: Best first; empty where ``logits`` were not asked for.
        views: The frames and the crop of each run of the model: one view by default, else the
            crops of the first clip, then those of the next.
        count: Number of frames that the video has.
        failed_packets: How many of its packets did not decode; 0 for a sound video.
        problems: A short sentence for each thing that is wrong with the file; empty for a sound
            video.
        truncated: True if the file ends earlier than it states.
        interlaced: True if a frame consists of two fields; the model saw such frames as they are.
        seconds: Wall time of each step.
        outputs: The outputs that were asked for, float32: ``logits`` [classes], ``features``
            [hidden], others as the graph gives them for a batch of one. The outputs of several
            views are averaged; protocol facebook sums the logits. Of ``attention_rollout`` each
            view has its own: [views, frames, rows, columns].
    """

    predictions: tuple[Prediction, ...]
    views: tuple[View, ...]
    count: int
    failed_packets: int
    problems: tuple[str, ...]
    truncated: bool
    interlaced: bool
    seconds: Seconds
    outputs: Mapping[str, npt.NDArray[np.float32]]

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices of the frames that the model saw, one clip after the other."""
        return tuple(index for view in self._clips() for index in view.indices)

    @property
    def times(self) -> tuple[float, ...] | None:
        """Times of ``indices``, in seconds from the video's start; None for arrays."""
        if any(view.times is None for view in self.views):
            return None
        return tuple(time for view in self._clips() for time in view.times or ())

    @property
    def duplicates(self) -> int:
        """Number of the frames in ``indices`` that repeat another frame of the same clip."""
        return sum(count_duplicates(view.indices, len(view.indices)) for view in self._clips())

    @property
    def damaged(self) -> bool:
        """True for a file with problems, whose predictions deserve less trust."""
        return bool(self.problems)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types, without the raw outputs."""
        crops = list(dict.fromkeys(view.crop for view in self.views))
        return {
            "predictions": [dict(prediction) for prediction in self.predictions],
            "views": {"clips": len(self._clips()), "crops": crops},
            "frames": {
                "count": self.count,
                "indices": list(self.indices),
                "times": None if self.times is None else list(self.times),
                "duplicates": self.duplicates,
            },
            "damaged": self.damaged,
            "problems": list(self.problems),
            "failed_packets": self.failed_packets,
            "truncated": self.truncated,
            "interlaced": self.interlaced,
            "seconds": dataclasses.asdict(self.seconds),
        }

    def _clips(self) -> list[View]:
        """Gives one view of each clip."""
        return [view for view in self.views if view.crop == self.views[0].crop]


@dataclasses.dataclass(frozen=True)
class PartResult:
    """The model's answer to a part of a video or of a stream.

    Attributes:
        start: Seconds from the first frame of the video or stream.
        end: Seconds from the first frame of the video or stream.
        predictions: Best first.
        indices: Indices of the frames that the model saw, counted from 0: one clip after the
            other, and one window after the other.
        times: Times of these frames, in seconds as ``start``.
        duplicates: Number of these frames that repeat another frame of the same clip.
        failed_packets: Number of packets since the previous result that did not decode, or that
            decoded to a damaged picture. A live source leaves damaged pictures out.
        problems: A short sentence for each thing that is known so far to be wrong with the file;
            the last part has all of them. Empty for live sources.
        seconds: Wall time of the work since the previous result, skipped windows included.
            ``decode`` includes the reading of a file, but not the wait for a live source.
    """

    start: float
    end: float
    predictions: tuple[Prediction, ...]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    duplicates: int
    failed_packets: int
    problems: tuple[str, ...]
    seconds: Seconds

    @property
    def damaged(self) -> bool:
        """True for a damaged part of the source, whose predictions deserve less trust."""
        return self.failed_packets > 0 or bool(self.problems)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        values = dataclasses.asdict(self)
        frames = {
            "indices": list(values.pop("indices")),
            "times": list(values.pop("times")),
            "duplicates": values.pop("duplicates"),
        }
        return {
            **values,
            "start": round(self.start, 6),
            "end": round(self.end, 6),
            "predictions": list(values["predictions"]),
            "problems": list(self.problems),
            "frames": frames,
            "damaged": self.damaged,
        }


@dataclasses.dataclass(frozen=True)
class GoldenCheck:
    """Compares this machine's answer for the golden frames with PyTorch's.

    Attributes:
        output: The output that was compared, ``logits`` or ``features``.
        max_abs: Largest absolute difference.
        relative: ``max_abs`` divided by the largest absolute value of PyTorch's answer.
        cosine: Cosine similarity of the two vectors.
        top1_agrees: True if the largest value has the same index in both answers.
        limit: The requirement, in words.
        passed: True if the requirement is met, also that of ``rollout``.
        rollout: The comparison of the output ``attention_rollout``; None for a model without it.
    """

    output: str
    max_abs: float
    relative: float
    cosine: float
    top1_agrees: bool
    limit: str
    passed: bool
    rollout: GoldenCheck | None = None
