"""Explains the windows of a long video: a contact sheet for each, and an overlay of them all."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Generator, Iterator, Sequence
from os import PathLike, fspath
from pathlib import Path

from timesformer_runtime.explain.explanation import (
    HeatScale,
    pictures_of_views,
    rollouts_of,
    views_with_heat,
    wanted_outputs,
)
from timesformer_runtime.explain.folder import ResultFolder, write_facts
from timesformer_runtime.explain.moving_heat import MovingHeat
from timesformer_runtime.explain.overlay import OnFrame, encoder_name, write_overlay
from timesformer_runtime.explain.page import Section
from timesformer_runtime.explain.regions import Geometry
from timesformer_runtime.explain.sheets import BAR_TEXT, SHEET_TEXT, in_words, moments, sheet
from timesformer_runtime.explain.window_heat import WindowHeat
from timesformer_runtime.pictures.drawing import clock, time_bar
from timesformer_runtime.pictures.encoding import jpeg, png
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
    """The segments of a video, as ``Timeline`` gives them, and files that explain them.

    After the last segment the video is read once more, for the overlay. Then the folder of the
    video appears in ``output``, with a contact sheet for each window and what ``explain`` writes
    for a whole video: overlay, bar of time, and numbers; and the page.

    Args:
        pipeline: A classifier whose model has the outputs ``logits`` and ``attention_rollout``.
        video: The path of the video.
        settings: Length and stride of the windows.
        ranking: How logits become labels with scores.
        output: The folder to write into.
        force: Replace the video's folder of an earlier run.
        on_frame: Called for each frame of the overlay with its time and the video's stated
            duration, in seconds.

    Raises:
        MissingOutputError: The model does not have the outputs; the message has the command that
            exports them.
        MissingDependencyError: This PyAV cannot encode the overlay.
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
        *,
        force: bool = False,
        on_frame: OnFrame = lambda _seconds, _duration: None,
    ) -> None:
        encoder_name()  # without one, the work for all windows would be lost
        pipeline.check_outputs(["logits"])
        self._outputs = wanted_outputs(pipeline)
        self._pipeline = pipeline
        self._ranking = ranking
        self._geometry = Geometry(pipeline)
        self._video = fspath(video)
        self._reading = WindowReader(pipeline, self._video, settings)
        self._results = ResultFolder(output, force=force)
        self._on_frame = on_frame
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
        name = self._results.name_for(self._video)
        with self._results.locked():
            with self._results.new(name, self._video) as folder:
                yield from self._explained_into(folder)
            self._results.write_page()

    def _explained_into(self, folder: Path) -> Generator[Segment, None, None]:
        segments: list[Segment] = []
        sections: list[Section] = []
        with contextlib.closing(WindowHeat(folder)) as heat:
            with contextlib.closing(self._reading.windows()) as reading:
                for read in reading:
                    sheet_path = folder / f"{len(sections) + 1:06}.jpg"
                    segment, section = self._explain(read, sheet_path, heat)
                    segments.append(segment)
                    sections.append(section)
                    yield segment
            sections.insert(0, self._explain_whole(segments, heat, folder))
            views = [view.to_dict() for view in heat]
        write_facts(folder, self._pipeline, self._video, sections, views=views)

    def _explain(self, read: ReadWindow, path: Path, heat: WindowHeat) -> tuple[Segment, Section]:
        """Runs the model on a window, writes its contact sheet, and keeps its heat."""
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
        views = views_of(window.indices, window.times, pipeline.input)
        rollouts = rollouts_of(answer, views, pipeline)
        heat.add(rollouts, views)
        view_heat = views_with_heat(rollouts, views)
        pictures = pictures_of_views(window.values, view_heat, self._geometry)
        title = f"{self._title}, {clock(segment.start)} to {clock(segment.end)}"
        headline = f"{title}:  {in_words(segment.predictions[:1])}"
        path.write_bytes(
            jpeg(sheet(headline, view_heat, pictures, HeatScale.of(view_heat)), quality=_QUALITY)
        )
        section = Section(
            title=title,
            answer=tuple((one["label"], one["score"]) for one in segment.predictions),
            pictures=((path.name, SHEET_TEXT),),
            problems=segment.problems,
        )
        return segment, section

    def _explain_whole(
        self, segments: Sequence[Segment], heat: WindowHeat, folder: Path
    ) -> Section:
        """Writes the overlay, the bar of time and the numbers of all windows."""
        moving = MovingHeat(heat, HeatScale.of(heat), self._geometry)
        answers = _Answers(segments)
        path = folder / "overlay.mp4"
        end = write_overlay(self._pipeline, self._video, moving, path, answers.at, self._on_frame)
        bar = time_bar(self._title, *moments(heat), end, BAR_TEXT)
        (folder / "time.png").write_bytes(png(bar))
        heat.save(folder / "rollout.npy")
        return Section(
            title=self._title,
            answer=(),
            pictures=(("time.png", BAR_TEXT),),
            video=path.name,
            facts=(f"{len(segments)} windows, each with its own answer and heat",),
            problems=self.problems,
        )

    @property
    def _title(self) -> str:
        return Path(self._video).name


class _Answers:
    """The answers of windows in words; where windows overlap, that of the nearest middle counts."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._words = [in_words(segment.predictions[:1]) for segment in segments]
        middles = [(segment.start + segment.end) / 2 for segment in segments]
        self._bounds = [(one + other) / 2 for one, other in itertools.pairwise(middles)]

    def at(self, seconds: float) -> str:
        """The answer at a time of the video."""
        return self._words[bisect.bisect(self._bounds, seconds)]
