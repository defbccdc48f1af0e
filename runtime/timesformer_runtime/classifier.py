"""VideoClassifier: from videos to labels, logits and features. The one class that users need."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidModelError, InvalidOptionError
from timesformer_runtime.input.model_input import ModelInput
from timesformer_runtime.input.sampling import uniform
from timesformer_runtime.input.views import Views
from timesformer_runtime.model.golden import golden_frame, judge, judge_rollout
from timesformer_runtime.model.loaded import Golden, LoadedModel, load_model, output_length
from timesformer_runtime.model.settings import SessionSettings
from timesformer_runtime.pipeline import Pipeline, Video
from timesformer_runtime.results import GoldenCheck, Prediction, Ranking, VideoResult
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.pixels import ConvertedFrame

if TYPE_CHECKING:  # the methods import these classes, so that one video starts sooner
    from timesformer_runtime.workloads.batch import Outcome
    from timesformer_runtime.workloads.stream import LiveResult
    from timesformer_runtime.workloads.timeline import Timeline

_FLOAT32_VARIANTS = (None, "fp32")  # None: a file that states no dtype

Videos: TypeAlias = list[Any] | tuple[Any, ...]  # each item is a Video, of any kind


class VideoClassifier(Pipeline):
    """Runs one exported video model. Make it with ``from_pretrained``.

    A video is a path, a binary file object, or an array of its frames: uint8, RGB, [T, H, W, 3].
    Only files need PyAV.
    The model sees frames that are spread evenly over the whole video or array, the first and the
    last frame included. A video with fewer frames than the model needs repeats some. ``Views``
    chooses other frames, or several views of them.

    Several threads may call the methods at once. A pickled classifier holds only the arguments of
    ``from_pretrained``: unpickling loads the model again.

    Example:
        >>> classifier = VideoClassifier.from_pretrained("my-model")
        >>> classifier("clip.mp4", top_k=1)
        [{'label': 'dissolve', 'score': 0.98}]
    """

    def __init__(self, model: LoadedModel, views: Views, arguments: Mapping[str, Any]) -> None:
        """Wraps a loaded model.

        Args:
            model: The model.
            views: Which frames and crops of a video the model sees.
            arguments: The arguments of ``from_pretrained`` that load the model again.

        Raises:
            InvalidOptionError: The model cannot take such views.
        """
        super().__init__(model, views, arguments.get("limits") or DecodeLimits())
        self._arguments = copy.deepcopy(dict(arguments))  # the caller may change its own

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
        allow_cpu_nodes: bool = False,
        session_options: Mapping[str, str] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        views: Views | None = None,
        limits: DecodeLimits | None = None,
    ) -> Self:
        """Loads a model.

        Args:
            model: An exported model's folder, one ``.onnx`` file, the bytes of one, or a Hub id.
                A path that exists is never looked up on the Hub.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` (the second GPU). ``cuda`` is an error
                where it is not available; ``auto`` then takes the CPU and says why in
                ``device_reason``.
            dtype: The variant to load: ``fp32``, ``fp16``, ``int8``, ``q4``, ``uint8``, ``q8``,
                ``q4f16`` or ``bnb4``. By default ``int8`` on the CPU and ``fp16`` on CUDA where
                the model has them, else ``fp32``.
            threads: CPU threads for one clip; by default as many as affinity and the container's
                quota grant.
            providers: ONNX Runtime execution providers in place of ``device``, such as
                ``OpenVINOExecutionProvider`` or, in short, ``openvino``.
            provider_options: For each of ``providers`` its options.
            allow_cpu_nodes: True where a device that you name may leave nodes of the graph to the
                CPU; ``notes`` then names them. Otherwise that is an error.
            session_options: ONNX Runtime's session configuration entries and switches; see
                ``SessionSettings``.
            revision: Branch, tag or commit of a Hub id.
            local_files_only: Use only files that were downloaded before.
            views: Which frames and crops of a video the model sees; by default one clip, spread
                evenly over the video, and the middle of its frames.
            limits: Limits on the time, memory and size of one video.

        Raises:
            ModelNotFoundError: The model does not exist, or does not have that variant.
            InvalidModelError: The model is broken, or is not a video model.
            InvalidOptionError: An argument is not valid, or does not apply to this model.
            DeviceError: The device is not available, or does not take the whole graph.
            HubError: The Hub cannot be reached or refuses access.
            MissingDependencyError: A library is missing; the message has the pip command.
        """
        for name, value, kind in (("views", views, Views), ("limits", limits, DecodeLimits)):
            if value is not None and not isinstance(value, kind):
                raise InvalidOptionError(f"`{name}` is {value!r}; it must be a {kind.__name__}")
        settings = SessionSettings(
            device=device,
            threads=threads,
            providers=providers,
            provider_options=provider_options,
            allow_cpu_nodes=allow_cpu_nodes,
            session_options={} if session_options is None else session_options,
        )
        # Any other type reaches ``find_model``, whose error says what is accepted.
        source = Path(os.fsdecode(model)) if isinstance(model, PathLike) else model
        loaded = load_model(
            source, settings, dtype=dtype, revision=revision, local_files_only=local_files_only
        )
        arguments = {
            "model": _absolute(source),
            "device": device,
            "dtype": dtype,
            "threads": threads,
            "providers": providers,
            "provider_options": provider_options,
            "allow_cpu_nodes": allow_cpu_nodes,
            "session_options": session_options,
            "revision": revision,
            "local_files_only": local_files_only,
            "views": views,
            "limits": limits,
        }
        return cls(loaded, views or Views(), arguments)

    @property
    def name(self) -> str:
        """The model as it was asked for."""
        return self.model.name

    @property
    def dtype(self) -> str | None:
        """The variant that was loaded, such as ``int8``; None where it is unknown."""
        return self.model.dtype

    @property
    def device(self) -> str:
        """``cpu``, ``cuda``, ``cuda:1``, or another provider's name in lower case."""
        return self.model.session.device.name

    @property
    def device_reason(self) -> str:
        """The reason for which ``auto`` chose this device; empty where you named the device."""
        return self.model.session.device.reason

    @property
    def providers(self) -> tuple[str, ...]:
        """ONNX Runtime's execution providers that the session really uses."""
        return self.model.session.providers

    @property
    def threads(self) -> int:
        """CPU threads for one clip."""
        return self.model.session.threads

    @property
    def wide_products(self) -> bool:
        """True where an int8 model computes in 16 bits, as 8-bit products overflow on this CPU."""
        return self.dtype == "int8" and self.model.session.wide_products

    @property
    def num_frames(self) -> int:
        """Number of frames of a clip."""
        return self.model.input.num_frames

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes; None where the model has no classes."""
        return self.model.labels

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs: ``logits``, ``features``, ..."""
        return tuple(self.model.outputs)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata that timesformer-export wrote; empty for files of other tools."""
        return self.model.metadata

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments of ``from_pretrained`` that load this model again."""
        return copy.deepcopy(self._arguments)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each thing about the model that the user may not expect."""
        return self.model.notes

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_again, (type(self), self._arguments)

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
            videos: A video, or a list of videos. Frames are one array: ``numpy.stack(frames)``
                where they are a list.
            top_k: How many labels; None gives all of them.
            function_to_apply: ``softmax``, ``sigmoid`` or ``none``; by default what the model's
                ``problem_type`` says, else softmax.

        Returns:
            ``{"label", "score"}``, best first; for a list of videos a list of these, in order.

        Raises:
            VideoNotFoundError: There is no such file.
            InvalidVideoError: The video cannot be decoded, or the array does not hold frames.
            InvalidOptionError: ``top_k`` or ``function_to_apply`` is not valid.
            MissingOutputError: The model has no logits.
            TimesformerError: As for ``classify``.
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
        """Runs the model on one video; the result also has the frames, timings and raw outputs.

        Args:
            video: A video.
            top_k: How many labels; None gives all of them.
            function_to_apply: ``softmax``, ``sigmoid`` or ``none``; by default what the model's
                ``problem_type`` says, else softmax.
            outputs: Which of ``self.outputs`` to compute. Without ``logits`` there are no
                predictions.

        Returns:
            Predictions, the frames that were used, timings, and the outputs themselves.

        Raises:
            VideoNotFoundError: There is no such file.
            InvalidVideoError: The video cannot be decoded, or the array does not hold frames.
            VideoLimitError: Reading the video costs more than the limits allow; this is an
                ``InvalidVideoError``, too.
            InvalidOptionError: ``top_k``, ``function_to_apply`` or ``outputs`` is not valid, or an
                output cannot be averaged over several views.
            MissingOutputError: The model does not have one of the outputs.
            InferenceTimeoutError: The model takes longer than the limits allow.
            InvalidModelError: The model fails on the CPU, or its answer is not finite or not that
                for one clip.
            DeviceError: The model fails on another device.
            MissingDependencyError: The video is a file, and PyAV is not installed.
            NotEnoughMemoryError: The video or the model's answer does not fit into memory.
            ClosedError: The classifier is closed.
        """
        ranking = Ranking(top_k, function_to_apply)
        self.check_outputs(outputs)
        reading = self.read(video)
        return reading.result(self.predict(reading.frames, ranking, outputs, spent=reading.seconds))

    def stream(  # noqa: PLR0913  # what a live source needs
        self,
        source: str | PathLike[str],
        *,
        window: float = 4.0,
        stride: float = 2.0,
        top_k: int | None = 5,
        function_to_apply: str | None = None,
        timeout: float | None = None,
        reconnect: int | None = None,
        drop: bool | None = None,
        format: str | None = None,  # noqa: A002  # FFmpeg's word
        rtsp_transport: str | None = None,
        hardware: str | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> Generator[LiveResult, None, None]:
        """Classifies a live stream: the newest complete window, again and again.

        The source is connected when the first result is asked for. Closing the generator ends its
        threads; where the network does not answer, that waits for ``timeout`` at most. Of the
        limits, ``max_pixels`` and ``max_bytes`` apply, and to files all others too.

        A web server may redirect to any other host, also one in your own network: name only those
        that you trust.

        Args:
            source: A URL, a device with its ``format``, or a video file, which is replayed as
                fast as the model can and gives what ``timeline`` gives. A file on a web server
                is a live source: after its end it starts again, unless ``reconnect`` is 0.
            window: Seconds of the stream that the model sees for each result.
            stride: Seconds from the start of one window to that of the next.
            top_k: As in a call.
            function_to_apply: As in a call.
            timeout: After how many seconds without a frame a source is lost; by default 10.
            reconnect: How often in a row to try to connect to a lost source again, after 0.5
                seconds, 1, 2, ... up to 30; by default 10. With 0 the stream ends where the
                source does.
            drop: True skips windows that the model is too slow for, and classifies the newest
                one. By default True for live sources, and False for files. With True a file
                gives complete windows alone: none if it is shorter than ``window``.
            format: FFmpeg's name of a device or format, such as ``v4l2``, ``hls`` or ``mjpeg``.
            rtsp_transport: ``tcp`` (the default) or ``udp``.
            hardware: FFmpeg's name of the hardware that decodes a live source, such as ``cuda`` or
                ``vaapi``; by default the CPU decodes.
            notify: Called with a sentence when the source is lost, when it is found again, and
                at the end of a damaged file; by default the sentence is logged as a warning.

        Raises:
            VideoNotFoundError: There is no such file.
            InvalidVideoError: The source cannot be connected at first, or is not a video.
            SourceLostError: The source was lost, and could not be connected again.
            InvalidOptionError: An option is not valid, or does not apply to this source.
            DeviceError: The hardware does not decode here, or not this source.
            TimesformerError: As for ``classify``.
        """
        from timesformer_runtime.workloads.stream import stream  # noqa: PLC0415
        from timesformer_runtime.workloads.stream_sources import LiveSettings  # noqa: PLC0415
        from timesformer_runtime.workloads.windows import WindowSettings  # noqa: PLC0415

        ranking = Ranking(top_k, function_to_apply)
        settings = LiveSettings(
            timeout=timeout,
            reconnect=reconnect,
            drop=drop,
            format=format,
            rtsp_transport=rtsp_transport,
            hardware=hardware,
        )
        return stream(
            self,
            source,
            WindowSettings(window, stride),
            settings,
            ranking,
            notify,
        )

    def batch(
        self,
        videos: Iterable[Video],
        top_k: int | None = 5,
        function_to_apply: str | None = None,
        *,
        workers: int | None = None,
    ) -> Generator[Outcome, None, None]:
        """Classifies many videos: some are decoded while the model is busy with others.

        Args:
            videos: The videos, as a list or another iterable. An iterator is read only a few videos
                ahead of the workers.
            top_k: As in a call.
            function_to_apply: As in a call.
            workers: How many videos are worked on at a time; by default one more than there are
                threads for inference. With more workers, a CPU runs the model for several videos
                at once: throughput is best with ``threads=1`` and one worker more than cores.

        Returns:
            An iterator of outcomes, in the order in which they are done: a result or an error for
            each video. Closing it waits for the videos that are being worked on.

        Raises:
            InvalidOptionError: An option is not valid.
            MissingOutputError: The model has no logits.
        """
        from timesformer_runtime.workloads.batch import classify_all  # noqa: PLC0415

        return classify_all(self, videos, Ranking(top_k, function_to_apply), workers)

    def timeline(
        self,
        video: str | PathLike[str] | BinaryIO,
        window: float = 4.0,
        stride: float = 2.0,
        top_k: int | None = 5,
        function_to_apply: str | None = None,
        *,
        merge: bool = False,
        workers: int = 1,
    ) -> Timeline:
        """Classifies a long video window by window, in one pass and in little memory.

        The last window may reach past the end of the video, if the video fills at least half of
        that window. A video that is shorter than a window is one segment. A frame that is shown
        for long is in every window of that time, for up to an hour; after a longer gap the next
        frame follows at the video's usual rate. Memory holds the frames of a few windows, at most
        ``max_bytes``. Only ``max_seconds`` limits the time. At the end ``Timeline.problems`` says
        what is wrong with the file.

        Args:
            video: Path or binary file object.
            window: Seconds that the model sees at a time.
            stride: Seconds from the start of one window to that of the next.
            top_k: As in a call.
            function_to_apply: As in a call.
            merge: True joins neighbouring windows with the same first label into one segment.
            workers: How many windows the model works on at a time, on a CPU. Throughput is best
                with ``threads=1`` and as many workers as cores; the first segment takes longer.

        Returns:
            An iterator of segments, which come as soon as they are known. Decoding runs ahead in
            a thread, which ends with the iterator.

        Raises:
            InvalidOptionError: An option is not valid.
            TimesformerError: As for ``classify``, from the iterator.
        """
        from timesformer_runtime.workloads.timeline import Timeline  # noqa: PLC0415
        from timesformer_runtime.workloads.windows import WindowSettings  # noqa: PLC0415

        return Timeline(
            self,
            video,
            WindowSettings(window, stride),
            Ranking(top_k, function_to_apply),
            merge=merge,
            workers=workers,
        )

    def logits(self, videos: Video | Videos) -> npt.NDArray[np.float32]:
        """The model's logits, before any function is applied.

        Args:
            videos: A video, or a list of videos.

        Returns:
            float32 [classes], for a list of videos [n, classes]. The logits of several views are
            averaged; protocol facebook sums them.

        Raises:
            TimesformerError: As in a call.
        """
        return self._values(videos, "logits")

    def features(self, videos: Video | Videos) -> npt.NDArray[np.float32]:
        """The video's features: the CLS row after the last layer.

        Args:
            videos: A video, or a list of videos.

        Returns:
            float32 [hidden], for a list of videos [n, hidden]; the average of several views.

        Raises:
            MissingOutputError: The model has no features; the message has the command that
                exports them.
            TimesformerError: As in a call.
        """
        return self._values(videos, "features")

    def fingerprint(self) -> str:
        """Digest of the model's files, labels and preprocessing; it differs for different models.

        Reads all of the model's files, also those that hold weights beside the graph.

        Raises:
            InvalidModelError: One of the files was replaced after the model was loaded.
            OSError: One of the files does not exist any more.
        """
        model = self.model
        digest = hashlib.sha256(model.graph if isinstance(model.graph, bytes) else b"")
        for file in model.session.files:
            file.read(digest.update)
        digest.update(repr((model.labels, model.problem_type, model.preprocessing)).encode())
        return digest.hexdigest()[:16]

    def verify(self) -> GoldenCheck:
        """Runs the golden check: generated frames, for which the file holds PyTorch's answer.

        A float32 model passes when no value differs from PyTorch's by more than 0.1 % of the
        largest; any other model passes when the cosine is at least 0.98. The check also covers
        attention rollout, where the model has it.

        Raises:
            InvalidModelError: The file has no golden check, or the model fails on it.
            ClosedError: The classifier is closed.
        """
        golden = self.model.golden
        if golden is None:
            raise InvalidModelError(
                f"{self.name}: it has no golden check; only timesformer-export writes one"
            )
        exact = self.dtype in _FLOAT32_VARIANTS
        check = judge(self._golden_answer(golden), golden.values, golden.output, exact=exact)
        golden = self.model.golden_rollout
        if golden is None:
            return check
        rollout = judge_rollout(self._golden_answer(golden).ravel(), golden.values, exact=exact)
        passed = check.passed and rollout.passed
        return dataclasses.replace(check, passed=passed, rollout=rollout)

    def _golden_answer(self, golden: Golden) -> npt.NDArray[np.float32]:
        default_input = ModelInput(
            self.model.input, self.model.preprocessing, Views(), self.limits.max_bytes
        )
        count, height, width, channels = golden.shape

        def converted(number: int) -> ConvertedFrame:
            frame = golden_frame(golden.seed, number, (height, width, channels))
            rgb = np.repeat(frame, 3 // channels, axis=2)  # its luma is exactly the grey
            return default_input.convert(rgb)

        (view,) = default_input.views(
            [converted(int(number)) for number in uniform(count, self.num_frames)]
        )
        return self.run(view, [golden.output], self.limits.time, finite=False)[golden.output]

    def _predictions(
        self, video: Video, top_k: int | None, function_to_apply: str | None
    ) -> list[Prediction]:
        return list(self.classify(video, top_k, function_to_apply).predictions)

    def _values(self, videos: Video | Videos, output: str) -> npt.NDArray[np.float32]:
        self.check_outputs([output])
        if not isinstance(videos, list | tuple):
            return self._value(videos, output)
        rows = [self._value(video, output) for video in videos]
        if not rows:
            session = self.model.session
            length = output_length(session, self.model.outputs[output]) or 0
            return np.empty((0, length), dtype=np.float32)
        return np.stack(rows)

    def _value(self, video: Video, output: str) -> npt.NDArray[np.float32]:
        return self.classify(video, outputs=[output]).outputs[output]


def _load_again(cls: type[VideoClassifier], arguments: dict[str, Any]) -> VideoClassifier:
    return cls.from_pretrained(**arguments)


def _absolute(model: str | Path | bytes) -> str | Path | bytes:
    """Makes a path that exists absolute; a Hub id and bytes stay as they are."""
    if isinstance(model, bytes) or not Path(model).exists():
        return model
    return Path(model).absolute()
