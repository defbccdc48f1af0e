"""The whole export: checkpoint -> model -> graph -> bundle, checked against PyTorch."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

from timesformer_exporter.bundle import Bundle, Steps
from timesformer_exporter.bundle_writer import (
    check_output,
    check_place,
    clean_up,
    publish,
    staging_folder,
)
from timesformer_exporter.calibration import find_videos
from timesformer_exporter.checkpoints import load_checkpoint
from timesformer_exporter.checks import Proof
from timesformer_exporter.errors import InvalidOptionError
from timesformer_exporter.integer_products import IntegerProducts
from timesformer_exporter.multiply_adds import MultiplyAdds
from timesformer_exporter.options import ExportOptions

_log = logging.getLogger("timesformer_exporter")


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        folder: The bundle, or ``<folder>.rejected`` where the check failed.
        passed: Whether the check passed.
        proof: The numbers of the check.
        files: The files that were written, relative to the folder, with their sizes in bytes.
        integer_products: What the int8 file computes in integers; None without one.
        notes: What was assumed about the checkpoint.
        multiply_adds: The work for one clip, before and after the exact rewrites.
        seconds: How long each step took.
    """

    folder: Path
    passed: bool
    proof: Proof
    multiply_adds: MultiplyAdds
    integer_products: IntegerProducts | None
    files: dict[str, int]
    notes: tuple[str, ...]
    seconds: dict[str, float]


def export(
    options: ExportOptions,
    announce: Callable[[str], None] = lambda _: None,
    tell: Callable[[str], None] = _log.warning,
) -> ExportResult:
    """Exports a checkpoint to ONNX and checks the result by value.

    Args:
        options: What to export, and how.
        announce: Is called with a short text when a step begins.
        tell: Is called with a line about each calibration video that is skipped.

    Returns:
        What was written; ``passed`` says whether the files agree with PyTorch. Where they do
        not, the result stands in ``<output>.rejected`` and an existing output is left alone.

    Raises:
        ExportError: Bad input; nothing is written.
        timesformer_runtime.errors.TimesformerError: The model cannot be had from the Hub.
    """
    _check_paths(options, tell)
    videos = find_videos(options.calibration_videos)
    steps = Steps(announce, tell)
    announce(f"Loading {options.model}")
    checkpoint = load_checkpoint(
        options.model,
        revision=options.revision,
        local_files_only=options.local_files_only,
        labels=options.labels,
        task=options.task,
        num_frames=options.num_frames,
        image_size=options.image_size,
        attention_heads=options.attention_heads,
    )
    steps.ended("load")
    with staging_folder(options.folder) as folder:
        bundle = Bundle(folder, checkpoint, options, steps, videos)
        proof = bundle.write()
        target = options.folder if proof.passed else _reject(folder, options.folder)
        files = {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        publish(folder, target, force=options.force or not proof.passed)
    return ExportResult(
        folder=target,
        passed=proof.passed,
        proof=proof,
        multiply_adds=bundle.work,
        integer_products=bundle.integer_products,
        files=files,
        notes=bundle.notes,
        seconds=dict(steps.seconds),
    )


def _check_paths(options: ExportOptions, tell: Callable[[str], None]) -> None:
    """Refuses before any work what would fail, or destroy something, at its end."""
    for place, force in ((options.folder, options.force), (_rejected(options.folder), True)):
        check_place(place)
        if clean_up(place):
            tell(f"{place} is back in its place: an export that was to replace it was killed.")
        check_output(place, force=force)
    target = options.folder.resolve()
    for name, path in (("--model", Path(options.model)), ("--labels", options.labels)):
        if path is not None and path.exists() and path.resolve().is_relative_to(target):
            raise InvalidOptionError(
                f"--output {options.folder} would replace {name} {path}; give another --output"
            )


def _reject(folder: Path, output: Path) -> Path:
    """Marks the graphs as rejected, so that nobody runs them by mistake."""
    for path in (folder / "onnx").iterdir():
        path.rename(path.with_name(f"{path.name}.rejected"))
    return _rejected(output)


def _rejected(output: Path) -> Path:
    return output.with_name(f"{output.name}.rejected")
