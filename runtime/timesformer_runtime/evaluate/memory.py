"""Measures the memory that a model takes, in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from timesformer_runtime.child_process import ChildProcess
from timesformer_runtime.errors import TimesformerError
from timesformer_runtime.model.graph_file import FileVersion
from timesformer_runtime.model.memory import machine_memory, peak_of_this_process
from timesformer_runtime.pipeline import Pipeline

_CHILD = "timesformer_runtime.evaluate.memory:serve"
_SECONDS = 600.0  # to load a model and to run it once
_MEMORY_OF_PYTHON = 200_000_000  # bytes, with its libraries
_USUAL_SIZE = (224, 224)  # of frames, where the model does not tell


def memory_of(pipeline: Pipeline) -> int | None:
    """Measures the most memory of a process that loads a model and runs it on one clip, in bytes.

    None where that is not known: for models that are not files, for execution providers that the
    user named, and where the machine does not have the memory for another process with the model.
    """
    model = pipeline.model
    device = model.session.device
    if isinstance(model.graph, bytes) or device.name.partition(":")[0] not in ("cpu", "cuda"):
        return None
    usable = machine_memory().usable
    if usable is not None and usable < _likely_memory(model.session.files):
        return None
    request = {
        "graph": os.fsdecode(model.graph),
        "device": device.name,
        "threads": model.session.threads,
    }
    try:
        with ChildProcess(_CHILD) as child:
            answer = child.ask(request, _SECONDS)
    except TimesformerError:
        return None  # as where the memory does not suffice for the model twice
    return None if answer is None else int(answer)


def _likely_memory(files: Iterable[FileVersion]) -> int:
    """Guesses the bytes that a process takes for a model: twice the files, and Python's own."""
    return 2 * sum(file.size for file in files) + _MEMORY_OF_PYTHON


def serve(request: dict[str, Any]) -> Generator[int | None, dict[str, Any], None]:
    """Loads a model, runs it, and yields the peak of this process.

    Args:
        request: ``graph``, the path of the ``.onnx`` file; ``device`` and ``threads`` as for
            ``VideoClassifier.from_pretrained``.
    """
    from timesformer_runtime.classifier import VideoClassifier  # noqa: PLC0415

    with VideoClassifier.from_pretrained(
        Path(request["graph"]), device=request["device"], threads=request["threads"]
    ) as classifier:
        warm_up(classifier)
    yield peak_of_this_process()


def warm_up(pipeline: Pipeline) -> None:
    """Runs a model once on grey frames: a first run takes longer than others."""
    preprocessing = pipeline.model.preprocessing
    size = (preprocessing.output_size if preprocessing else None) or _USUAL_SIZE
    frame = pipeline.input.convert(np.full((*size, 3), 128, dtype=np.uint8))
    pipeline.predict([frame] * pipeline.input.num_frames)
