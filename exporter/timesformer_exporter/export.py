"""Exports a checkpoint to a folder whose files are compared with PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer_runtime.errors import TimesformerError, explained_memory_errors
from timesformer_runtime.source_names import shown

from timesformer_exporter.checkpoints import Checkpoint, load_checkpoint
from timesformer_exporter.errors import InvalidOptionError
from timesformer_exporter.folder import (
    REJECTED,
    check_output,
    check_path,
    clean_up,
    publish,
    staging_folder,
)
from timesformer_exporter.graph.calibration import find_videos
from timesformer_exporter.graph.integer_products import IntegerProducts
from timesformer_exporter.graph.multiply_adds import MultiplyAdds
from timesformer_exporter.graph.trace import fits_into_one_file
from timesformer_exporter.model_writer import ModelWriter, Written
from timesformer_exporter.options import ExportOptions
from timesformer_exporter.proof.checks import Proof
from timesformer_exporter.push import check_push, push
from timesformer_exporter.steps import Steps

if TYPE_CHECKING:
    from timesformer_runtime.evaluate.datasets import Dataset

_log = logging.getLogger("timesformer_exporter")


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    Attributes:
        folder: The exported model, or ``<folder>.rejected`` where a check failed.
        passed: True where the fidelity check and the gate passed.
        proof: The numbers of the fidelity check and of the gate.
        multiply_adds: Multiply-adds for one clip, before and after the exact rewrites.
        integer_products: The matrix products that the int8 file computes in integers; None without
            an int8 file.
        files: The sizes of the files in bytes, by their paths relative to the folder.
        notes: One sentence for each thing that was assumed about the checkpoint.
        seconds: The time that each step took.
        url: The exported model on the Hub; None where it was not uploaded.
    """

    folder: Path
    passed: bool
    proof: Proof
    multiply_adds: MultiplyAdds
    integer_products: IntegerProducts | None
    files: dict[str, int]
    notes: tuple[str, ...]
    seconds: dict[str, float]
    url: str | None = None


def export(
    options: ExportOptions,
    announce: Callable[[str], None] = lambda _: None,
    tell: Callable[[str], None] = _log.warning,
) -> ExportResult:
    """Exports a checkpoint to ONNX and compares the files' outputs with PyTorch's.

    Args:
        options: The checkpoint, the output folder, and how to export.
        announce: Gets the title of each step when the step begins.
        tell: Gets each line that the user should read at once, such as a calibration video that
            the export skips.

    Returns:
        The result; ``passed`` says whether the files agree with PyTorch. Where they do not, they
        are in ``<output>.rejected``, and an existing output stays as it is.

    Raises:
        InvalidOptionError: The options contradict each other or the checkpoint.
        OutputExistsError: The output exists and may not be replaced.
        CheckpointNotFoundError: There is no checkpoint under that path or Hub id.
        InvalidCheckpointError: The checkpoint is broken or not a TimeSformer.
        TimesformerError: Any other error of this package or of ``timesformer_runtime``. No error
            leaves a half-written output. Where the upload fails at the end, the HubError says that
            the export itself is complete.
    """
    _check_paths(options, tell)
    videos = find_videos(options.calibration_videos)
    steps = Steps(announce)
    if options.push_to_hub is not None:
        check_push(options.push_to_hub, private=options.private)
    checkpoint = _load(options, steps)
    _check_size(checkpoint, options)
    labelled = _labelled_videos(checkpoint, options, tell)
    with (
        _explained_memory_errors(
            "the model; give a smaller `num_frames` or `image_size`, or fewer outputs"
        ),
        staging_folder(options.folder) as folder,
    ):
        written = ModelWriter(folder, checkpoint, options, steps, tell).write(videos, labelled)
        result = _finish(folder, written, options, steps)
        publish(folder, result.folder, force=options.force or not result.passed)
    if options.push_to_hub is not None and result.passed:
        with steps.step("push", f"Uploading to {options.push_to_hub}"):
            url = push(
                result.folder,
                tuple(result.files),
                options.push_to_hub,
                private=options.private,
                revision=options.push_revision,
            )
        result = dataclasses.replace(result, url=url)
    return result


def _check_paths(options: ExportOptions, tell: Callable[[str], None]) -> None:
    """Refuses an output that could not be written at the end, or that would replace an input."""
    for path, force in ((options.folder, options.force), (_rejected(options.folder), True)):
        check_path(path)
        if clean_up(path):
            tell(f"{path} was restored: the export that was to replace it had been killed.")
        check_output(path, force=force)
    target = options.folder.resolve()
    for name, given in (("`model`", Path(options.model)), ("`labels`", options.labels)):
        # Not Path.exists, which raises an error for a name that is too long.
        if given is None or not os.path.exists(given):  # noqa: PTH110
            continue
        if given.resolve().is_relative_to(target):
            raise InvalidOptionError(
                f"`output` {options.folder} would replace {name} {given}; give another `output`"
            )


def _load(options: ExportOptions, steps: Steps) -> Checkpoint:
    with (
        steps.step("load", f"Loading {shown(str(options.model))}"),
        _explained_memory_errors(f"the weights of {options.model}; check that its files are whole"),
    ):
        return load_checkpoint(
            options.model,
            revision=options.revision,
            local_files_only=options.local_files_only,
            labels=options.labels,
            task=options.task,
            num_frames=options.num_frames,
            image_size=options.image_size,
            attention_heads=options.attention_heads,
            weights=options.weights,
        )


def _check_size(checkpoint: Checkpoint, options: ExportOptions) -> None:
    """Refuses variants of a model beyond protobuf's 2 GiB: the quantizers cannot serialise it."""
    size = sum(tensor.nbytes for tensor in checkpoint.state_dict.values())
    if options.dtypes != ("fp32",) and not fits_into_one_file(size):
        raise InvalidOptionError(
            f"{checkpoint.source.model}: its weights take {size / 1e9:.1f} GB in float32, and "
            "int8, fp16 and q4 can be made of less than 2 GB only; give `dtypes=fp32` alone"
        )


def _labelled_videos(
    checkpoint: Checkpoint, options: ExportOptions, tell: Callable[[str], None]
) -> Dataset | None:
    """Reads the dataset of ``evaluate``, before any long work."""
    if options.evaluate is None:
        return None
    # The import is here because it needs the extra ``evaluate``.
    from timesformer_exporter.proof.accuracy import read_labelled_videos  # noqa: PLC0415

    dataset = read_labelled_videos(options.evaluate, options.evaluate_root, checkpoint.config)
    for note in dataset.notes:
        tell(f"{options.evaluate}: {note}")
    return dataset


def _finish(folder: Path, written: Written, options: ExportOptions, steps: Steps) -> ExportResult:
    """Makes the result of an export; where a check failed, marks the graphs as rejected."""
    passed = written.proof.passed
    if not passed:
        _mark_rejected(folder / "onnx")
    return ExportResult(
        folder=options.folder if passed else _rejected(options.folder),
        passed=passed,
        proof=written.proof,
        multiply_adds=written.multiply_adds,
        integer_products=written.integer_products,
        files=_sizes(folder),
        notes=written.notes,
        seconds=steps.seconds,
    )


def _rejected(output: Path) -> Path:
    return output.with_name(f"{output.name}{REJECTED}")


def _mark_rejected(graphs: Path) -> None:
    """Renames the graphs of a failed export, so that nobody runs them by mistake."""
    for path in list(graphs.iterdir()):
        path.rename(path.with_name(f"{path.name}{REJECTED}"))


def _sizes(folder: Path) -> dict[str, int]:
    """All files in a folder, with their sizes in bytes."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def _explained_memory_errors(need_and_remedy: str) -> Iterator[None]:
    """Turns an out-of-memory error of the block into one that names the need and the remedy."""
    with explained_memory_errors(need_and_remedy):
        try:
            yield
        except RuntimeError as error:
            # PyTorch raises a plain RuntimeError where it has no memory.
            if isinstance(error, TimesformerError) or "allocate memory" not in str(error):
                raise
            raise MemoryError from error
