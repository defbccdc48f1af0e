"""Runs a model on the views of a video, and joins what it answers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from timesformer_runtime.bundle import Bundle
from timesformer_runtime.errors import InvalidModelError, InvalidOptionError, MissingOutputError
from timesformer_runtime.json_object import parse_json_object
from timesformer_runtime.results import (
    FUNCTIONS,
    Answer,
    Prediction,
    apply_function,
    best,
    default_function,
)
from timesformer_runtime.session import as_float32
from timesformer_runtime.views import Views

Values = dict[str, npt.NDArray[np.float32]]

# Outputs [batch, n]. Others may hold frames or patches in their first axis, and stay as they are.
_ONE_ROW = ("logits", "features")


class Runner:
    """A model, and how its answers for several views become one.

    Args:
        bundle: The model.
        views: How many views there are of a video, and whether their logits are summed.
    """

    def __init__(self, bundle: Bundle, views: Views) -> None:
        self._bundle = bundle
        self._views = views

    def check(self, top_k: int | None, function: str | None, outputs: Sequence[str]) -> None:
        """Checks, before any work, what ``answer`` will be asked for.

        Raises:
            InvalidOptionError: ``top_k`` or ``function`` is not valid, or an output cannot be had
                of several views.
            MissingOutputError: The model does not compute one of the outputs.
        """
        if top_k is not None and (type(top_k) is not int or top_k < 1):
            raise InvalidOptionError(f"top_k is {top_k!r}; it must be an integer of at least 1")
        if function is not None and function not in FUNCTIONS:
            raise InvalidOptionError(
                f"function_to_apply is {function!r}; it must be one of {', '.join(FUNCTIONS)}"
            )
        for output in outputs:
            self._check_output(output)

    def answer(
        self,
        views: Iterable[npt.NDArray[Any]],
        top_k: int | None,
        function: str | None,
        outputs: Sequence[str],
    ) -> Answer:
        """Runs the model on each view.

        Args:
            views: Batches of one clip, as the graph takes them.
            top_k: How many labels; None gives all of them.
            function: What makes scores of logits; None leaves it to the model's problem type.
            outputs: Which outputs are wanted.

        Raises:
            InvalidModelError: The outputs are not finite, or not those of one clip.
        """
        answers: list[Values] = []
        preparing = running = 0.0
        start = time.perf_counter()
        for view in views:
            prepared = time.perf_counter()
            answers.append(self.run(view, outputs))
            preparing += prepared - start
            start = time.perf_counter()
            running += start - prepared
        values = {output: self._joined(output, answers) for output in outputs}
        predictions: tuple[Prediction, ...] = ()
        if "logits" in values:
            predictions = self.rank(values["logits"], top_k, function)
        return Answer(predictions, values, preparing, running)

    def rank(
        self, logits: npt.NDArray[np.float32], top_k: int | None, function: str | None
    ) -> tuple[Prediction, ...]:
        """Labels and scores of logits [classes], best first.

        Raises:
            InvalidModelError: There are more classes than labels, or fewer.
        """
        labels = self._bundle.labels or tuple(f"LABEL_{index}" for index in range(len(logits)))
        if len(labels) != len(logits):
            raise InvalidModelError(
                f"{self._bundle.name}: it has {len(logits)} classes, but config.json names "
                f"{len(labels)}: correct id2label"
            )
        if self._sums("logits"):  # in the same order, but as sure as one view is
            logits = logits / np.float32(self._views.count)
        function = function or default_function(self._bundle.problem_type)
        return best(apply_function(function, logits), labels, top_k)

    def run(self, view: npt.NDArray[Any], outputs: Sequence[str], *, finite: bool = True) -> Values:
        """The outputs for one clip; they must be finite, unless that is what is to be found out.

        Raises:
            InvalidModelError: They are not, or not those of one clip.
        """
        names = [self._bundle.outputs[output] for output in outputs]
        arrays = self._bundle.session.run(names, {self._bundle.input.name: view})
        values = {}
        for output, array in zip(outputs, arrays, strict=True):
            if output in _ONE_ROW and (array.ndim != 2 or len(array) != 1):
                # As of exports that forget to average the frames of space-only attention.
                raise InvalidModelError(
                    f"{self._bundle.name}: {output} are {list(array.shape)} for one clip; they "
                    "must be [1, n]: export the model with timesformer-export"
                )
            if finite and not np.isfinite(array).all():
                raise InvalidModelError(
                    f"{self._bundle.name}: {output} are not finite; use another dtype, such as fp32"
                )
            values[output] = as_float32(array[0] if output in _ONE_ROW else array)
        return values

    def length(self, output: str) -> int:
        """Last dimension of an output; 0 where the graph leaves it open."""
        name = self._bundle.outputs[output]
        shape = next(node.shape for node in self._bundle.session.outputs if node.name == name)
        return shape[-1] if isinstance(shape[-1], int) else 0

    def _check_output(self, output: str) -> None:
        if output not in self._bundle.outputs:
            raise MissingOutputError(
                f"{self._bundle.name}: it has no output {output!r} (it has "
                f"{', '.join(self._bundle.outputs)}); export one that has it: timesformer-export "
                f"{_export_option(output)} --model {self._source()}"
            )
        if self._views.count > 1 and output not in _ONE_ROW:
            raise InvalidOptionError(
                f"{output} of {self._views.count} views cannot be averaged; ask for one clip and "
                "one crop"
            )

    def _joined(self, output: str, answers: Sequence[Values]) -> npt.NDArray[np.float32]:
        if len(answers) == 1:
            return answers[0][output]
        values = np.stack([answer[output] for answer in answers]).astype(np.float64)
        joined = values.sum(axis=0) if self._sums(output) else values.mean(axis=0)
        return as_float32(joined)

    def _sums(self, output: str) -> bool:
        return output == "logits" and self._views.protocol == "facebook"

    def _source(self) -> str:
        """The checkpoint that the model came from, for a command to be copied."""
        source = self._bundle.metadata.get("source")
        if source is None:
            return "CHECKPOINT"
        try:
            return str(parse_json_object(source, "source")["model"])
        except (InvalidModelError, KeyError):
            return "CHECKPOINT"


def _export_option(output: str) -> str:
    if output.startswith("hidden_states"):
        return "--output-hidden-states"
    if "attentions" in output:
        return "--output-attentions"
    return f"--task {'video-classification' if output == 'logits' else 'feature-extraction'}"
