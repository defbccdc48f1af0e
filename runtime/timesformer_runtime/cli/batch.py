"""``timesformer batch``."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Collection, Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from timesformer_runtime.cli.limit_options import limit_options
from timesformer_runtime.cli.model_options import (
    load,
    load_to_share,
    model_options,
    top_k_option,
    workers_option,
)
from timesformer_runtime.cli.output import (
    BAD_INPUT,
    INTERRUPTED,
    about,
    fail_at_once,
    failure_of,
    one_line,
    reworded,
    say,
)
from timesformer_runtime.cli.paths import PathType
from timesformer_runtime.cli.view_options import view_options
from timesformer_runtime.errors import InvalidOptionError, OutputError

if TYPE_CHECKING:
    from timesformer_runtime.classifier import VideoClassifier
    from timesformer_runtime.cli.progress import ProgressBar
    from timesformer_runtime.cli.results_file import ResultsFile
    from timesformer_runtime.workloads.batch import Outcome

Record: TypeAlias = dict[str, Any]  # of one video: the keys of a result, or "error"
Records: TypeAlias = Generator[tuple[str, Record], None, None]
Work: TypeAlias = Callable[[Iterable[str]], Records]

_ADDRESS = re.compile(r"auto|local|[^\s/]+:\d+|")


def _read_address(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    if value is None or _ADDRESS.fullmatch(value):
        return value
    raise click.BadParameter(
        f"{value!r} is not HOST:PORT, auto or local; write --ray as the last word, or --ray=ADDRESS"
    )


@click.command()
@click.argument("model")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--output",
    type=PathType(),
    required=True,
    metavar="FILE.jsonl",
    help="File for the results. Videos with a result in it are not done again.",
)
@click.option(
    "--parquet",
    "table",
    type=PathType(),
    metavar="FILE.parquet",
    help="When all videos are done, also write the results as a Parquet table, with a row for the "
    "last line of each video in the results file. Replaces such a table of an earlier run.",
)
@top_k_option(5, "video")
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Do the videos again that failed in an earlier run; the last line of a video counts.",
)
@workers_option
@click.option(
    "--ray",
    "address",
    is_flag=False,
    flag_value="",
    is_eager=True,
    callback=_read_address,
    metavar="[ADDRESS]",
    help="Work on a Ray cluster, with --threads CPUs [default: 1] for each of its processes. "
    "HOST:PORT, auto (the cluster of this machine) or local (a new one, here).  [default without "
    "an address: RAY_ADDRESS, auto, local, whichever is there]",
)
@view_options
@limit_options()
@model_options
def batch(
    paths: tuple[str, ...],
    output: Path,
    table: Path | None,
    top_k: int,
    retry_failed: bool,
    workers: int | None,
    address: str | None,
    **options: Any,
) -> None:
    """Classify many videos: write one JSON object per video and line to a file.

    A PATH is a file; a folder, which is searched with all folders in it, also behind links; a
    pattern such as 'clips/**/*.mp4'; or "-" for a list of paths on standard input, one a line. A
    named pipe is read only where a PATH names the pipe itself, for no longer than --max-seconds.
    The command writes a line as soon as its video is done. The line of a video that failed has an
    "error".

    An interrupted run goes on where it stopped: start it again with the same --output. A video
    counts as done if a line has its absolute path, its size and its time of change. So a video
    that was replaced is done again, and so is a video of the same name in another folder. Folders
    may be moved between runs: start the next run where the names in the lines lead to the same
    videos, and keep the times of the files (as mv, cp -p and rsync -a do).

    Do not touch the output file while a run writes it. The command refuses a file that holds
    anything else, and leaves it as it is.
    """
    from timesformer_runtime.cli.progress import ProgressBar  # noqa: PLC0415
    from timesformer_runtime.cli.results_file import ResultsFile  # noqa: PLC0415
    from timesformer_runtime.cli.video_list import find_videos  # noqa: PLC0415
    from timesformer_runtime.workloads.workers import check_workers  # noqa: PLC0415

    if str(output) == "-":
        raise click.UsageError("results cannot go to standard output; give --output a file")
    if workers is not None:
        check_workers(workers)  # before the output file is made
    if table is not None:
        _check_table(table, output, options["model"])
    videos = find_videos(paths, sys.stdin.buffer if sys.stdin else None)
    if address is None:
        classifier, work = _here(top_k, workers, **options)
    else:
        classifier, work = _on_ray(address, top_k, workers, **options)
    run = {
        "model": classifier.name,
        "fingerprint": classifier.fingerprint(),
        "dtype": classifier.dtype,
        "top_k": top_k,
        **classifier.views.to_dict(),
    }
    with ResultsFile(output, run) as results:
        left, failed = _left(videos, results, retry_failed=retry_failed)
        start = time.perf_counter()
        records = work(results.noted(left))
        try:
            with ProgressBar(len(left), "videos") as progress:
                for count, (video, record) in enumerate(records, start=1):
                    _keep(video, record, results, progress)
                    failed += "error" in record
                    progress.advance_to(count, len(left))
            results.check()
        except KeyboardInterrupt:
            fail_at_once("interrupted", INTERRUPTED)  # every line in the file is whole
        except OutputError as error:
            fail_at_once(str(error), BAD_INPUT)  # further results would be lost
        finally:
            records.close()
        _say_totals(output, len(videos), len(left), failed, time.perf_counter() - start)
        if table is not None:  # while no other run can add lines
            _write_table(output, table)
    if failed:
        sys.exit(BAD_INPUT)


def _left(
    videos: Collection[str], results: ResultsFile, *, retry_failed: bool
) -> tuple[list[str], int]:
    """Finds the videos to do, and the number of those that failed before and are left so."""
    if results.without_folder:
        say(
            f"{results.path}: {results.without_folder} of its lines, of an earlier version, have "
            "names without a folder; these names count from the current folder"
        )
    earlier = {video: results.succeeded(video) for video in videos}
    left = [
        video
        for video, succeeded in earlier.items()
        if succeeded is None or (retry_failed and not succeeded)
    ]
    return left, sum(earlier[video] is False for video in earlier.keys() - set(left))


def _check_table(table: Path, output: Path, model: str) -> None:
    """Checks, before any work, that the Parquet table can be written."""
    from timesformer_runtime.cli.results_table import check_table  # noqa: PLC0415

    if str(table) == "-":
        raise click.UsageError("a table cannot go to standard output; give --parquet a file")
    if os.path.realpath(table) == os.path.realpath(output):
        raise click.UsageError("--parquet and --output name one file; give two")
    check_table(table, model)


def _write_table(output: Path, table: Path) -> None:
    from timesformer_runtime.cli.results_table import write_table  # noqa: PLC0415

    rows = write_table(output, table)
    say(f"{table}: {_counted(rows, 'row')}")


def _here(top_k: int, workers: int | None, **options: Any) -> tuple[VideoClassifier, Work]:
    """Loads the model, and gives the function that classifies videos in this process."""
    from timesformer_runtime.workloads.workers import usual_workers  # noqa: PLC0415

    classifier, cores = load_to_share(**options)

    def work(videos: Iterable[str]) -> Records:
        outcomes = classifier.batch(videos, top_k, workers=workers or usual_workers(cores))
        try:
            for outcome in outcomes:
                yield str(outcome.video), _record(outcome)
        finally:
            outcomes.close()

    return classifier, work


def _record(outcome: Outcome) -> Record:
    if outcome.result is not None:
        return outcome.result.to_dict()
    assert outcome.error is not None  # noqa: S101
    return {"error": failure_of(str(outcome.video), outcome.error)}


def _on_ray(
    address: str, top_k: int, workers: int | None, *, threads: int | None, **options: Any
) -> tuple[VideoClassifier, Work]:
    """Loads the model, and gives the function that classifies videos on a Ray cluster."""
    from timesformer_runtime.ray.cluster import classify_on, connect  # noqa: PLC0415
    from timesformer_runtime.workloads.workers import shared_threads  # noqa: PLC0415

    threads = threads or 1
    classifier = load(threads=shared_threads(threads), share_of=threads, **options)
    arguments = {
        **classifier.arguments,
        "dtype": classifier.dtype,
        "top_k": top_k,
        "threads": threads,
        "workers": workers,
    }
    if not arguments["providers"]:
        arguments["device"] = classifier.device
    fingerprint = classifier.fingerprint()
    if classifier.device.startswith("cuda:"):
        raise InvalidOptionError(
            f"`device={classifier.device}`: Ray gives each process a GPU; take `device=cuda`"
        )
    classifier.close()
    cluster = connect(address, threads, gpu=classifier.device == "cuda")
    say(
        f"Ray: {_counted(cluster.actors, 'process', 'es')} of {_counted(threads, 'thread')} on "
        f"{_counted(cluster.machines, 'machine')}"
    )

    def work(videos: Iterable[str]) -> Records:
        for video, record in classify_on(cluster, list(videos), arguments, fingerprint):
            yield video, record if "error" not in record else {"error": reworded(record["error"])}

    return classifier, work


def _counted(number: int, thing: str, ending: str = "s") -> str:
    return f"{number} {thing}{'' if number == 1 else ending}"


def _keep(video: str, record: Record, results: ResultsFile, progress: ProgressBar) -> None:
    if "error" in record:
        message = record["error"]
        results.append(video, {"error": one_line(message)})
        progress.say(f"timesformer: {about(video, message)}")
        return
    results.append(video, record)
    if record["damaged"]:
        progress.say(f"timesformer: {video}: damaged: {'; '.join(record['problems'])}")


def _say_totals(output: Path, videos: int, done: int, failed: int, seconds: float) -> None:
    facts = [f"{_counted(done, 'video')} in {seconds:.1f} s"]
    if done:
        facts.append(f"{done / seconds:.2f} a second")
    if done < videos:
        earlier = videos - done
        facts.append(f"{earlier} {'was' if earlier == 1 else 'were'} done before")
    if failed:
        facts.append(f"{failed} failed")
    say(f"{output}: {', '.join(facts)}")
