"""The measured process: it loads one variant, and runs it as the parent asks."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy.typing as npt

from timesformer_runtime.bench.clips import generated_frame
from timesformer_runtime.classifier import VideoClassifier
from timesformer_runtime.model.memory import peak_of_this_process

_CHUNK = 1 << 20
_RUN_SECONDS = 600.0  # far more than one clip takes on the slowest machine
_USUAL_SIZE = (224, 224)  # of frames, where the model does not tell


def serve(request: dict[str, Any]) -> Generator[dict[str, Any], dict[str, Any], None]:
    """Loads a variant, then times runs of it.

    Args:
        request: ``graph``, the path of the ``.onnx`` file; ``files``, the files to read before, so
            that the time of a slow disk does not count; ``settings``, those of the session by name,
            as for ``VideoClassifier.from_pretrained``.

    Yields:
        First ``load``, the seconds of loading; ``output``, the name of the output that is compared;
        ``wide_products``, as of the classifier; ``memory``, the peak of this process in bytes. Then
        for each request ``{"clip", "seconds", "runs"}``, the answer of ``_time``.
    """
    for file in request["files"]:
        with Path(file).open("rb") as opened:
            while opened.read(_CHUNK):
                pass
    start = time.perf_counter()
    classifier = VideoClassifier.from_pretrained(Path(request["graph"]), **request["settings"])
    load = time.perf_counter() - start
    names = ("logits", "features", *classifier.outputs)
    output = next(name for name in names if name in classifier.outputs)
    _run(classifier, _clip(classifier, 0), output)  # the first run takes longer
    answer: dict[str, Any] = {
        "load": load,
        "output": output,
        "wide_products": classifier.wide_products,
        "memory": peak_of_this_process(),
    }
    while True:
        question = yield answer
        answer = _time(classifier, output, **question)


def _time(
    classifier: VideoClassifier, output: str, clip: int, seconds: float, runs: int
) -> dict[str, Any]:
    """Times one clip at a time, then several at once.

    Args:
        classifier: The loaded variant.
        output: The name of the output to compute.
        clip: The number of the generated clip.
        seconds: How long to repeat a run that takes less.
        runs: How many clips to run at once; 1 leaves that part out.

    Returns:
        ``seconds``, of each run; ``memory``, the peak of this process so far; ``values``, the
        output; ``clips_a_second`` with several clips at once, or None.
    """
    view = _clip(classifier, clip)
    start = time.perf_counter()
    times: list[float] = []
    while not times or time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        values = _run(classifier, view, output)
        times.append(time.perf_counter() - begin)
    return {
        "seconds": times,
        "memory": peak_of_this_process(),
        "values": values.ravel().tolist(),
        "clips_a_second": _throughput(classifier, view, output, len(times), runs),
    }


def _throughput(
    classifier: VideoClassifier, view: npt.NDArray[Any], output: str, repeats: int, runs: int
) -> float | None:
    """Runs clips on all cores at once; returns the clips that were done in a second."""
    if runs == 1:
        return None
    with ThreadPoolExecutor(runs) as pool:
        start = time.perf_counter()
        list(pool.map(lambda view: _run(classifier, view, output), [view] * (repeats * runs)))
        return repeats * runs / (time.perf_counter() - start)


def _clip(classifier: VideoClassifier, number: int) -> npt.NDArray[Any]:
    """Generates a clip of the size that the model sees, preprocessed: a batch of one."""
    model = classifier.model
    size = _USUAL_SIZE
    if model.golden is not None:
        size = model.golden.shape[1:3]
    elif model.preprocessing is not None:
        size = model.preprocessing.output_size or size
    (view,) = classifier.input.views(
        [
            classifier.input.convert(generated_frame(number, frame, size))
            for frame in range(classifier.num_frames)
        ]
    )
    return view


def _run(classifier: VideoClassifier, view: npt.NDArray[Any], output: str) -> npt.NDArray[Any]:
    return classifier.run(view, [output], _RUN_SECONDS)[output]
