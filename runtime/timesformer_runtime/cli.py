"""The command ``timesformer``."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from timesformer_runtime.errors import InvalidVideoError, TimesformerError
from timesformer_runtime.settings import DEVICES
from timesformer_runtime.terminal import printable

# Everything else is imported by the command that needs it, so that --help is immediate.
if TYPE_CHECKING:
    from timesformer_runtime.classifier import VideoClassifier
    from timesformer_runtime.results import VideoResult

CHECK_FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141

_STDIN = "-"


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # before click, which would call it a failed check
            _discard_output()
            sys.exit(BROKEN_PIPE)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="timesformer-onnx", message="%(package)s %(version)s")
def command() -> None:
    """Run exported TimeSformers on videos, without PyTorch.

    Exit codes: 0 all done; 1 a check failed; 2 bad input, including any failed video.
    """


def _model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command with a model has."""
    for decorate in (
        click.option("--local-files-only", is_flag=True, help="Never use the network."),
        click.option("--revision", help="Branch, tag or commit on the Hub."),
        click.option(
            "--dtype",
            metavar="NAME",
            help="Which file of the model: fp32, fp16, int8, q4, ...  "
            "[default: the fastest for the device]",
        ),
        click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            metavar="N",
            help="CPU threads.  [default: as many as are granted]",
        ),
    ):
        function = decorate(function)
    return function


@command.command()
@click.argument("model")
@click.argument("videos", metavar="VIDEO...", nargs=-1, required=True)
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="Labels per video.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per video and line.")
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Also write the clips' features: arrays `features` [videos, hidden] and `videos`.",
)
@_model_options
def classify(
    videos: tuple[str, ...],
    top_k: int,
    as_json: bool,
    features: Path | None,
    **model_options: Any,
) -> None:
    """Name what each VIDEO shows ("-" reads one from standard input).

    MODEL is a folder that timesformer-export wrote, one .onnx file, or a Hub id.
    """
    from timesformer_runtime import features_file  # noqa: PLC0415
    from timesformer_runtime.tables import PredictionTable  # noqa: PLC0415

    if videos.count(_STDIN) > 1:
        raise click.UsageError('standard input can be read only once; give "-" once')
    if features is not None:
        features_file.check_path(features)
    classifier = _load(**model_options)
    outputs = _wanted_outputs(classifier, features)
    table = None if as_json else PredictionTable(videos, classifier)
    done: list[tuple[str, VideoResult]] = []
    for video in videos:
        result = _try_video(classifier, video, top_k, outputs, as_json=as_json)
        if result is None:
            continue
        if table is None:
            click.echo(json.dumps({"video": video, **result.to_dict()}))
        else:
            table.add(video, result)
        _tell_failed_packets(video, result)
        done.append((video, result))
    if features is not None and done:
        rows = [result.outputs["features"] for _, result in done]
        features_file.write(features, [video for video, _ in done], rows)
        _say(f"{features}: {len(rows)} x {len(rows[0])} features")
    if len(done) < len(videos):
        sys.exit(BAD_INPUT)


@command.command()
@click.argument("model")
@_model_options
def verify(**model_options: Any) -> None:
    """Check that MODEL gives PyTorch's answer on this machine.

    Generated frames, whose answer by PyTorch is in the .onnx file, are run through it.
    """
    check = _load(**model_options).verify()
    click.echo(
        f"{check.output}: max-abs {check.max_abs:.3g}, relative {check.relative:.3g}, "
        f"cosine {check.cosine:.8f}, top-1 {'agrees' if check.top1_agrees else 'differs'}"
    )
    click.echo(f"{'passed' if check.passed else 'FAILED'}: {check.limit}")
    if not check.passed:
        sys.exit(CHECK_FAILED)


@command.command()
def doctor() -> None:
    """Show what this machine offers: versions, providers, instruction sets, threads."""
    from timesformer_runtime.doctor import diagnose  # noqa: PLC0415

    diagnosis = diagnose()
    width = max(len(name) for name in diagnosis.facts)
    for name, fact in diagnosis.facts.items():
        click.echo(f"{name:{width}}  {fact}")
    for problem in diagnosis.problems:
        click.echo(f"problem: {problem}")
    if diagnosis.problems:
        sys.exit(CHECK_FAILED)


def main() -> None:
    """Runs the command; every expected failure is one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    # What the library logs, the commands say themselves.
    logging.getLogger("timesformer_runtime").addHandler(logging.NullHandler())
    try:
        sys.exit(command.main(prog_name="timesformer", standalone_mode=False))
    except click.exceptions.Abort:
        _fail("interrupted", INTERRUPTED)
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        _fail(error.format_message() + hint, BAD_INPUT)
    except click.ClickException as error:
        _fail(error.format_message(), BAD_INPUT)
    except TimesformerError as error:
        _fail(str(error), BAD_INPUT)
    except OSError as error:  # of the output: those of the input are TimesformerErrors
        _discard_output()
        where = f"{error.filename}: " if error.filename else "writing the output: "
        _fail(f"{where}{error.strerror or error}", BAD_INPUT)


def _load(
    model: str,
    device: str,
    dtype: str | None,
    threads: int | None,
    revision: str | None,
    local_files_only: bool,
) -> VideoClassifier:
    """Loads the model and says on stderr what was chosen."""
    from timesformer_runtime.classifier import VideoClassifier  # noqa: PLC0415

    classifier = VideoClassifier.from_pretrained(
        model,
        device=device,
        dtype=dtype,
        threads=threads,
        revision=revision,
        local_files_only=local_files_only,
    )
    reason = f" (auto: {classifier.device_reason})" if classifier.device_reason else ""
    threads_used = f"{classifier.threads} thread{'s' if classifier.threads > 1 else ''}"
    _say(
        f"{classifier.name}: {classifier.dtype or 'dtype as stored'}, "
        f"device {classifier.device}{reason}, {threads_used}"
    )
    return classifier


def _wanted_outputs(classifier: VideoClassifier, features: Path | None) -> Sequence[str]:
    """Logits, and features where a file is wanted; models without a head only give features."""
    if features is None:
        wanted: tuple[str, ...] = ("logits",)
    elif "logits" in classifier.outputs:
        wanted = ("logits", "features")
    else:
        wanted = ("features",)
    classifier.require_outputs(wanted)
    return wanted


def _try_video(
    classifier: VideoClassifier, video: str, top_k: int, outputs: Sequence[str], *, as_json: bool
) -> VideoResult | None:
    """Runs one video; a failure is reported, and does not stop the others."""
    try:
        source = _standard_input() if video == _STDIN else video
        return classifier.classify(source, top_k, outputs=outputs)
    except (TimesformerError, OSError) as error:
        message = str(error)
    except MemoryError as error:
        message = str(error) or "there is not enough memory for it"
    if as_json:
        click.echo(json.dumps({"video": video, "error": _one_line(message)}))
    _say(f"timesformer: {_about(video, message)}")
    return None


def _standard_input() -> BinaryIO:
    if sys.stdin is None:  # as after "<&-"
        raise InvalidVideoError("standard input is closed; pipe a video into it, or give a path")
    return sys.stdin.buffer


def _about(video: str, message: str) -> str:
    """The message with the name of its video in front, once, and otherwise on one line."""
    names = ("<stdin>", "standard input") if video == _STDIN else (video, repr(video))
    for name in names:
        if name and message.startswith((f"{name} ", f"{name}:")):
            return name + _one_line(message.removeprefix(name))
    return f"{video}: {_one_line(message)}" if video else _one_line(message)


def _tell_failed_packets(video: str, result: VideoResult) -> None:
    if result.failed_packets:
        packets = "packet" if result.failed_packets == 1 else "packets"
        _say(
            f"timesformer: {video}: {result.failed_packets} {packets} did not decode; "
            f"labels are of the {result.count} frames that did"
        )


def _one_line(message: str) -> str:
    return re.sub(r"\s+", " ", message).rstrip()


def _say(line: str) -> None:
    click.echo(printable(line), err=True)


def _fail(message: str, code: int) -> None:
    _say(f"timesformer: {_one_line(message)}")
    sys.exit(code)


def _discard_output() -> None:
    """Lets the interpreter's last flush succeed, so that it does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
