"""Explains videos: writes for each a folder with pictures and an overlay, and one page for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Mapping
from os import PathLike, fsdecode, fspath
from pathlib import Path
from typing import Any

import numpy as np

from timesformer_runtime.classifier import VideoClassifier
from timesformer_runtime.errors import InvalidOptionError, TimesformerError, named
from timesformer_runtime.explain.explanation import Explanation, explanation_of
from timesformer_runtime.explain.folder import ResultFolder, write_facts
from timesformer_runtime.explain.moving_heat import MovingHeat
from timesformer_runtime.explain.overlay import OnFrame, write_overlay
from timesformer_runtime.explain.page import Section
from timesformer_runtime.explain.regions import Geometry
from timesformer_runtime.explain.sheets import BAR_TEXT, SHEET_TEXT, in_words, moments, sheet
from timesformer_runtime.model.loaded import ROLLOUT
from timesformer_runtime.pictures.drawing import time_bar
from timesformer_runtime.pictures.encoding import png
from timesformer_runtime.results import Ranking
from timesformer_runtime.video_files import FileIdentity


@dataclasses.dataclass(frozen=True)
class Explained:
    """A video that was explained, now or by an earlier call, or the error that prevented it.

    Attributes:
        video: The path as given.
        folder: The folder with its files; None where there is an error.
        explanation: The labels and the heat; None where there is an error, and where an earlier
            call explained the video.
        error: Why the video was not explained; None where it was.
    """

    video: str
    folder: Path | None = None
    explanation: Explanation | None = None
    error: Exception | None = None


def explain(
    classifier: VideoClassifier,
    videos: Iterable[str | PathLike[str]],
    output: str | PathLike[str],
    *,
    top_k: int = 5,
    force: bool = False,
    on_frame: OnFrame = lambda _seconds, _duration: None,
) -> Generator[Explained, None, None]:
    """Explains videos one after the other; writes a folder for each, and ``index.html`` for all.

    The folder of a video has ``overlay.mp4`` (the whole video under heat), ``sheet.png`` (the
    frames that the model saw, with their times), ``time.png`` (the share of each frame),
    ``rollout.npy`` (the shares, float32 [views, frames, rows, columns]) and ``explanation.json``. A
    folder appears when it is complete. The page shows all folders in ``output``, also those of
    earlier calls.

    Args:
        classifier: A classifier whose model has the output ``attention_rollout``.
        videos: Paths of videos.
        output: The folder to write into.
        top_k: How many labels.
        force: Replace the folders of earlier calls.
        on_frame: Called for each frame of an overlay with its time and the video's stated
            duration, in seconds.

    Returns:
        An iterator with an outcome for each video, in order. A video that fails does not stop the
        others. A video is not explained again where an earlier call did it with the same model and
        options, and its file is the same. The page is written at the end.

    Raises:
        MissingOutputError: The model does not have the output; the message has the command that
            exports it.
        InvalidOptionError: ``videos`` is one path, ``output`` is not a folder, another run writes
            into it, or ``top_k`` is not valid.
        OutputError: ``output`` cannot be written.
    """
    if isinstance(videos, str | bytes | PathLike):
        path = named(fsdecode(videos))
        raise InvalidOptionError(f"`videos` is {path}, one path; give a list of paths")
    ranking = Ranking(top_k)
    classifier.check_outputs([ROLLOUT])
    Geometry(classifier)  # its errors concern all videos
    run = {
        "fingerprint": classifier.fingerprint(),
        "views": classifier.views.to_dict(),
        "top_k": top_k,
    }
    results = ResultFolder(Path(output), force=force)
    return _explained(classifier, videos, results, ranking, run, on_frame)


def _explained(
    classifier: VideoClassifier,
    videos: Iterable[str | PathLike[str]],
    results: ResultFolder,
    ranking: Ranking,
    run: Mapping[str, Any],
    on_frame: OnFrame,
) -> Generator[Explained, None, None]:
    with results.locked():
        try:
            for video in (fspath(video) for video in videos):
                name = results.name_for(video)
                source = {**run, "file": FileIdentity.of(video)._asdict()}
                if results.has(name, source):
                    yield Explained(video, results.path / name)
                    continue
                try:
                    with results.new(name, video) as folder:
                        explanation = explanation_of(classifier, video, ranking)
                        _write(folder, classifier, video, explanation, source, on_frame)
                except (TimesformerError, OSError, MemoryError) as error:
                    yield Explained(video, error=error)
                else:
                    yield Explained(video, results.path / name, explanation)
        finally:
            results.write_page()


def _write(
    folder: Path,
    classifier: VideoClassifier,
    video: str,
    explanation: Explanation,
    source: Mapping[str, Any],
    on_frame: OnFrame,
) -> None:
    """Writes all files of a video into its folder."""
    result, views, scale = explanation.result, explanation.views, explanation.scale
    title, answer = Path(video).name, in_words(explanation.result.predictions[:1])
    headline = f"{title}:  {answer}" if answer else title
    heat = MovingHeat(views, scale, Geometry(classifier))
    end = write_overlay(
        classifier, video, heat, folder / "overlay.mp4", lambda _seconds: answer, on_frame
    )
    frames = sheet(headline, views, explanation.pictures, scale)
    (folder / "sheet.png").write_bytes(png(frames))
    bar = time_bar(headline, *moments(views), end, BAR_TEXT)
    (folder / "time.png").write_bytes(png(bar))
    np.save(folder / "rollout.npy", result.outputs[ROLLOUT])
    section = Section(
        title=title,
        answer=tuple((one["label"], one["score"]) for one in result.predictions),
        pictures=(("sheet.png", SHEET_TEXT), ("time.png", BAR_TEXT)),
        video="overlay.mp4",
        facts=_facts(classifier, explanation),
        problems=result.problems,
    )
    described = [view.to_dict() for view in views]
    write_facts(folder, classifier, video, [section], views=described, source=source)


def _facts(classifier: VideoClassifier, explanation: Explanation) -> tuple[str, ...]:
    view = explanation.views[0]
    rows, columns = view.grid
    times, shares = moments(explanation.views)
    peak = int(shares.argmax())
    seen = f"{len(explanation.views)} views of " if len(explanation.views) > 1 else ""
    return (
        f"{classifier.model.name}, {classifier.model.dtype or 'dtype as stored'}: {seen}"
        f"{len(view.shares)} frames, {rows} x {columns} patches each",
        f"The frame at {times[peak]:.2f} s has the most: {shares[peak]:.2f} of an even share",
    )
