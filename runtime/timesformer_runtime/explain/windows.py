"""Explains the windows of a long video: for each the frames that the model saw, under heat."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from os import PathLike, fspath
from pathlib import Path

from timesformer_runtime.explain.explanation import (
    HeatScale,
    heat_of_views,
    pictures_of_views,
    wanted_outputs,
)
from timesformer_runtime.explain.folder import ResultFolder, write_facts
from timesformer_runtime.explain.page import Section
from timesformer_runtime.explain.regions import Geometry
from timesformer_runtime.explain.sheets import SHEET_TEXT, in_words, sheet
from timesformer_runtime.pictures.drawing import clock
from timesformer_runtime.pictures.encoding import jpeg
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.reading import views_of
from timesformer_runtime.results import Ranking
from timesformer_runtime.workloads.timeline import (
    ClassifiedWindow,
    ReadWindow,
    Segment,
    WindowReader,
    segment_of,
)
from timesformer_runtime.workloads.windows import WindowSettings

_QUALITY = 88  # of the sheets: a long video has thousands


class ExplainedTimeline(Iterator[Segment]):
    """The segments of a video, as ``Timeline`` gives them, and a contact sheet for each.

    The folder of the video in ``output``, and the page, appear after the last segment.

    Args:
        pipeline: A classifier whose model has the outputs ``logits`` and ``attention_rollout``.
        video: The path of the video.
        settings: Length and stride of the windows.
        ranking: How logits become labels with scores.
        output: The folder to write into.

    Raises:
        MissingOutputError: The model does not have the outputs; the message has the command that
            exports them.
        InvalidOptionError: ``output`` is not a folder.
        OutputError: ``output`` cannot be written.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        video: str | PathLike[str],
        settings: WindowSettings,
        ranking: Ranking,
        output: Path,
    ) -> None:
        pipeline.check_outputs(["logits"])
        self._outputs = wanted_outputs(pipeline)
        self._pipeline = pipeline
        self._ranking = ranking
        self._geometry = Geometry(pipeline)
        self._video = fspath(video)
        self._reading = WindowReader(pipeline, self._video, settings)
        self._results = ResultFolder(output, force=None)
        self._segments = self._explained()

    @property
    def duration(self) -> float | None:
        """The duration that the file states, in seconds; None before the first segment."""
        return self._reading.duration

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each problem of the file; complete after the last segment."""
        return self._reading.problems

    def __next__(self) -> Segment:
        return next(self._segments)

    def close(self) -> None:
        """Ends the reading; without the last segment nothing is written."""
        self._segments.close()

    def _explained(self) -> Generator[Segment, None, None]:
        sections: list[Section] = []
        with self._results.new(self._results.name_for(self._video)) as folder:
            with contextlib.closing(self._reading.windows()) as windows:
                for read in windows:
                    segment, section = self._explain(read, folder / f"{len(sections) + 1:06}.jpg")
                    sections.append(section)
                    yield segment
            write_facts(folder, self._pipeline, self._video, sections)
        self._results.write_page()

    def _explain(self, read: ReadWindow, path: Path) -> tuple[Segment, Section]:
        """Runs the model on a window, and writes its contact sheet."""
        pipeline, window = self._pipeline, read.window
        answer = pipeline.predict(window.values, self._ranking, self._outputs)
        classified = ClassifiedWindow(
            read.without_frames(),
            answer.outputs["logits"],
            answer.predictions[0]["label"],
            answer.preprocess,
            answer.inference,
        )
        segment = segment_of(pipeline, [classified], self._ranking)
        views = heat_of_views(
            answer, views_of(window.indices, window.times, pipeline.input), pipeline
        )
        pictures = pictures_of_views(window.values, views, self._geometry)
        title = f"{clock(segment.start)} to {clock(segment.end)}"
        headline = f"{Path(self._video).name}, {title}:  {in_words(segment.predictions[:1])}"
        path.write_bytes(
            jpeg(sheet(headline, views, pictures, HeatScale.of(views)), quality=_QUALITY)
        )
        section = Section(
            title=f"{Path(self._video).name}, {title}",
            answer=tuple((one["label"], one["score"]) for one in segment.predictions),
            pictures=((path.name, SHEET_TEXT),),
            problems=segment.problems,
        )
        return segment, section
