"""VideoClassifier: from videos to labels, logits and features. The one class that users need."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from timesformer_runtime.bundle import Bundle, open_bundle
from timesformer_runtime.errors import InvalidModelError, InvalidOptionError, MissingOutputError
from timesformer_runtime.golden import golden_frames
from timesformer_runtime.results import (
    FUNCTIONS,
    GoldenCheck,
    Prediction,
    Seconds,
    VideoResult,
    apply_function,
    best,
    compare,
    default_function,
)
from timesformer_runtime.sampling import FrameIndices, uniform
from timesformer_runtime.session import as_float32
from timesformer_runtime.settings import SessionSettings
from timesformer_runtime.video import Clip, read_clip

Video: TypeAlias = str | PathLike[str] | BinaryIO | npt.NDArray[np.uint8]
Videos: TypeAlias = list[Any] | tuple[Any, ...]  # of Video, which may be mixed

# Outputs [batch, n]. Others may hold frames or patches in their first axis, and stay as they are.
_ONE_ROW = ("logits", "features")
_FLOAT32_VARIANTS = (None, "fp32")  # None: an unnamed file, which is float32 unless it says so


class VideoClassifier:
    """Runs one exported video model. Make it with ``from_pretrained``.

    A video is a path, a binary file object, or an array of its frames: uint8, RGB, [T, H, W, 3].
    From each, the number of frames that the model needs is taken evenly over the whole video,
    the first and the last frame included; from arrays too. Shorter videos repeat frames.

    Methods may be called from several threads at once. A classifier pickles as its
    configuration and loads the model again where it is unpickled, because a session cannot
    travel.

    Example:
        >>> classifier = VideoClassifier.from_pretrained("my-bundle")
        >>> classifier("clip.mp4", top_k=1)
        [{'label': 'dissolve', 'score': 0.98}]
    """

    def __init__(self, bundle: Bundle, arguments: Mapping[str, Any]) -> None:
        """Wraps a loaded model.

        Args:
            bundle: The model.
            arguments: What ``from_pretrained`` must be given to load it again.
        """
        self._bundle = bundle
        self._arguments = dict(arguments)

    @classmethod
    def from_pretrained(  # noqa: PLR0913  # the conventional arguments of such loaders
        cls,
        model: str | PathLike[str] | bytes,
        *,
        device: str = "auto",
        dtype: str | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        session_options: Mapping[str, str] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Loads a model.

        Args:
            model: A bundle folder, one ``.onnx`` file, the bytes of one, or a Hub id. A path
                that exists is never looked up on the Hub.
            device: ``auto``, ``cpu`` or ``cuda``. ``cuda`` is an error where it cannot be had;
                ``auto`` then takes the CPU and says why in ``device_reason``.
            dtype: Which file of a bundle: ``fp32``, ``fp16``, ``int8``, ``q4``, ``uint8``,
                ``q8``, ``q4f16`` or ``bnb4``. By default on the CPU ``int8`` where the processor
                computes it well, on CUDA ``fp16``; else ``fp32``.
            threads: CPU threads for one clip; by default as many as affinity and the container's
                quota grant.
            providers: ONNX Runtime execution providers in place of ``device``.
            provider_options: For each of ``providers`` its options.
            session_options: ONNX Runtime's session configuration entries.
            revision: Branch, tag or commit of a Hub id.
            local_files_only: Use only files that were downloaded before.

        Raises:
            ModelNotFoundError: There is no such model, or not in that dtype.
            InvalidModelError: It is broken, or no video model.
            InvalidOptionError: An argument is not valid, or does not apply to this model.
            DeviceError: The device cannot be had.
            HubError: The Hub cannot be reached or refuses access.
            MissingDependencyError: A library is missing; the message has the pip command.
        """
        settings = SessionSettings(
            device=device,
            threads=threads,
            providers=providers,
            provider_options=provider_options,
            session_options=dict(session_options or {}),
        )
        source = model if isinstance(model, str | bytes) else Path(model)
        bundle = open_bundle(
            source, settings, dtype=dtype, revision=revision, local_files_only=local_files_only
        )
        arguments = {
            "model": _lasting(source),
            "device": device,
            "dtype": dtype,
            "threads": threads,
            "providers": providers,
            "provider_options": provider_options,
            "session_options": session_options,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        return cls(bundle, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_again, (type(self), self._arguments)

    @property
    def name(self) -> str:
        """The model as it was asked for."""
        return self._bundle.name

    @property
    def dtype(self) -> str | None:
        """The variant that was loaded, such as ``int8``; None where nothing tells."""
        return self._bundle.dtype

    @property
    def device(self) -> str:
        """``cpu``, ``cuda``, or another provider's name in lower case."""
        return self._bundle.session.device.name

    @property
    def device_reason(self) -> str:
        """Why ``auto`` chose this device; empty where the device was asked for."""
        return self._bundle.session.device.reason

    @property
    def providers(self) -> tuple[str, ...]:
        """ONNX Runtime's execution providers that the session really uses."""
        return self._bundle.session.providers

    @property
    def threads(self) -> int:
        """CPU threads for one clip."""
        return self._bundle.session.threads

    @property
    def num_frames(self) -> int:
        """Number of frames that the model sees of a video."""
        return self._bundle.input.num_frames

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes; None where the model has no classes."""
        return self._bundle.labels

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the model computes: ``logits``, ``features``, ..."""
        return tuple(self._bundle.outputs)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What timesformer-export wrote into the file; empty for files of other tools."""
        return self._bundle.metadata

    @overload
    def __call__(
        self, videos: Video, top_k: int | None = 5, function_to_apply: str | None = None
    ) -> list[Prediction]: ...

    @overload
    def __call__(
        self,
        videos: Videos,
        top_k: int | None = 5,
        function_to_apply: str | None = None,
    ) -> list[list[Prediction]]: ...

    def __call__(
        self,
        videos: Video | Videos,
        top_k: int | None = 5,
        function_to_apply: str | None = None,
    ) -> list[Prediction] | list[list[Prediction]]:
        """Classifies one video, or a list of them.

        Args:
            videos: A video, or a list of videos.
            top_k: How many labels; None gives all of them.
            function_to_apply: ``softmax``, ``sigmoid`` or ``none``; by default what the model's
                ``problem_type`` says, else softmax.

        Returns:
            ``{"label", "score"}``, best first; for a list of videos a list of these, in order.

        Raises:
            VideoNotFoundError: There is no such file.
            InvalidVideoError: It is no video that can be decoded, or no array of frames.
            InvalidOptionError: ``top_k`` or ``function_to_apply`` is not valid.
            MissingOutputError: The model has no logits.
        """
        if isinstance(videos, list | tuple):
            return [self._predictions(video, top_k, function_to_apply) for video in videos]
        return self._predictions(videos, top_k, function_to_apply)

    def classify(
        self,
        video: Video,
        top_k: int | None = 5,
        function_to_apply: str | None = None,
        outputs: Sequence[str] = ("logits",),
    ) -> VideoResult:
        """Runs the model on one video and tells everything about it.

        Args:
            video: A video.
            top_k: As in a call.
            function_to_apply: As in a call.
            outputs: Which of ``self.outputs`` to compute. Without ``logits`` there are no
                predictions.

        Returns:
            Predictions, the frames that were used, timings, and the outputs themselves.

        Raises:
            TimesformerError: As in a call; MissingOutputError for any of ``outputs``.
        """
        if top_k is not None and (type(top_k) is not int or top_k < 1):
            raise InvalidOptionError(f"top_k is {top_k!r}; it must be an integer of at least 1")
        function = self._function(function_to_apply)
        self.require_outputs(outputs)
        start = time.perf_counter()
        clip = self._read(video)
        decoded = time.perf_counter()
        model_input = self._prepare(clip)
        prepared = time.perf_counter()
        values = self._run(model_input, outputs)
        done = time.perf_counter()
        predictions: tuple[Prediction, ...] = ()
        if "logits" in values:
            logits = values["logits"]
            predictions = best(apply_function(function, logits), self._names(logits), top_k)
        return VideoResult(
            predictions=predictions,
            indices=clip.indices,
            times=clip.times,
            count=clip.count,
            failed_packets=clip.failed_packets,
            seconds=Seconds(decoded - start, prepared - decoded, done - prepared),
            outputs=values,
        )

    def logits(self, videos: Video | Videos) -> npt.NDArray[np.float32]:
        """What the model answers before any function is applied.

        Returns:
            float32 [classes], for a list of videos [n, classes].

        Raises:
            TimesformerError: As in a call.
        """
        return self._values(videos, "logits")

    def features(self, videos: Video | Videos) -> npt.NDArray[np.float32]:
        """The clip's feature, the CLS row after the last layer.

        Returns:
            float32 [hidden], for a list of videos [n, hidden].

        Raises:
            MissingOutputError: The model was not exported for it; the message has the command.
            TimesformerError: As in a call.
        """
        return self._values(videos, "features")

    def verify(self) -> GoldenCheck:
        """Runs the golden check: generated frames, for which the file holds PyTorch's answer.

        Float32 models pass when no value is further off than 0.1 % of the largest; others when
        the cosine is at least 0.98.

        Raises:
            InvalidModelError: The file has no golden check.
        """
        golden = self._bundle.golden
        if golden is None:
            raise InvalidModelError(
                f"{self.name}: it has no golden check; only files of timesformer-export do"
            )
        frames = golden_frames(golden.seed, golden.shape)
        if frames.shape[3] == 1:
            frames = np.repeat(frames, 3, axis=3)  # grey as RGB, which turns back exactly
        clip = Clip.from_array(frames, lambda count: uniform(count, self.num_frames))
        values = self._run(self._prepare(clip), [golden.output], finite=False)[golden.output]
        exact = self.dtype in _FLOAT32_VARIANTS
        return compare(values, golden.values, golden.output, exact=exact)

    def require_outputs(self, outputs: Sequence[str]) -> None:
        """Checks that the model computes these.

        Raises:
            MissingOutputError: It does not; the message has the export command.
        """
        for output in outputs:
            if output not in self._bundle.outputs:
                raise MissingOutputError(
                    f"{self.name}: it has no output {output!r} (it has "
                    f"{', '.join(self.outputs)}); export one that has it: timesformer-export "
                    f"{_export_option(output)} --model {self._source()}"
                )

    def _function(self, name: str | None) -> str:
        if name is None:
            return default_function(self._bundle.problem_type)
        if name not in FUNCTIONS:
            raise InvalidOptionError(
                f"function_to_apply is {name!r}; it must be one of {', '.join(FUNCTIONS)}"
            )
        return name

    def _predictions(
        self, video: Video, top_k: int | None, function_to_apply: str | None
    ) -> list[Prediction]:
        return list(self.classify(video, top_k, function_to_apply).predictions)

    def _values(self, videos: Video | Videos, output: str) -> npt.NDArray[np.float32]:
        self.require_outputs([output])
        if not isinstance(videos, list | tuple):
            return self._run(self._prepare(self._read(videos)), [output])[output]
        rows = [self._run(self._prepare(self._read(video)), [output])[output] for video in videos]
        return np.stack(rows) if rows else np.empty((0, self._length(output)), dtype=np.float32)

    def _length(self, output: str) -> int:
        """Last dimension of an output; 0 where the graph leaves it open."""
        name = self._bundle.outputs[output]
        shape = next(node.shape for node in self._bundle.session.outputs if node.name == name)
        return shape[-1] if isinstance(shape[-1], int) else 0

    def _read(self, video: Video) -> Clip:
        def choose(count: int) -> FrameIndices:
            return uniform(count, self.num_frames)

        if isinstance(video, np.ndarray):
            return Clip.from_array(video, choose)
        return read_clip(video, choose, threads=self.threads)

    def _prepare(self, clip: Clip) -> npt.NDArray[Any]:
        """A batch of one clip, as the graph takes it."""
        if self._bundle.preprocessing is None:
            return clip.array()[None]
        pixel_values = self._bundle.preprocessing(clip.frames)
        return pixel_values[None].astype(self._bundle.input.dtype, copy=False)

    def _run(
        self, model_input: npt.NDArray[Any], outputs: Sequence[str], *, finite: bool = True
    ) -> dict[str, npt.NDArray[np.float32]]:
        """The outputs for one clip; they must be finite, unless that is what is to be found out."""
        names = [self._bundle.outputs[output] for output in outputs]
        arrays = self._bundle.session.run(names, {self._bundle.input.name: model_input})
        values = {}
        for output, array in zip(outputs, arrays, strict=True):
            if output in _ONE_ROW and (array.ndim != 2 or len(array) != 1):
                # As of exports that forget to average the frames of space-only attention.
                raise InvalidModelError(
                    f"{self.name}: {output} are {list(array.shape)} for one clip; they must be "
                    "[1, n]: export the model with timesformer-export"
                )
            if finite and not np.isfinite(array).all():
                raise InvalidModelError(
                    f"{self.name}: {output} are not finite; use another dtype, such as fp32"
                )
            values[output] = as_float32(array[0] if output in _ONE_ROW else array)
        return values

    def _names(self, logits: npt.NDArray[np.float32]) -> tuple[str, ...]:
        labels = self.labels or tuple(f"LABEL_{index}" for index in range(len(logits)))
        if len(labels) != len(logits):
            raise InvalidModelError(
                f"{self.name}: it has {len(logits)} classes, but config.json names {len(labels)}: "
                "correct id2label"
            )
        return labels

    def _source(self) -> str:
        """The checkpoint that the model came from, for a command to be copied."""
        source = self.metadata.get("source")
        if source is None:
            return "CHECKPOINT"
        try:
            return str(json.loads(source)["model"])
        except (ValueError, KeyError, TypeError):
            return "CHECKPOINT"


def _load_again(cls: type[VideoClassifier], arguments: dict[str, Any]) -> VideoClassifier:
    return cls.from_pretrained(**arguments)


def _lasting(model: str | Path | bytes) -> str | Path | bytes:
    """A path that means the same from another working directory."""
    if isinstance(model, bytes) or not Path(model).exists():
        return model
    return Path(model).absolute()


def _export_option(output: str) -> str:
    if output.startswith("hidden_states"):
        return "--output-hidden-states"
    if "attentions" in output:
        return "--output-attentions"
    return f"--task {'video-classification' if output == 'logits' else 'feature-extraction'}"
