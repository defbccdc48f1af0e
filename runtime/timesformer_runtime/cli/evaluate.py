"""``timesformer evaluate``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.limit_options import limit_options
from timesformer_runtime.cli.model_options import load, models_options, workers_option
from timesformer_runtime.cli.output import (
    BAD_INPUT,
    INTERRUPTED,
    about,
    check_output,
    echo,
    fail_at_once,
    one_line,
    reworded,
    say,
)
from timesformer_runtime.cli.paths import PathType
from timesformer_runtime.cli.view_options import view_options
from timesformer_runtime.errors import OutputError, printable
from timesformer_runtime.whole_file import check_outside_model

if TYPE_CHECKING:
    from timesformer_runtime.classifier import VideoClassifier
    from timesformer_runtime.cli.progress import ProgressBar
    from timesformer_runtime.evaluate.loading import LoadedModels
    from timesformer_runtime.evaluate.run import Evaluation, Plan

_MOST_TOLD = 20  # unreadable or damaged videos on the screen: of a downloaded dataset many miss


@click.command()
@click.argument("model")
@click.argument("data", type=PathType())
@click.option(
    "--output",
    type=PathType(),
    metavar="DIR",
    help="Folder for the results. Videos with a result in it are not done again.",
)
@click.option(
    "--against",
    metavar="OTHER",
    help="Compare with another model that has the same labels, or with a variant, such as fp32.",
)
@click.option(
    "--root",
    type=PathType(),
    metavar="DIR",
    help="Folder of the videos of a list.  [default: the list's own, or the current one]",
)
@click.option(
    "--labels",
    type=PathType(),
    metavar="FILE",
    help="The names of the numbers in a list: one name a line, CSV (number, name) or JSON.",
)
@click.option(
    "--labels-by",
    type=click.Choice(("names", "numbers")),
    help="Which of a label's name and number counts where --labels numbers the names in another "
    "order than the model.  "
    "[default: that is an error]",
)
@click.option(
    "--split", metavar="NAME", help="The part to take of a table with a column named split."
)
@click.option(
    "--function",
    "function_to_apply",
    type=click.Choice(("softmax", "sigmoid")),
    help="The function that makes scores of the model's logits; with sigmoid, videos may have "
    "several labels.  [default: what the model says]",
)
@workers_option
@click.option(
    "--retry-failed", is_flag=True, help="Do the videos again that failed in an earlier run."
)
@click.option(
    "--diagnose",
    is_flag=True,
    help="Write nothing: try other channel orders, means, protocols and orders of labels on a few "
    "videos, and print what each gives.",
)
@click.option("--force", is_flag=True, help="Begin again where DIR has results.")
@view_options
@limit_options()
@models_options
def evaluate(output: Path | None, diagnose: bool, **options: Any) -> None:
    """Measure how well MODEL names the videos of DATA, whose labels are known.

    DATA is a folder with a folder for each class; a list with a path and a label in each line,
    separated by a space, a comma or a tab; a CSV file with the columns file_name or video, and
    label, or the folder of Hugging Face's metadata.csv; Kinetics' annotations as CSV; or
    Something-Something's as JSON. Labels are names or numbers.

    The command prints a table and a sentence, and writes results.jsonl with a line for each video,
    metrics.json and report.html. Several --dtype are compared with each other, and each video is
    decoded once for all of them. MB is the most memory of a process that runs the model.

    Videos that cannot be read are listed and counted; if one video can be read, the exit code is 0
    nevertheless. Start an interrupted run again with the same arguments: it goes on where it
    stopped. The command refuses a DIR with results of another model, other options or other data,
    unless --force is given.
    """
    from timesformer_runtime.cli.progress import ProgressBar  # noqa: PLC0415
    from timesformer_runtime.evaluate.run import run  # noqa: PLC0415

    check_output()
    if output is None and not diagnose:
        raise click.UsageError("give --output a folder for the results, or --diagnose")
    if output is not None:
        check_outside_model(output, options["model"])
    if diagnose:
        _check_diagnose(output, **options)
    loaded, plan = _plan(output=output or Path(), **options)
    for note in plan.dataset.notes:
        say(f"{options['data']}: {note}")
    if diagnose:
        try:
            _diagnose(plan)
        finally:
            loaded.close()
        return
    count = len(plan.dataset.samples)
    start = time.perf_counter()
    try:
        with ProgressBar(count, "videos") as progress:
            evaluation = run(plan, _ProblemLines(progress))
    except KeyboardInterrupt:
        fail_at_once("interrupted", INTERRUPTED)  # every line in the file is whole
    except OutputError as error:
        fail_at_once(str(error), BAD_INPUT)  # further results would be lost
    finally:
        loaded.close()
    _print(evaluation, count, time.perf_counter() - start)
    if evaluation.unreadable == count:
        sys.exit(BAD_INPUT)


def _check_diagnose(
    output: Path | None,
    *,
    against: str | None,
    dtypes: tuple[str, ...],
    force: bool,
    retry_failed: bool,
    **_: Any,
) -> None:
    """Refuses options that --diagnose would ignore."""
    for name, given in (("output", output), ("force", force), ("retry-failed", retry_failed)):
        if given:
            raise click.UsageError(f"--diagnose writes nothing: leave out --{name}")
    if against is not None:
        raise click.UsageError("--diagnose compares nothing: leave out --against")
    if len(dtypes) > 1:
        raise click.UsageError("--diagnose runs one variant: give only one --dtype")


def _plan(  # noqa: PLR0913  # the options of the command, by name
    *,
    model: str,
    data: Path,
    output: Path,
    against: str | None,
    root: Path | None,
    labels: Path | None,
    labels_by: str | None,
    split: str | None,
    function_to_apply: str | None,
    workers: int | None,
    retry_failed: bool,
    force: bool,
    dtypes: tuple[str, ...],
    threads: int | None,
    **options: Any,
) -> tuple[LoadedModels, Plan]:
    """Loads the models and reads the dataset."""
    from timesformer_runtime.evaluate.datasets import DatasetOptions  # noqa: PLC0415
    from timesformer_runtime.evaluate.loading import load_models  # noqa: PLC0415
    from timesformer_runtime.evaluate.run import make_plan  # noqa: PLC0415
    from timesformer_runtime.model.cpu import granted_threads  # noqa: PLC0415
    from timesformer_runtime.workloads.workers import (  # noqa: PLC0415
        check_workers,
        shared_threads,
        usual_workers,
    )

    cores = threads or granted_threads()
    workers = workers or usual_workers(cores)
    check_workers(workers)
    dataset_options = DatasetOptions(root, labels, labels_by, split)

    def load_one(name: str, dtype: str | None) -> VideoClassifier:
        return load(name, dtype=dtype, threads=shared_threads(cores), share_of=cores, **options)

    loaded = load_models(load_one, model, dtypes, against)
    plan = make_plan(
        loaded,
        data,
        dataset_options,
        output,
        function_to_apply=function_to_apply,
        workers=workers,
        retry_failed=retry_failed,
        force=force,
    )
    return loaded, plan


def _diagnose(plan: Plan) -> None:
    """Prints what other preprocessing, protocols and orders of labels give on a few videos."""
    from timesformer_runtime.cli.tables import aligned  # noqa: PLC0415
    from timesformer_runtime.evaluate.diagnosis import diagnose  # noqa: PLC0415

    diagnosis = diagnose(
        plan.models[0].pipeline,
        plan.dataset.samples,
        plan.labels,
        workers=plan.workers,
        on_trial=lambda name: say(f"trying: {name}"),
    )
    rows = [
        (trial.name, "-" if trial.right is None else f"{trial.right} of {diagnosis.videos}")
        for trial in diagnosis.trials
    ]
    for row in aligned([("tried", "right"), *rows]):
        echo(row)
    for trial in diagnosis.trials:
        if trial.problem:
            say(f"{trial.name}: {reworded(trial.problem)}")
    echo(reworded(diagnosis.sentence))


class _ProblemLines:
    """Tells the problems of videos above the progress bar, up to a number of them."""

    def __init__(self, progress: ProgressBar) -> None:
        self._progress = progress
        self._count = 0

    def __call__(self, done: int, count: int, line: Mapping[str, Any]) -> None:
        """Tells the problems of a video that is done, and moves the bar."""
        if "error" in line:
            message = reworded(line["error"])
            self._tell(f"timesformer: {about(line['path'], message)}")
        elif line["problems"]:
            self._tell(f"timesformer: {line['path']}: damaged: {'; '.join(line['problems'])}")
        for name, result in line.get("results", {}).items():
            if "error" in result:
                self._tell(f"timesformer: {line['path']}: {name}: {result['error']}")
        self._progress.advance_to(done, count)

    def _tell(self, text: str) -> None:
        self._count += 1
        if self._count <= _MOST_TOLD:
            self._progress.say(text)
        elif self._count == _MOST_TOLD + 1:
            self._progress.say("timesformer: further such videos are listed in the results only")


def _print(evaluation: Evaluation, count: int, seconds: float) -> None:
    from timesformer_runtime.cli.tables import aligned  # noqa: PLC0415
    from timesformer_runtime.evaluate.sentences import table  # noqa: PLC0415

    earlier = evaluation.done_before
    done = count - earlier
    before = f", {earlier} {'was' if earlier == 1 else 'were'} done before" if earlier else ""
    say(f"{evaluation.folder}: {done} video{'' if done == 1 else 's'} in {seconds:.1f} s{before}")
    if evaluation.left_out:
        say(
            f"{evaluation.folder}: not counted: {evaluation.left_out} of its results, of videos "
            "that the data does not have any more"
        )
    for row in aligned(table(evaluation.metrics)):
        echo(row)
    echo(printable(one_line(evaluation.sentence)))
    for advice in evaluation.metrics["advice"]:
        echo(printable(one_line(reworded(advice))))
