"""Writes an exported model's files into a folder, and compares them with PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.model.gate import VariantFidelity
from torch import nn

from timesformer_exporter.checkpoints import Checkpoint, build_model
from timesformer_exporter.folder import REPORT, to_json, write_json, write_text, writing
from timesformer_exporter.graph.calibration import readable_videos
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
    save_graph,
    trace,
)
from timesformer_exporter.model.attention_rollout import ROLLOUT, Rollout
from timesformer_exporter.model.inference_form import InferenceForm
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
from timesformer_exporter.steps import Steps
from timesformer_exporter.web import WEB, web_description

if TYPE_CHECKING:
    from timesformer_runtime.evaluate.datasets import Dataset

    from timesformer_exporter.proof.accuracy_table import Accuracy

_VIDEOS_A_TITLE = 50  # after so many labelled videos the progress is told


@dataclasses.dataclass(frozen=True)
class Written:
    """Facts about the written files, and their comparison with PyTorch.

    Attributes:
        proof: The numbers of the fidelity check, of the gate and of the labelled videos.
        multiply_adds: Multiply-adds for one clip, before and after the exact rewrites.
        integer_products: The matrix products that the int8 file computes in integers; None without
            an int8 file.
        notes: One sentence for each thing that was assumed about the checkpoint or left out.
    """

    proof: Proof
    multiply_adds: MultiplyAdds
    integer_products: IntegerProducts | None
    notes: tuple[str, ...]


class ModelWriter:
    """Writes all files of an exported model.

    Args:
        folder: The folder for the files, empty.
        checkpoint: The checkpoint; its tensors are freed once the model has copies of them.
        options: How to export.
        steps: Announces and measures the steps.
        tell: Gets each line that the user should read at once.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        options: ExportOptions,
        steps: Steps,
        tell: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._graph = folder / "onnx" / "model.onnx"
        self._checkpoint = checkpoint
        self._options = options
        self._steps = steps
        self._tell = tell
        self._outputs = _graph_outputs(options)
        self._preprocessing = Preprocessing.from_dict(checkpoint.preprocessing)
        self._notes = [*checkpoint.notes]
        self._model = build_model(checkpoint, options.task)
        checkpoint.state_dict.clear()

    def write(self, videos: tuple[Path, ...], labelled: Dataset | None) -> Written:
        """Writes and checks the graph, its variants and the files beside them.

        Args:
            videos: The calibration videos; those that do not decode are left out.
            labelled: Labelled videos on which to measure the accuracy; None to leave that out.
        """
        videos = self._readable(videos)
        with self._steps.step("pytorch"):
            reference, resized = self._references()
        gate, calibration = None, None
        if self._options.dtypes != ("fp32",):
            with self._steps.step("gate"):
                gate, calibration = self._gate_reference(videos)
        golden = self._write_graph(reference, calibration)
        write_json(self._folder / "config.json", self._checkpoint.config.to_dict())
        write_json(self._folder / "preprocessor_config.json", self._checkpoint.preprocessing)
        proof, products = self._prove(reference, resized, gate, labelled)
        if self._options.web and proof.passed:
            described = web_description(self._folder, self._checkpoint, self._options, golden)
            write_json(self._folder / WEB, described)
        written = Written(proof, self._multiply_adds(), products, tuple(self._notes))
        self._write_report(written, calibration)
        return written

    def _readable(self, videos: tuple[Path, ...]) -> tuple[Path, ...]:
        """Leaves out the calibration videos that do not decode, with a note."""
        if not videos:
            return ()
        with self._steps.step("videos", "Looking through the calibration videos"):
            readable = readable_videos(videos, self._model.config.num_frames, self._tell)
        if len(readable) < len(videos):
            skipped = len(videos) - len(readable)
            self._notes.append(f"{skipped} of {len(videos)} calibration videos did not decode.")
        return readable

    def _multiply_adds(self) -> MultiplyAdds:
        return count_multiply_adds(
            self._checkpoint.config,
            self._options.task,
            rewritten=self._outputs.only_the_task,
            rollout=self._outputs.rollout,
        )

    def _references(self) -> tuple[Reference, Reference | None]:
        """Runs PyTorch on generated clips.

        Returns:
            All of PyTorch's outputs for clips of the model's own frame size; and for a clip of
            another size where the graph will resize frames itself, else None.
        """
        config = self._model.config
        original = TracedModel(self._model, self._outputs)
        size = native_size(self._preprocessing, config)
        reference = compute_reference(
            original,
            self._preprocessing,
            golden_clips(0, max(BATCHES), config.num_frames, size),
            on_clip=lambda i, n: self._steps.announce(f"Running PyTorch on clip {i} of {n}"),
        )
        if reference.batches != BATCHES:
            self._notes.append(
                f"The outputs of {max(BATCHES)} clips would take over 2 GB: they were compared at "
                f"batch {' and '.join(map(str, reference.batches))} only."
            )
        if self._options.input != "frames":
            return reference, None
        height, width = config.image_hw
        odd_size = (height + height // 3, 2 * width + 1)
        clips = golden_clips(0, 1, config.num_frames, odd_size)
        return reference, compute_reference(original, self._preprocessing, clips)

    def _gate_reference(
        self, videos: tuple[Path, ...]
    ) -> tuple[GateReference, dict[str, Any] | None]:
        """Runs PyTorch on the gate's clips, and prepares the model for int8 if there are videos.

        With calibration videos, SmoothQuant moves ranges from the model's activations into its
        weights. That changes none of the model's outputs.

        Returns:
            PyTorch's main output for the gate's clips; and how the model was calibrated, None where
            it was not.
        """
        size = native_size(self._preprocessing, self._model.config)
        channels = ChannelPeaks(self._model)
        reference = gate_reference(
            TracedModel(self._model, self._outputs.for_the_gate()),
            self._outputs.main,
            self._preprocessing,
            gate_clips(self._model.config.num_frames, size, videos),
            on_clip=lambda number: self._steps.announce(f"Running PyTorch on gate clip {number}"),
            calibrating=channels.watching,
        )
        if not videos:
            return reference, None
        smooth(self._model, channels)
        calibration = {
            "videos": reference.kinds[CALIBRATION],
            "method": "SmoothQuant",
            "strength": STRENGTH,
        }
        return reference, calibration

    def _write_graph(
        self, reference: Reference, calibration: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Traces the model, and writes the float32 graph with its metadata.

        Returns:
            The golden check in the metadata.
        """
        options = self._options
        with self._steps.step("trace", f"Tracing to ONNX (opset {options.operator_set})"):
            program = trace(
                self._module_to_trace(),
                self._model.config,
                input_name=options.input,
                output_names=self._outputs.names(self._model.config),
                opset=options.operator_set,
            )
        shape = reference.frames[0].shape
        main = self._outputs.main
        golden = golden_check(shape, main, reference.outputs[main][0])
        with self._steps.step("write", "Writing the files"):
            entries = metadata(
                config=self._checkpoint.config,
                preprocessing=self._checkpoint.preprocessing,
                task=options.task,
                input_name=options.input,
                target=options.target,
                source=self._checkpoint.source,
                golden=golden,
            )
            if calibration is not None:
                entries["calibration"] = to_json(calibration)
            if options.explain:
                rolled_out = reference.outputs[ROLLOUT][0].ravel()
                entries["golden_rollout"] = to_json(golden_check(shape, ROLLOUT, rolled_out))
            program.model.metadata_props.update(entries)
            with writing(self._graph):
                self._graph.parent.mkdir()
            save_graph(program.model, self._graph)
        return golden

    def _module_to_trace(self) -> nn.Module:
        """The inference form; the model itself where hidden states or attentions are outputs."""
        frames_input = FramesInput(self._preprocessing) if self._options.input == "frames" else None
        if not self._outputs.only_the_task:
            return TracedModel(self._model, self._outputs, frames_input)
        return InferenceForm(
            self._model,
            self._options.task,
            frames_input,
            attention_operator=self._options.operator_set >= ATTENTION_OPSET,
            rollout=self._outputs.rollout,
        )

    def _prove(
        self,
        reference: Reference,
        resized: Reference | None,
        gate: GateReference | None,
        labelled: Dataset | None,
    ) -> tuple[Proof, IntegerProducts | None]:
        """Checks the graph; where it passes, makes the variants from it, and checks these."""
        options = self._options
        with self._steps.step("check", "Checking the file against PyTorch with ONNX Runtime"):
            fidelity = check_graph(self._graph, options.input, reference, resized, options.atol)
        proof, products = Proof(fidelity, gated=options.gate), None
        if fidelity.passed and gate is not None:
            variants, products = self._write_variants(gate)
            proof = dataclasses.replace(proof, variants=variants, gate_clips=gate.kinds)
        if labelled is not None and proof.passed:
            proof = dataclasses.replace(proof, accuracy=self._measure_accuracy(labelled))
        return proof, products

    def _write_variants(
        self, gate: GateReference
    ) -> tuple[tuple[VariantFidelity, ...], IntegerProducts | None]:
        """Writes and measures all variants but float32.

        The float32 graph, from which they are made, is removed where ``dtypes`` does not name it.
        """
        measured = []
        integer_products = None
        for variant in self._options.variants:
            if variant.dtype == "fp32":
                continue
            with self._steps.step(variant.name, f"Making and measuring {variant.name}"):
                path = self._graph.with_name(variant.file)
                clips = gate.inputs(self._options.input, mirrored=True)
                products = write_variant(
                    self._graph, path, variant.dtype, variant.int8_target or "vnni", clips
                )
                integer_products = integer_products or products
                measured.append(
                    check_variant(path, variant, self._options.input, self._outputs.main, gate)
                )
        if "fp32" not in self._options.dtypes:
            for file in self._graph.parent.glob("model.onnx*"):
                file.unlink()
        return tuple(measured), integer_products

    def _measure_accuracy(self, labelled: Dataset) -> Accuracy:
        """Runs PyTorch and all variants on labelled videos."""
        # The import is here because it needs the extra ``evaluate``.
        from timesformer_exporter.proof.accuracy import measure_accuracy  # noqa: PLC0415

        def on_video(done: int, count: int, line: Mapping[str, Any]) -> None:
            if "error" in line:
                self._tell(f"Not evaluated: {line['path']}: {line['error']}")
            if done == count or done % _VIDEOS_A_TITLE == 0:
                self._steps.announce(f"Evaluated {done} of {count} labelled videos")

        files = {variant: self._graph.with_name(variant.file) for variant in self._options.variants}
        title = f"Evaluating on {len(labelled.samples)} labelled videos"
        with self._steps.step("evaluate", title):
            return measure_accuracy(
                labelled,
                self._model,
                self._preprocessing,
                files,
                self._options.max_accuracy_loss,
                on_video,
            )

    def _write_report(self, written: Written, calibration: Mapping[str, Any] | None) -> None:
        """Writes the report and the model card."""
        checkpoint = dataclasses.replace(self._checkpoint, notes=written.notes)
        report = export_report(
            self._folder,
            checkpoint,
            self._options,
            proof=written.proof,
            multiply_adds=written.multiply_adds,
            calibration=calibration,
            integer_products=written.integer_products,
            seconds=self._steps.seconds,
        )
        write_json(self._folder / REPORT, report)
        operators = {
            variant.name: own_operators(self._graph.with_name(variant.file))
            for variant in self._options.variants
            if written.proof.variants and variant.dtype != "fp32"
        }
        card = model_card(
            self._options,
            checkpoint.config,
            source_dict(checkpoint.source),
            written.proof,
            operators,
            checkpoint.notes,
        )
        write_text(self._folder / "README.md", card)


def _graph_outputs(options: ExportOptions) -> GraphOutputs:
    rollout = None
    if options.explain:
        residual = 0.5 if options.rollout_residual is None else options.rollout_residual
        rollout = Rollout(residual, options.rollout_heads or "mean")
    return GraphOutputs(
        options.task, options.output_hidden_states, options.output_attentions, rollout
    )
