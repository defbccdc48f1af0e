"""Pipeline: a loaded model, what it sees of a video, and what it answers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from timesformer_runtime.bundle import Bundle
from timesformer_runtime.errors import InvalidModelError
from timesformer_runtime.golden import golden_frames, judge
from timesformer_runtime.model_input import Converted, ModelInput
from timesformer_runtime.reading import Reading, Video, read_video
from timesformer_runtime.results import Answer, GoldenCheck, Prediction, VideoResult
from timesformer_runtime.runner import Runner
from timesformer_runtime.sampling import uniform
from timesformer_runtime.video import DecodeLimits
from timesformer_runtime.views import Views

_FLOAT32_VARIANTS = (None, "fp32")  # None: an unnamed file, which is float32 unless it says so


class Pipeline:
    """The steps from one video to the model's answer, which long and many videos share.

    Its methods may be called from several threads at once.

    Args:
        bundle: The model.
        views: What it shall see of a video.
        limits: What reading one video may cost.

    Raises:
        InvalidOptionError: The model cannot be given such views.
    """

    def __init__(self, bundle: Bundle, views: Views, limits: DecodeLimits) -> None:
        self._bundle = bundle
        self._input = ModelInput(bundle, views)
        self._views = dataclasses.replace(views, sampling=self._input.sampling)
        self._runner = Runner(bundle, views)
        self._limits = limits

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
    def wide_products(self) -> bool:
        """Whether an int8 model computes in 16 bits, as 8-bit products overflow on this CPU."""
        return self.dtype == "int8" and self._bundle.session.wide_products

    @property
    def num_frames(self) -> int:
        """Number of frames that the model sees of a clip."""
        return self._bundle.input.num_frames

    @property
    def views(self) -> Views:
        """What the model sees of a video, with the rate of the sampling filled in."""
        return self._views

    @property
    def limits(self) -> DecodeLimits:
        """What reading one video may cost."""
        return self._limits

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

    @property
    def input(self) -> ModelInput:
        """Chooses and converts frames, for those who decode them themselves."""
        return self._input

    def check(
        self,
        top_k: int | None = 5,
        function_to_apply: str | None = None,
        outputs: Sequence[str] = ("logits",),
    ) -> None:
        """Checks, before any work, the arguments of ``classify`` and ``predict``.

        Args:
            top_k: How many labels; None gives all of them.
            function_to_apply: ``softmax``, ``sigmoid`` or ``none``; by default what the model's
                ``problem_type`` says, else softmax.
            outputs: Names of what the model shall compute.

        Raises:
            InvalidOptionError: One is not valid, or an output cannot be had of several views.
            MissingOutputError: The model has no such output; the message has the export command.
        """
        self._runner.check(top_k, function_to_apply, outputs)

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
            top_k: How many labels; None gives all of them.
            function_to_apply: ``softmax``, ``sigmoid`` or ``none``; by default what the model's
                ``problem_type`` says, else softmax.
            outputs: Which of ``self.outputs`` to compute. Without ``logits`` there are no
                predictions.

        Returns:
            Predictions, the frames that were used, timings, and the outputs themselves.

        Raises:
            VideoNotFoundError: There is no such file.
            InvalidVideoError: It is no video that can be decoded, or no array of frames.
            InvalidOptionError: ``top_k`` or ``function_to_apply`` is not valid.
            MissingOutputError: The model does not have one of the outputs.
        """
        self.check(top_k, function_to_apply, outputs)
        reading = self.read(video)
        return reading.result(self.predict(reading.frames, top_k, function_to_apply, outputs))

    def read(self, video: Video, threads: int | None = None) -> Reading:
        """Reads what the model needs of a video; ``predict`` takes it from there.

        Args:
            video: A video.
            threads: Decoding threads, by default as many as for inference; use 1 when several
                videos are read at a time.

        Raises:
            VideoNotFoundError: There is no such file.
            InvalidVideoError: It is no video that can be decoded, or no array of frames.
        """
        if threads is None:
            threads = self.threads
        return read_video(video, self._input, threads=threads, limits=self._limits)

    def predict(
        self,
        frames: Sequence[Converted],
        top_k: int | None = 5,
        function_to_apply: str | None = None,
        outputs: Sequence[str] = ("logits",),
    ) -> Answer:
        """Runs the model on frames that were chosen and converted with ``self.input``.

        Args:
            frames: The converted frames of all clips, one clip after the other.
            top_k: As for ``classify``.
            function_to_apply: As for ``classify``.
            outputs: As for ``classify``.

        Raises:
            TimesformerError: As for ``classify``.
        """
        self.check(top_k, function_to_apply, outputs)
        return self._runner.answer(self._input.views(frames), top_k, function_to_apply, outputs)

    def rank(
        self,
        logits: npt.NDArray[np.float32],
        top_k: int | None = 5,
        function_to_apply: str | None = None,
    ) -> tuple[Prediction, ...]:
        """Turns logits, such as the average of several answers, into labels with scores.

        Args:
            logits: float32 [classes].
            top_k: As for ``classify``.
            function_to_apply: As for ``classify``.

        Raises:
            InvalidModelError: There are more classes than labels, or fewer.
        """
        return self._runner.rank(logits, top_k, function_to_apply)

    def fingerprint(self) -> str:
        """Tells the model from another that was put in its place, for which its file is read.

        Raises:
            OSError: The file is not there any more.
        """
        bundle = self._bundle
        # Weights in files beside the graph, as of models beyond 2 GB, do not count.
        if isinstance(bundle.graph, bytes):
            digest = hashlib.sha256(bundle.graph)
        else:
            with bundle.graph.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        digest.update(repr((bundle.labels, bundle.problem_type, bundle.preprocessing)).encode())
        return digest.hexdigest()[:16]

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
        plain = ModelInput(self._bundle, Views())
        chosen = uniform(len(frames), self.num_frames)
        (view,) = plain.views([plain.convert(frames[index]) for index in chosen])
        values = self._runner.run(view, [golden.output], finite=False)[golden.output]
        exact = self.dtype in _FLOAT32_VARIANTS
        return judge(values, golden.values, golden.output, exact=exact)
