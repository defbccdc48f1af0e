"""Writes the page: one file, which opens without network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from timesformer_runtime.errors import TimesformerError, harmless
from timesformer_runtime.evaluate.metrics.columns import Line, answer_of
from timesformer_runtime.evaluate.report import words
from timesformer_runtime.evaluate.report.frames import FramesOf
from timesformer_runtime.evaluate.report.mistakes import Mistake, Videos, read_videos
from timesformer_runtime.extras import evaluate_extra
from timesformer_runtime.pictures import data_url, jpeg
from timesformer_runtime.whole_file import whole_file

with evaluate_extra():
    import jinja2
    from markupsafe import Markup

_FOLDER = Path(__file__).parent
_MOST_CELLS = 24  # labels of a confusion matrix that is a table of numbers
_MOST_MAPPED = 2000  # labels of a confusion matrix that is a picture
_MOST_FRAMES = 16  # of a video
_FRAME_HEIGHT = 128  # pixels


def write_report(
    path: str | os.PathLike[str],
    metrics: Mapping[str, Any],
    lines: Iterable[Line],
    frames: FramesOf | None = None,
) -> None:
    """Writes the report of an evaluation, one HTML file that needs no other.

    The file is complete, or is not there.

    Args:
        path: The file.
        metrics: The contents of ``metrics.json``: ``labels``, ``function`` and ``evaluated`` (for
            each model what ``measure`` gives, and optionally ``seconds_per_video`` and
            ``memory_bytes``); optionally ``sentence``, ``run`` (names and values, shown under the
            title), ``comparisons`` (what ``compare`` gives) and ``advice`` (sentences).
        lines: The lines of ``results.jsonl``.
        frames: Reads the frames that the model saw of a video, as ``frames_seen`` makes it; it is
            called for the worst mistakes only.

    Raises:
        OutputError: The file cannot be written.
        MissingDependencyError: The extra ``evaluate`` is not installed.
    """
    page = _page(metrics, lines, frames)
    with whole_file(Path(path)) as file:
        file.write(page.encode())


def _page(metrics: Mapping[str, Any], lines: Iterable[Line], frames: FramesOf | None) -> str:
    labels, evaluated = metrics["labels"], metrics["evaluated"]
    videos = read_videos(lines, list(evaluated), labels)
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("page.html")
        .render(
            metrics=metrics,
            labels=labels,
            evaluated=evaluated,
            first=next(iter(evaluated.values()), None),
            is_multilabel=metrics["function"] == "sigmoid",
            is_share=metrics["function"] != "none",
            matrices={name: _matrix(measures, labels) for name, measures in evaluated.items()},
            has_tables=len(labels) <= _MOST_CELLS,
            has_maps=len(labels) <= _MOST_MAPPED,
            videos=videos,
            worst=[_shown(line, list(evaluated), frames) for line in videos.worst],
            data=_data(metrics, videos),
            style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our file
            script=Markup(script),  # noqa: S704 - our file
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            words=words,
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Names of files may hold control characters, and halves of characters, which UTF-8 refuses.
        finalize=lambda value: harmless(value) if type(value) is str else value,
    )
    filters = {name: getattr(words, name) for name in ("percent", "interval", "number", "count")}
    environment.filters.update(filters, seconds=words.seconds, megabytes=words.megabytes)
    return environment


def _matrix(measures: Mapping[str, Any], labels: Sequence[str]) -> list[list[int]] | None:
    """Makes the confusion matrix of few labels, for a table."""
    if len(labels) > _MOST_CELLS or "confusion" not in measures:
        return None
    rows = [[0] * len(labels) for _ in labels]
    for true, best, count in measures["confusion"]:
        rows[true][best] = count
    return rows


def _order(measures: Mapping[str, Any], labels: int) -> list[int]:
    """Orders the classes of a picture so that those that are confused stand side by side."""
    if not _MOST_CELLS < labels <= _MOST_MAPPED or "confusion" not in measures:
        return []
    from scipy.cluster import hierarchy  # noqa: PLC0415
    from scipy.spatial.distance import squareform  # noqa: PLC0415

    shares = np.zeros((labels, labels))
    for true, best, count in measures["confusion"]:
        shares[true, best] = count / measures["classes"][true]["count"]
    distances = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distances, 0)
    order: list[int] = hierarchy.leaves_list(
        hierarchy.linkage(squareform(distances, checks=False), "average")
    ).tolist()
    return order


def _shown(line: Line, names: Sequence[str], frames: FramesOf | None) -> dict[str, Any]:
    """Describes a mistake with the frames that the model saw."""
    answers = {name: answer_of(line, name) for name in names}
    pictures: list[dict[str, Any]] = []
    problem = None
    if frames is not None:
        try:
            pictures = _pictures(frames(line), line)
        except (TimesformerError, OSError) as error:
            problem = str(error)
    return {
        "file": str(line["file"]),
        "path": str(line.get("path", line["file"])),
        "true": line["true_labels"],
        "answers": {name: answer for name, answer in answers.items() if answer is not None},
        "pictures": pictures,
        "problem": problem,
    }


def _pictures(frames: Sequence[Any], line: Line) -> list[dict[str, Any]]:
    """Encodes the frames of a video, or evenly chosen ones of many."""
    times = line.get("times") or [None] * len(frames)
    step = -(-len(frames) // _MOST_FRAMES)
    return [
        {
            "url": data_url(jpeg(frame, height=_FRAME_HEIGHT, quality=75), "jpeg"),
            "height": frame.shape[0],
            "width": frame.shape[1],
            "time": time,
        }
        for frame, time in list(zip(frames, times, strict=False))[::step]
    ]


def _data(metrics: Mapping[str, Any], videos: Videos) -> str:
    """Makes the JSON that the page's script reads: matrices and mistakes in columns."""
    found = {m.number: m.file for mistakes in videos.mistakes.values() for m in mistakes}
    # In this order, so that the page sorts files by comparing places.
    files = dict(sorted(found.items(), key=lambda item: _natural(item[1])))
    places = {number: place for place, number in enumerate(files)}
    data = {
        "labels": [harmless(label) for label in metrics["labels"]],
        "files": [harmless(file) for file in files.values()],
        "models": [
            {
                "confusion": [value for entry in measures.get("confusion", []) for value in entry],
                "counts": [row["count"] for row in measures["classes"]],
                "order": _order(measures, len(metrics["labels"])),
                "mistakes": _columns(videos.mistakes[name], places),
                "mistakesCount": videos.mistakes_count[name],
            }
            for name, measures in metrics["evaluated"].items()
        ],
        "isShare": metrics["function"] != "none",
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    # "</script>" and "<!--" would end or change the element that holds the text.
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def _natural(name: str) -> str:
    """Makes a key by which names sort as people expect: 2.mp4 before 10.mp4."""
    return re.sub(r"[0-9]+", lambda digits: digits[0].zfill(20), name.casefold())


def _columns(mistakes: Sequence[Mistake], places: Mapping[int, int]) -> dict[str, list[Any]]:
    """Turns mistakes into columns; files are places in a list that all models share."""
    return {
        "file": [places[mistake.number] for mistake in mistakes],
        "true": [mistake.true for mistake in mistakes],
        "best": [mistake.best for mistake in mistakes],
        "score": [None if m.best is None else round(m.score, 4) for m in mistakes],
        "trueScore": [None if m.true_score is None else round(m.true_score, 4) for m in mistakes],
        "rank": [mistake.rank for mistake in mistakes],
    }
