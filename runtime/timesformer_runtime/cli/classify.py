"""``timesformer classify``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.limit_options import limit_options
from timesformer_runtime.cli.model_options import load, model_options, top_k_option
from timesformer_runtime.cli.output import (
    BAD_INPUT,
    about,
    check_output,
    echo,
    failure_of,
    one_line,
    say,
)
from timesformer_runtime.cli.paths import PathType
from timesformer_runtime.cli.video_list import STDIN, source
from timesformer_runtime.cli.view_options import view_options
from timesformer_runtime.errors import TimesformerError
from timesformer_runtime.source_names import shown

if TYPE_CHECKING:
    from timesformer_runtime.classifier import VideoClassifier
    from timesformer_runtime.results import VideoResult


@click.command()
@click.argument("model")
@click.argument("videos", metavar="VIDEO...", nargs=-1, required=True)
@top_k_option(5, "video")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per video and line.")
@click.option(
    "--features",
    type=PathType(),
    metavar="FILE.npz",
    help="Also write NumPy arrays: `features` [videos, hidden], and `videos`, their names. For "
    "models exported with --task feature-extraction.",
)
@view_options
@limit_options()
@model_options
def classify(
    videos: tuple[str, ...],
    top_k: int,
    as_json: bool,
    features: Path | None,
    **options: Any,
) -> None:
    """Classify each VIDEO: print its labels with their scores, best first.

    MODEL is a folder that timesformer-export wrote, one .onnx file, or a Hub id. VIDEO "-" is
    standard input. A VIDEO that fails does not stop the others.
    """
    from timesformer_runtime.cli import features_file  # noqa: PLC0415
    from timesformer_runtime.cli.tables import PredictionTable  # noqa: PLC0415

    check_output()
    if videos.count(STDIN) > 1:
        raise click.UsageError('standard input can be read only once; give "-" once')
    if features is not None:
        features_file.check_path(features, videos, options["model"])
    classifier = load(**options)
    outputs = _wanted_outputs(classifier, features)
    table = None if as_json else PredictionTable([*map(shown, videos)], classifier)
    done: list[tuple[str, VideoResult]] = []
    for video in videos:
        result = _try_video(classifier, video, top_k, outputs, as_json=as_json)
        if result is None:
            continue
        if table is None:
            echo(json.dumps({"video": shown(video), **result.to_dict()}))
        else:
            table.add(shown(video), result)
        _say_damage(video, result)
        done.append((video, result))
    if features is not None and done:
        rows = [result.outputs["features"] for _, result in done]
        features_file.write(features, [shown(video) for video, _ in done], rows)
        say(f"{features}: {len(rows)} x {len(rows[0])} features")
    if len(done) < len(videos):
        sys.exit(BAD_INPUT)


def _wanted_outputs(classifier: VideoClassifier, features: Path | None) -> Sequence[str]:
    """Names the outputs to compute: logits, and also features if the user wants their file.

    Models without a classification head have features only.
    """
    if features is None:
        wanted: tuple[str, ...] = ("logits",)
    elif "logits" in classifier.outputs:
        wanted = ("logits", "features")
    else:
        wanted = ("features",)
    classifier.check_outputs(wanted)
    return wanted


def _try_video(
    classifier: VideoClassifier, video: str, top_k: int, outputs: Sequence[str], *, as_json: bool
) -> VideoResult | None:
    """Classifies one video; reports a failure and returns None, so that the others go on."""
    try:
        return classifier.classify(source(video), top_k, outputs=outputs)
    except (TimesformerError, OSError, MemoryError) as error:
        message = failure_of(video, error)
    if as_json:
        echo(json.dumps({"video": shown(video), "error": one_line(message)}))
    say(f"timesformer: {about(video, message)}")
    return None


def _say_damage(video: str, result: VideoResult) -> None:
    if result.damaged:
        frames = "frame" if result.count == 1 else "frames"
        say(
            f"timesformer: {video}: damaged: {'; '.join(result.problems)}; "
            f"labels are of the {result.count} {frames} that it has"
        )
