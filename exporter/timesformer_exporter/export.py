"""The whole export: checkpoint -> model -> graph -> bundle, checked against PyTorch."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timesformer_runtime.device import choose_device
from timesformer_runtime.preprocess import Preprocessing
from timesformer_runtime.session import Session
from timesformer_runtime.settings import SessionSettings
from torch import nn

from timesformer_exporter.bundle_writer import (
    REPORT,
    check_output,
    publish,
    staging_folder,
    write_json,
)
from timesformer_exporter.checkpoints import Checkpoint, build_model, load_checkpoint
from timesformer_exporter.fidelity import Array, Fidelity, Outputs, compare
from timesformer_exporter.frames_input import FramesInput
from timesformer_exporter.inference_form import InferenceForm
from timesformer_exporter.metadata import golden_check, made_with, metadata, source_dict
from timesformer_exporter.model import TimesformerForVideoClassification
from timesformer_exporter.model_card import model_card
from timesformer_exporter.multiply_adds import MultiplyAdds, count_multiply_adds
from timesformer_exporter.options import ExportOptions
from timesformer_exporter.reference import Reference, compute_reference
from timesformer_exporter.trace import GraphOutputs, TracedModel, trace

# A protobuf message ends at 2 GiB; above this, the weights go to a file beside the graph.
_LARGEST_SINGLE_FILE = 1_900_000_000
# A resize in the graph rounds to whole grey levels a little differently from the runtime's own;
# for frames of another size the outputs agree to this share of the largest value.
_RESIZED_TOLERANCE = 2e-2
# Where files lie on this machine is nobody else's business; the source is reported by itself.
_NOT_REPORTED = ("model", "output", "revision", "local_files_only", "labels", "force")


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        folder: The bundle, or ``<folder>.rejected`` where the check failed.
        passed: Whether the check passed.
        fidelity: The numbers of the check.
        files: The files that were written, relative to the folder, with their sizes in bytes.
        notes: What was assumed about the checkpoint.
        multiply_adds: The work for one clip, before and after the exact rewrites.
        seconds: How long each step took.
    """

    folder: Path
    passed: bool
    fidelity: Fidelity
    multiply_adds: MultiplyAdds
    files: dict[str, int]
    notes: tuple[str, ...]
    seconds: dict[str, float]


class Steps:
    """Announces the steps of an export and keeps the time that each took."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.announce = announce
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def ended(self, step: str) -> None:
        """Notes how long it is since the step before ended."""
        now = time.perf_counter()
        self.seconds[step] = round(now - self._started, 3)
        self._started = now


def export(
    options: ExportOptions, announce: Callable[[str], None] = lambda _: None
) -> ExportResult:
    """Exports a checkpoint to ONNX and checks the result by value.

    Args:
        options: What to export, and how.
        announce: Is called with a short text when a step begins.

    Returns:
        What was written; ``passed`` says whether the file agrees with PyTorch. Where it does
        not, the result stands in ``<output>.rejected`` and an existing output is left alone.

    Raises:
        ExportError: Bad input; nothing is written.
        timesformer_runtime.errors.TimesformerError: The model cannot be had from the Hub.
    """
    check_output(options.folder, force=options.force)
    steps = Steps(announce)
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
        work = count_multiply_adds(
            checkpoint.config, options.task, rewritten=options.graph_outputs.only_the_task
        )
        fidelity = _write_bundle(folder, checkpoint, options, work, steps)
        target = options.folder if fidelity.passed else _reject(folder, options.folder)
        files = {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        publish(folder, target, force=options.force or not fidelity.passed)
    return ExportResult(
        folder=target,
        passed=fidelity.passed,
        fidelity=fidelity,
        multiply_adds=work,
        files=files,
        notes=checkpoint.notes,
        seconds=dict(steps.seconds),
    )


def _write_bundle(
    folder: Path, checkpoint: Checkpoint, options: ExportOptions, work: MultiplyAdds, steps: Steps
) -> Fidelity:
    """Writes all files of a bundle and returns how the check went."""
    model = build_model(checkpoint, options.task)
    preprocessing = Preprocessing.from_dict(checkpoint.preprocessing)
    outputs = options.graph_outputs
    original = TracedModel(model, outputs)
    reference = compute_reference(
        original,
        preprocessing,
        _native_size(preprocessing, checkpoint.config.image_hw),
        on_clip=lambda i, n: steps.announce(f"Running PyTorch on clip {i} of {n}"),
    )
    resized = None
    if options.input == "frames":
        height, width = checkpoint.config.image_hw
        odd_size = (height + height // 3, 2 * width + 1)
        resized = compute_reference(original, preprocessing, odd_size, clips=1)
    steps.ended("pytorch")

    steps.announce(f"Tracing to ONNX (opset {options.opset})")
    program = trace(
        _graph_module(model, outputs, preprocessing, options),
        checkpoint.config,
        input_name=options.input,
        output_names=original.output_names,
        opset=options.opset,
    )
    steps.ended("trace")

    steps.announce("Writing the files")
    answer = "logits" if options.task == "video-classification" else "features"
    program.model.metadata_props.update(
        metadata(
            config=checkpoint.config,
            preprocessing=checkpoint.preprocessing,
            task=options.task,
            input_name=options.input,
            source=checkpoint.source,
            golden=golden_check(reference.frames[0].shape, answer, reference.outputs[answer][0]),
        )
    )
    path = folder / "onnx" / "model.onnx"
    path.parent.mkdir()
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    program.save(path, external_data=weights > _LARGEST_SINGLE_FILE)
    write_json(folder / "config.json", checkpoint.config.to_dict())
    write_json(folder / "preprocessor_config.json", checkpoint.preprocessing)
    steps.ended("write")

    fidelity = _check(path, reference, resized, options, steps)
    steps.ended("check")
    write_json(folder / REPORT, _report(checkpoint, options, fidelity, work, path, steps))
    card = model_card(
        name=options.folder.name,
        config=checkpoint.config,
        source=source_dict(checkpoint.source),
        task=options.task,
        input_name=options.input,
        opset=options.opset,
        fidelity=fidelity,
        notes=checkpoint.notes,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    return fidelity


def _graph_module(
    model: TimesformerForVideoClassification,
    outputs: GraphOutputs,
    preprocessing: Preprocessing,
    options: ExportOptions,
) -> nn.Module:
    """What is traced: the inference form, or the model as it is where its insides are asked for."""
    frames_input = FramesInput(preprocessing) if options.input == "frames" else None
    if outputs.only_the_task:
        return InferenceForm(model, outputs.task, frames_input)
    return TracedModel(model, outputs, frames_input)


def _native_size(preprocessing: Preprocessing, image_size: tuple[int, int]) -> tuple[int, int]:
    """The frame size that the preprocessing leaves as it is before it crops."""
    if not preprocessing.do_resize:
        return image_size
    size = preprocessing.size
    return (size, size) if isinstance(size, int) else size


def _check(
    path: Path,
    reference: Reference,
    resized: Reference | None,
    options: ExportOptions,
    steps: Steps,
) -> Fidelity:
    """Compares the written file with PyTorch, through ONNX Runtime on the CPU."""
    steps.announce("Checking the file against PyTorch with ONNX Runtime")
    settings = SessionSettings(device="cpu")
    session = Session(path, choose_device(settings), settings)
    names = [output.name for output in session.outputs]

    def run(clips: Array) -> Outputs:
        return dict(zip(names, session.run(names, {options.input: clips}), strict=True))

    clips = reference.pixel_values if resized is None else reference.frames
    fidelity = compare(reference.outputs, run, clips, atol=options.atol, batches=reference.batches)
    if resized is None:
        return fidelity
    other = compare(
        resized.outputs,
        run,
        resized.frames,
        atol=options.atol,
        rtol=_RESIZED_TOLERANCE,
        batches=(1,),
        kind="resized",
    )
    return Fidelity(fidelity.comparisons + other.comparisons)


def _reject(folder: Path, output: Path) -> Path:
    """Marks the graphs as rejected, so that nobody runs them by mistake."""
    for path in (folder / "onnx").iterdir():
        path.rename(path.with_name(f"{path.name}.rejected"))
    return output.with_name(f"{output.name}.rejected")


def _report(
    checkpoint: Checkpoint,
    options: ExportOptions,
    fidelity: Fidelity,
    work: MultiplyAdds,
    path: Path,
    steps: Steps,
) -> dict[str, Any]:
    """The contents of export_report.json."""
    files = {
        f"onnx/{file.name}": {"bytes": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(path.parent.iterdir())
    }
    return {
        "verdict": "passed" if fidelity.passed else "failed",
        "source": source_dict(checkpoint.source),
        "options": {
            key: value
            for key, value in dataclasses.asdict(options).items()
            if key not in _NOT_REPORTED
        },
        "notes": list(checkpoint.notes),
        "files": files,
        "fidelity": fidelity.to_dict(),
        "multiply_adds": dataclasses.asdict(work),
        "made_with": made_with(),
        "threads": torch.get_num_threads(),
        "seconds": dict(steps.seconds),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
