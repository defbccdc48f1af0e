"""Exports a checkpoint to a folder whose files are compared with PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer_runtime.errors import TimesformerError, explained_memory_errors
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.model.gate import VariantFidelity
from timesformer_runtime.source_names import shown
from torch import nn

from timesformer_exporter.checkpoints import Checkpoint, build_model, load_checkpoint
from timesformer_exporter.errors import InvalidOptionError
from timesformer_exporter.folder import (
    REJECTED,
    REPORT,
    check_output,
    check_path,
    clean_up,
    publish,
    staging_folder,
    to_json,
    write_json,
    write_text,
    writing,
)
from timesformer_exporter.graph.calibration import find_videos, readable_videos
from timesformer_exporter.graph.frames_input import FramesInput
from timesformer_exporter.graph.integer_products import IntegerProducts
from timesformer_exporter.graph.metadata import golden_check, metadata, source_dict
from timesformer_exporter.graph.multiply_adds import MultiplyAdds, count_multiply_adds
from timesformer_exporter.graph.quantize import own_operators, write_variant
from timesformer_exporter.graph.smoothing import STRENGTH, ChannelPeaks, smooth
from timesformer_exporter.graph.trace import (
    ATTENTION_OPSET,
    GraphOutputs,
    TracedModel,
    fits_into_one_file,
    save_graph,
    trace,
)
from timesformer_exporter.model.attention_rollout import ROLLOUT, Rollout
from timesformer_exporter.model.inference_form import InferenceForm
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification
from timesformer_exporter.options import ExportOptions
from timesformer_exporter.proof.checks import Proof, check_graph, check_variant
from timesformer_exporter.proof.fidelity import BATCHES
from timesformer_exporter.proof.gate_clips import (
    CALIBRATION,
    GateReference,
    gate_clips,
    gate_reference,
)
from timesformer_exporter.proof.model_card import model_card
from timesformer_exporter.proof.reference import (
    Reference,
    compute_reference,
    golden_clips,
    native_size,
)
from timesformer_exporter.proof.report import export_report
from timesformer_exporter.push import check_push, push
from timesformer_exporter.web import WEB, web_description

if TYPE_CHECKING:
    from timesformer_runtime.evaluate.datasets import Dataset

    from timesformer_exporter.proof.accuracy_table import Accuracy

_log = logging.getLogger("timesformer_exporter")

_VIDEOS_A_TITLE = 50  # after so many labelled videos the progress is told


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


class _Steps:
    """Announces the steps of an export, and measures how many seconds each takes."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.announce = announce
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str, text: str | None = None) -> Iterator[None]:
        """Measures the block as one step; without a text, the block announces its parts itself."""
        if text is not None:
            self.announce(text)
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


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
    steps = _Steps(announce)
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
        result = _write_files(folder, checkpoint, videos, options, steps, tell, labelled)
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


def _load(options: ExportOptions, steps: _Steps) -> Checkpoint:
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


def _measure_accuracy(
    labelled: Dataset,
    model: TimesformerForVideoClassification,
    preprocessing: Preprocessing,
    graph: Path,
    options: ExportOptions,
    steps: _Steps,
    tell: Callable[[str], None],
) -> Accuracy:
    """Runs PyTorch and all variants on labelled videos."""
    from timesformer_exporter.proof.accuracy import measure_accuracy  # noqa: PLC0415

    def on_video(done: int, count: int, line: Mapping[str, Any]) -> None:
        if "error" in line:
            tell(f"Not evaluated: {line['path']}: {line['error']}")
        if done == count or done % _VIDEOS_A_TITLE == 0:
            steps.announce(f"Evaluated {done} of {count} labelled videos")

    files = {variant: graph.with_name(variant.file) for variant in options.variants}
    with steps.step("evaluate", f"Evaluating on {len(labelled.samples)} labelled videos"):
        return measure_accuracy(
            labelled, model, preprocessing, files, options.max_accuracy_loss, on_video
        )


def _card(graph: Path, checkpoint: Checkpoint, options: ExportOptions, proof: Proof) -> str:
    """The text of the model card, with the operators of the variants that were written."""
    operators = {
        variant.name: own_operators(graph.with_name(variant.file))
        for variant in options.variants
        if proof.variants and variant.dtype != "fp32"
    }
    source = source_dict(checkpoint.source)
    return model_card(options, checkpoint.config, source, proof, operators, checkpoint.notes)


def _write_files(
    folder: Path,
    checkpoint: Checkpoint,
    videos: tuple[Path, ...],
    options: ExportOptions,
    steps: _Steps,
    tell: Callable[[str], None],
    labelled: Dataset | None,
) -> ExportResult:
    """Writes all files of an export into ``folder`` and checks them."""
    config = checkpoint.config
    preprocessing = Preprocessing.from_dict(checkpoint.preprocessing)
    model = build_model(checkpoint, options.task)
    checkpoint.state_dict.clear()  # the model has copies; this frees as much memory again
    outputs = _graph_outputs(options)
    multiply_adds = count_multiply_adds(
        config, options.task, rewritten=outputs.only_the_task, rollout=outputs.rollout
    )
    notes = [*checkpoint.notes]
    if videos:
        with steps.step("videos", "Looking through the calibration videos"):
            found, videos = videos, readable_videos(videos, config.num_frames, tell)
        if len(videos) < len(found):
            skipped = len(found) - len(videos)
            notes.append(f"{skipped} of {len(found)} calibration videos did not decode.")

    # PyTorch's outputs: all of them for generated clips, only the main one for the gate's clips.
    with steps.step("pytorch"):
        reference, resized = _references(model, preprocessing, options, steps)
    if reference.batches != BATCHES:
        notes.append(
            f"The outputs of {max(BATCHES)} clips would take over 2 GB: they were compared at "
            f"batch {' and '.join(map(str, reference.batches))} only."
        )
    gate, calibration = None, None
    if options.dtypes != ("fp32",):
        with steps.step("gate"):
            gate, calibration = _gate_reference(model, preprocessing, videos, options, steps)

    # The float32 graph, then the variants that are made from it.
    output = reference.outputs[_main_output(options)][0]
    shape = reference.frames[0].shape
    golden = golden_check(shape, _main_output(options), output)
    entries = {} if calibration is None else {"calibration": to_json(calibration)}
    if options.explain:
        rolled_out = reference.outputs[ROLLOUT][0].ravel()
        entries["golden_rollout"] = to_json(golden_check(shape, ROLLOUT, rolled_out))
    graph = _write_graph(folder, model, checkpoint, golden, entries, options, steps)
    write_json(folder / "config.json", config.to_dict())
    write_json(folder / "preprocessor_config.json", checkpoint.preprocessing)
    with steps.step("check", "Checking the file against PyTorch with ONNX Runtime"):
        fidelity = check_graph(graph, options.input, reference, resized, options.atol)
    proof, products = Proof(fidelity, gated=options.gate), None
    if fidelity.passed and gate is not None:
        variants, products = _write_variants(graph, gate, options, steps)
        proof = dataclasses.replace(proof, variants=variants, gate_clips=gate.kinds)
    if labelled is not None and proof.passed:
        accuracy = _measure_accuracy(labelled, model, preprocessing, graph, options, steps, tell)
        proof = dataclasses.replace(proof, accuracy=accuracy)
    if options.web and proof.passed:
        write_json(folder / WEB, web_description(folder, checkpoint, options, golden))

    checkpoint = dataclasses.replace(checkpoint, notes=tuple(notes))
    write_json(
        folder / REPORT,
        export_report(
            folder,
            checkpoint,
            options,
            proof=proof,
            multiply_adds=multiply_adds,
            calibration=calibration,
            integer_products=products,
            seconds=steps.seconds,
        ),
    )
    write_text(folder / "README.md", _card(graph, checkpoint, options, proof))
    if not proof.passed:
        _mark_rejected(graph.parent)
    return ExportResult(
        folder=options.folder if proof.passed else _rejected(options.folder),
        passed=proof.passed,
        proof=proof,
        multiply_adds=multiply_adds,
        integer_products=products,
        files=_sizes(folder),
        notes=checkpoint.notes,
        seconds=steps.seconds,
    )


def _references(
    model: TimesformerForVideoClassification,
    preprocessing: Preprocessing,
    options: ExportOptions,
    steps: _Steps,
) -> tuple[Reference, Reference | None]:
    """Runs PyTorch on generated clips.

    Returns:
        PyTorch's outputs for clips of the model's own frame size; and PyTorch's outputs for a clip
        of another size where the graph will resize frames itself, else None.
    """
    config = model.config
    original = TracedModel(model, _graph_outputs(options))
    size = native_size(preprocessing, config)
    reference = compute_reference(
        original,
        preprocessing,
        golden_clips(0, max(BATCHES), config.num_frames, size),
        on_clip=lambda i, n: steps.announce(f"Running PyTorch on clip {i} of {n}"),
    )
    if options.input != "frames":
        return reference, None
    height, width = config.image_hw
    odd_size = (height + height // 3, 2 * width + 1)
    clips = golden_clips(0, 1, config.num_frames, odd_size)
    return reference, compute_reference(original, preprocessing, clips)


def _gate_reference(
    model: TimesformerForVideoClassification,
    preprocessing: Preprocessing,
    videos: tuple[Path, ...],
    options: ExportOptions,
    steps: _Steps,
) -> tuple[GateReference, dict[str, Any] | None]:
    """Runs PyTorch on the gate's clips, and prepares the model for int8 if there are videos.

    With calibration videos, SmoothQuant moves ranges from the model's activations into its
    weights. That changes none of the model's outputs.

    Returns:
        PyTorch's outputs for the gate's clips; and how the model was calibrated, None where it was
        not.
    """
    channels = ChannelPeaks(model)
    reference = gate_reference(
        TracedModel(model, _graph_outputs(options).for_the_gate()),
        _main_output(options),
        preprocessing,
        gate_clips(model.config.num_frames, native_size(preprocessing, model.config), videos),
        on_clip=lambda number: steps.announce(f"Running PyTorch on gate clip {number}"),
        calibrating=channels.watching,
    )
    if not videos:
        return reference, None
    smooth(model, channels)
    calibration = {
        "videos": reference.kinds[CALIBRATION],
        "method": "SmoothQuant",
        "strength": STRENGTH,
    }
    return reference, calibration


def _write_graph(
    folder: Path,
    model: TimesformerForVideoClassification,
    checkpoint: Checkpoint,
    golden: dict[str, Any],
    more_entries: Mapping[str, str],
    options: ExportOptions,
    steps: _Steps,
) -> Path:
    """Traces the model and writes the float32 graph with its metadata; returns its path."""
    with steps.step("trace", f"Tracing to ONNX (opset {options.operator_set})"):
        program = trace(
            _module_to_trace(model, Preprocessing.from_dict(checkpoint.preprocessing), options),
            model.config,
            input_name=options.input,
            output_names=_graph_outputs(options).names(model.config),
            opset=options.operator_set,
        )
    with steps.step("write", "Writing the files"):
        entries = metadata(
            config=checkpoint.config,
            preprocessing=checkpoint.preprocessing,
            task=options.task,
            input_name=options.input,
            target=options.target,
            source=checkpoint.source,
            golden=golden,
        )
        program.model.metadata_props.update(entries | dict(more_entries))
        path = folder / "onnx" / "model.onnx"
        with writing(path):
            path.parent.mkdir()
        save_graph(program.model, path)
    return path


def _module_to_trace(
    model: TimesformerForVideoClassification, preprocessing: Preprocessing, options: ExportOptions
) -> nn.Module:
    """The inference form; or the model itself, where hidden states or attentions are outputs."""
    outputs = _graph_outputs(options)
    frames_input = FramesInput(preprocessing) if options.input == "frames" else None
    if not outputs.only_the_task:
        return TracedModel(model, outputs, frames_input)
    return InferenceForm(
        model,
        options.task,
        frames_input,
        attention_operator=options.operator_set >= ATTENTION_OPSET,
        rollout=outputs.rollout,
    )


def _write_variants(
    graph: Path, gate: GateReference, options: ExportOptions, steps: _Steps
) -> tuple[tuple[VariantFidelity, ...], IntegerProducts | None]:
    """Writes and measures all variants but float32.

    The float32 graph, from which they are made, is removed where ``dtypes`` does not name it.
    """
    measured = []
    integer_products = None
    for variant in options.variants:
        if variant.dtype == "fp32":
            continue
        with steps.step(variant.name, f"Making and measuring {variant.name}"):
            path = graph.with_name(variant.file)
            clips = gate.inputs(options.input, mirrored=True)
            products = write_variant(
                graph, path, variant.dtype, variant.int8_target or "vnni", clips
            )
            integer_products = integer_products or products
            measured.append(
                check_variant(path, variant, options.input, _main_output(options), gate)
            )
    if "fp32" not in options.dtypes:
        for file in graph.parent.glob("model.onnx*"):
            file.unlink()
    return tuple(measured), integer_products


def _graph_outputs(options: ExportOptions) -> GraphOutputs:
    rollout = None
    if options.explain:
        residual = 0.5 if options.rollout_residual is None else options.rollout_residual
        rollout = Rollout(residual, options.rollout_heads or "mean")
    return GraphOutputs(
        options.task, options.output_hidden_states, options.output_attentions, rollout
    )


def _main_output(options: ExportOptions) -> str:
    """The name of the task's main output."""
    return "logits" if options.task == "video-classification" else "features"


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
