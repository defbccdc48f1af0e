"""``timesformer timeline --picture``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from timesformer_runtime.cli.output import say
from timesformer_runtime.cli.video_list import STDIN
from timesformer_runtime.errors import TimesformerError
from timesformer_runtime.results import PartResult
from timesformer_runtime.whole_file import whole_file

if TYPE_CHECKING:
    from timesformer_runtime.pipeline import Pipeline
    from timesformer_runtime.timeline_picture import Bands


class Picture:
    """Collects the results of a timeline, and draws them into a file.

    Args:
        file: A new file; its ending chooses the kind of picture.
        pipeline: The model.
        video: The path of the video.

    Raises:
        click.UsageError: The video is standard input, which can be read only once.
        MissingDependencyError: The libraries that draw are not installed.
    """

    def __init__(self, file: Path, pipeline: Pipeline, video: str) -> None:
        if video == STDIN:
            raise click.UsageError(
                "--picture reads the video a second time, and standard input can be read only "
                "once: give the path of a file"
            )
        from timesformer_runtime import timeline_picture  # noqa: PLC0415

        self._module = timeline_picture
        self._file = file
        self._pipeline = pipeline
        self._video = video
        self._stretches: list[timeline_picture.Stretch] = []
        self.top_k = timeline_picture.MOST_LABELS

    def add(self, part: PartResult) -> None:
        """Adds the next result."""
        scores = tuple((found["label"], found["score"]) for found in part.predictions)
        self._stretches.append(self._module.Stretch(part.start, part.end, scores))

    def write(self) -> None:
        """Draws the results and writes the file.

        Raises:
            OutputError: The file cannot be written.
        """
        picture = self._module
        bands = picture.bands_of(self._stretches, picture.COLUMNS)
        drawing = picture.draw(bands, Path(self._video).name, self._subtitle(), self._frames(bands))
        ending = self._file.suffix.lower()
        if ending == ".png":
            content = picture.png(drawing)
        elif ending == ".svg":
            content = picture.svg(drawing).encode()
        else:
            content = picture.html(drawing, bands).encode()
        with whole_file(self._file) as file:
            file.write(content)

    def _subtitle(self) -> str:
        count = len(self._stretches)
        model = Path(self._pipeline.model.name).name
        return f"{count:,} {'segment' if count == 1 else 'segments'} by {model}"

    def _frames(self, bands: Bands) -> list[bytes]:
        """Reads frames of the video; where that fails, the picture has none."""
        try:
            return self._module.thumbnails(self._pipeline, self._video, bands)
        except TimesformerError as error:
            say(f"timesformer: the picture has no frames: {error}")
            return []
