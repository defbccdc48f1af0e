"""Pipeline: the steps from one video to the model's answer; all workloads use it."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Collection, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import (
    InvalidModelError,
    InvalidOptionError,
    InvalidVideoError,
    MissingOutputError,
    explained_memory_errors,
    listed,
    named,
    quoted,
)
from timesformer_runtime.input.model_input import ModelInput
from timesformer_runtime.input.views import Views
from timesformer_runtime.isolation.in_this_process import InThisProcess
from timesformer_runtime.json_object import parse_json_object
from timesformer_runtime.model.loaded import LESS_MEMORY, MOST_CLASSES, ROLLOUT, LoadedModel
from timesformer_runtime.model.session import as_float32
from timesformer_runtime.reading import Reading, read_array
from timesformer_runtime.results import Answer, Prediction, Ranking
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.pixels import ConvertedFrame

if TYPE_CHECKING:
    from timesformer_runtime.isolation.readers import Readers

Video: TypeAlias = str | PathLike[str] | BinaryIO | npt.NDArray[np.uint8]
Outputs = dict[str, npt.NDArray[np.float32]]

# Outputs [batch, n]; for a batch of one clip the result is the only row. Other outputs stay as the
# graph gives them: their first axis may hold frames or patches.
_ONE_ROW = ("logits", "features")
_EXPORTED_DTYPES = ("fp16", "int8", "q4")  # by an option; fp32 needs none
_MOST_LISTED = 100  # outputs in a message: a model may give the hidden states of each layer


class Pipeline:
    """Reads the frames of a video, runs a loaded model on them, and ranks its labels.

    Several threads may call the methods at once. After ``close`` each of them raises
    ``ClosedError``.

    Args:
        model: The loaded model.
        views: The frames and crops of a video that the model sees.
        limits: Limits on the time, memory and size of one video.

    Attributes:
        model: The loaded model.
        input: Chooses and converts frames, for workloads that decode frames themselves.
        views: As given, with the rate of the sampling filled in.
        limits: As given.

    Raises:
        InvalidOptionError: The model cannot take such views.
    """

    def __init__(self, model: LoadedModel, views: Views, limits: DecodeLimits) -> None:
        self.model = model
        self.input = ModelInput(model.input, model.preprocessing, views, limits.max_bytes)
        self.views = dataclasses.replace(views, sampling=self.input.sampling)
        self.limits = limits
        self._readers = self.new_readers()

    def __enter__(self) -> Self:
        self.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model's memory, and ends the processes that read videos.

        Does not wait: a run of the model that is going on in another thread ends with its result,
        and then frees the memory. Closing again does nothing.
        """
        self.model.session.close()
        self._readers.close()

    def check_open(self) -> None:
        """Makes sure that this object is not closed.

        Raises:
            ClosedError: This object is closed.
        """
        self.model.session.check_open()

    def new_readers(self) -> Readers | InThisProcess:
        """Makes reader processes that the caller closes, unless ``limits.isolated`` is not set."""
        if not self.limits.isolated:
            return InThisProcess()
        from timesformer_runtime.isolation.readers import Readers  # noqa: PLC0415

        return Readers(self.limits, "timesformer_runtime.file_reading")

    def check_outputs(self, outputs: Sequence[str]) -> None:
        """Makes sure, before any work, that the model is there and has these outputs.

        Raises:
            ClosedError: This object is closed.
            MissingOutputError: The model does not have an output; the message has the command that
                exports it.
            InvalidOptionError: The outputs are not a list of names; or there are several views, and
                an output cannot be averaged over them.
        """
        self.check_open()
        _check_names(outputs)
        for output in outputs:
            if output not in self.model.outputs:
                raise MissingOutputError(self._without_output(output))
            if self.views.count > 1 and output not in (*_ONE_ROW, ROLLOUT):
                raise InvalidOptionError(
                    f"{output} of {self.views.count} views cannot be averaged; ask for one clip "
                    "and one crop"
                )

    def shares_frames(self, other: Pipeline) -> bool:
        """True if the frames that ``other`` reads of a video are those that this object reads."""
        mine, theirs = self.model, other.model
        return (
            mine.input.num_frames == theirs.input.num_frames
            and mine.input.takes_frames == theirs.input.takes_frames
            and mine.preprocessing == theirs.preprocessing
            and self.views == other.views
        )

    def read(
        self,
        video: Video,
        threads: int | None = None,
        readers: Readers | InThisProcess | None = None,
    ) -> Reading:
        """Reads and converts the frames that the model needs of a video, for ``predict``.

        Args:
            video: A path, a binary file object, or frames uint8 RGB [T, H, W, 3].
            threads: Decoding threads, by default as many as for inference; use 1 when several
                videos are read at a time.
            readers: The processes that read, where ``limits.isolated`` is set; by default those of
                this object.

        Raises:
            ClosedError: This object is closed.
            VideoNotFoundError: There is no such file.
            InvalidVideoError: The video cannot be decoded, or the array does not hold frames.
            MissingDependencyError: The video is a file, and PyAV is not installed.
        """
        self.check_open()
        if isinstance(video, np.ndarray):
            return read_array(video, self.input)
        if isinstance(video, list | tuple) or hasattr(video, "__array__"):
            raise InvalidVideoError(
                f"a video cannot be a {type(video).__name__}; give its frames as one array, uint8 "
                "RGB [T, height, width, 3], such as numpy.stack(frames), a path, or a binary file "
                "object"
            )
        # The import is here because it needs PyAV, and arrays do not.
        from timesformer_runtime.file_reading import read_file  # noqa: PLC0415

        threads = self.model.session.threads if threads is None else threads
        limits, readers = self.limits.in_reader_process(), readers or self._readers
        job = functools.partial(read_file, model_input=self.input, threads=threads, limits=limits)
        reading: Reading
        if not self.limits.isolated:
            reading = readers.single_answer(job, video, threads=threads)
            return reading
        start = time.perf_counter()
        try:
            reading = readers.single_answer(job, video, threads=threads)
        except InvalidVideoError:
            self.check_open()  # closing ends the processes, too
            raise
        decode = time.perf_counter() - start - reading.preprocess
        return dataclasses.replace(reading, decode=decode)

    def predict(
        self,
        frames: Sequence[ConvertedFrame],
        ranking: Ranking | None = None,
        outputs: Sequence[str] = ("logits",),
        *,
        spent: float = 0.0,
    ) -> Answer:
        """Runs the model on frames that were chosen and converted with ``self.input``.

        Args:
            frames: The converted frames of all clips, one clip after the other.
            ranking: How logits become labels with scores.
            outputs: Which of the model's outputs to compute, as ``check_outputs`` allows.
            spent: Seconds that reading the frames took; they count against
                ``limits.max_seconds``.

        Raises:
            InvalidModelError: The outputs are not finite, or do not have the shape for one clip.
            InferenceTimeoutError: The model takes longer than the limits allow.
        """
        answers: list[Outputs] = []
        preparing = running = 0.0
        seconds_left = self.limits.run_timer(spent)
        start = time.perf_counter()
        for view in self.input.views(frames):
            prepared = time.perf_counter()
            answers.append(self.run(view, outputs, seconds_left()))
            preparing += prepared - start
            start = time.perf_counter()
            running += start - prepared
        values = {output: self._combine_views(output, answers) for output in outputs}
        predictions: tuple[Prediction, ...] = ()
        if "logits" in values:
            predictions = self.rank(values["logits"], ranking or Ranking())
        return Answer(predictions, values, preparing, running)

    def rank(self, logits: npt.NDArray[np.float32], ranking: Ranking) -> tuple[Prediction, ...]:
        """Turns logits, such as the average of several answers, into labels with scores.

        Args:
            logits: float32 [classes].
            ranking: The number of labels, and the function that makes scores of logits.

        Raises:
            InvalidModelError: The numbers of classes and of labels differ.
        """
        labels = self.model.labels or tuple(f"LABEL_{index}" for index in range(len(logits)))
        if len(labels) != len(logits):
            raise InvalidModelError(
                f"{self.model.name}: it has {len(logits)} classes, but config.json names "
                f"{len(labels)}: correct id2label"
            )
        logits = self.mean_logits(logits)
        return ranking.predictions(logits, labels, self.model.problem_type)

    def mean_logits(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Gives the logits of a typical view: a sum of n views would make softmax n times as sure.

        Args:
            logits: float32 [classes], as ``predict`` gives them.
        """
        if self._is_summed("logits"):
            logits = logits / np.float32(self.views.count)
        return logits

    def run(
        self,
        view: npt.NDArray[Any],
        outputs: Sequence[str],
        seconds: float,
        *,
        finite: bool = True,
    ) -> Outputs:
        """Runs the model on one view, and checks the outputs.

        Args:
            view: A batch of one clip, as the graph takes it.
            outputs: Names of outputs.
            seconds: How long the run may take.
            finite: True to check that the values are finite.

        Raises:
            ClosedError: This object is closed.
            InvalidModelError: The values are not finite, or do not have the shape for one clip.
            InferenceTimeoutError: The model takes longer than ``seconds``.
            NotEnoughMemoryError: The outputs do not fit into memory.
        """
        with explained_memory_errors(f"a run of {self.model.name}; {LESS_MEMORY}"):
            return self._checked_run(view, outputs, seconds, finite=finite)

    def _checked_run(
        self, view: npt.NDArray[Any], outputs: Sequence[str], seconds: float, *, finite: bool
    ) -> Outputs:
        names = [self.model.outputs[output] for output in outputs]
        arrays = self.model.session.run(names, {self.model.input.name: view}, seconds)
        values = {}
        for output, array in zip(outputs, arrays, strict=True):
            if output in _ONE_ROW and (array.ndim != 2 or len(array) != 1 or not array.size):
                # Some exports forget to average the frames of space-only attention.
                raise InvalidModelError(
                    f"{self.model.name}: {output} are {list(array.shape)} for one clip; they "
                    "must be [1, n]: export the model with timesformer-export"
                )
            if output in _ONE_ROW and array.size > MOST_CLASSES:
                raise InvalidModelError(
                    f"{self.model.name}: its {output} have {array.size} values; it must be 1 to "
                    f"{MOST_CLASSES}"
                )
            found = as_float32(array[0] if output in _ONE_ROW else array)
            if finite:
                self._check_finite(output, found)
            values[output] = found
        return values

    def _check_finite(self, output: str, values: npt.NDArray[np.float32]) -> None:
        if not np.isfinite(values).all():
            raise InvalidModelError(
                f"{self.model.name}: {named(output)} are not finite; use another `dtype`, such as "
                "fp32"
            )

    def _combine_views(self, output: str, answers: Sequence[Outputs]) -> npt.NDArray[np.float32]:
        if output == ROLLOUT:  # a map of what one view shows says nothing about another view
            return np.concatenate([answer[output] for answer in answers])
        if len(answers) == 1:
            return answers[0][output]
        values = np.stack([answer[output] for answer in answers]).astype(np.float64)
        joined = as_float32(values.sum(axis=0) if self._is_summed(output) else values.mean(axis=0))
        self._check_finite(output, joined)
        return joined

    def _is_summed(self, output: str) -> bool:
        return output == "logits" and self.views.protocol == "facebook"

    def _without_output(self, output: str) -> str:
        return (
            f"{self.model.name}: it has no output {output!r} (it has "
            f"{listed(self.model.outputs, _MOST_LISTED)}); export one that has it: "
            f"timesformer-export {_export_option(output)}{self._export_dtype()} "
            f"--model {self._checkpoint()}"
        )

    def _export_dtype(self) -> str:
        """The option that exports the variant that is loaded."""
        dtype = self.model.metadata.get("dtype")
        return f" --dtype {dtype}" if dtype in _EXPORTED_DTYPES else ""

    def _checkpoint(self) -> str:
        """The checkpoint that the model was exported from, for a command that users copy.

        Of a local one the file has only the name.
        """
        try:
            source = parse_json_object(self.model.metadata["source"], "source")
            name = named(str(source["model"]))
        except (InvalidModelError, KeyError):
            return "CHECKPOINT"
        is_hub_id = "/" in name or source.get("revision")
        return name if is_hub_id else f"FOLDER/{name}"


def _check_names(outputs: object) -> None:
    names = outputs if isinstance(outputs, Collection) and not isinstance(outputs, str) else ()
    if not len(names) or not all(isinstance(name, str) for name in names):
        raise InvalidOptionError(
            f"`outputs` is {quoted(outputs)}; it must be a list of at least one name, such as "
            "['logits']"
        )


def _export_option(output: str) -> str:
    if output == ROLLOUT:
        return "--explain"
    if output.startswith("hidden_states"):
        return "--output-hidden-states"
    if "attentions" in output:
        return "--output-attentions"
    return f"--task {'video-classification' if output == 'logits' else 'feature-extraction'}"
