"""The files of one export: graph, variants, configuration, report and card."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timesformer_runtime.preprocess import Preprocessing
from torch import nn

from timesformer_exporter.bundle_writer import REPORT, write_json, write_text
from timesformer_exporter.calibration import readable_videos
from timesformer_exporter.checkpoints import Checkpoint, build_model
from timesformer_exporter.checkpoints.files import sha256
from timesformer_exporter.checks import Proof, check_graph, check_variant
from timesformer_exporter.fidelity import BATCHES
from timesformer_exporter.frames_input import FramesInput
from timesformer_exporter.gate_clips import (
    CALIBRATION,
    GateReference,
    gate_clips,
    gate_reference,
)
from timesformer_exporter.inference_form import InferenceForm
from timesformer_exporter.integer_products import IntegerProducts
from timesformer_exporter.metadata import golden_check, made_with, metadata, source_dict
from timesformer_exporter.model_card import model_card
from timesformer_exporter.multiply_adds import count_multiply_adds
from timesformer_exporter.options import ExportOptions
from timesformer_exporter.quantize import own_operators, write_variant
from timesformer_exporter.reference import Reference, compute_reference, golden_clips
from timesformer_exporter.smoothing import STRENGTH, ChannelPeaks, smooth
from timesformer_exporter.trace import ATTENTION_OPSET, GraphOutputs, TracedModel, save_graph, trace

# Where files lie on this machine is nobody else's business; the source is reported by itself.
_NOT_REPORTED = (
    "model",
    "output",
    "revision",
    "local_files_only",
    "labels",
    "calibration_videos",
    "force",
)


class Steps:
    """Announces the steps of an export, keeps the time that each took, and tells what is lost."""

    def __init__(self, announce: Callable[[str], None], tell: Callable[[str], None]) -> None:
        self.announce = announce
        self.tell = tell
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def ended(self, step: str) -> None:
        """Notes how long it is since the step before ended."""
        now = time.perf_counter()
        self.seconds[step] = round(now - self._started, 3)
        self._started = now


class Bundle:
    """The files of one export, on their way.

    Attributes:
        work: Multiply-adds for one clip, before and after the exact rewrites.
        notes: What was assumed, and what was left out.
        integer_products: What the int8 file computes in integers; None without one.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        options: ExportOptions,
        steps: Steps,
        videos: tuple[Path, ...],
    ) -> None:
        self.folder = folder
        self.checkpoint = checkpoint
        self.options = options
        self.steps = steps
        self.model = build_model(checkpoint, options.task)
        self.preprocessing = Preprocessing.from_dict(checkpoint.preprocessing)
        self.notes = checkpoint.notes
        self.answer = "logits" if options.task == "video-classification" else "features"
        self.work = count_multiply_adds(
            checkpoint.config, options.task, rewritten=options.graph_outputs.only_the_task
        )
        self.videos = videos
        self.calibration: dict[str, Any] | None = None
        self.integer_products: IntegerProducts | None = None

    def write(self) -> Proof:
        """Writes all files and returns how the check went."""
        if self.videos:
            self._check_videos()
        reference, resized = self._references()
        gate = None if self.options.dtypes == ("fp32",) else self._gate_reference()
        graph = self._write_graph(reference)
        write_json(self.folder / "config.json", self.checkpoint.config.to_dict())
        write_json(self.folder / "preprocessor_config.json", self.checkpoint.preprocessing)
        self.steps.announce("Checking the file against PyTorch with ONNX Runtime")
        fidelity = check_graph(graph, self.options.input, reference, resized, self.options.atol)
        self.steps.ended("check")
        proof = Proof(fidelity, gated=self.options.gate)
        if fidelity.passed and gate is not None:
            proof = self._with_variants(proof, graph, gate)
        write_json(self.folder / REPORT, self._report(proof))
        card = model_card(
            self.options,
            self.checkpoint.config,
            source_dict(self.checkpoint.source),
            proof,
            {v.dtype: own_operators(_variant_of(graph, v.dtype)) for v in proof.variants},
            self.notes,
        )
        write_text(self.folder / "README.md", card)
        return proof

    def _check_videos(self) -> None:
        self.steps.announce("Looking through the calibration videos")
        found, frames = self.videos, self.checkpoint.config.num_frames
        self.videos = readable_videos(found, frames, self.steps.tell)
        skipped = len(found) - len(self.videos)
        if skipped:
            self.notes += (f"{skipped} of {len(found)} calibration videos did not decode.",)
        self.steps.ended("videos")

    def _references(self) -> tuple[Reference, Reference | None]:
        """PyTorch's outputs for clips of the model's own size, and of another if that counts."""
        config = self.checkpoint.config
        original = TracedModel(self.model, self.options.graph_outputs)
        reference = compute_reference(
            original,
            self.preprocessing,
            golden_clips(0, max(BATCHES), config.num_frames, self._native_size),
            on_clip=lambda i, n: self.steps.announce(f"Running PyTorch on clip {i} of {n}"),
        )
        resized = None
        if self.options.input == "frames":
            height, width = config.image_hw
            odd_size = (height + height // 3, 2 * width + 1)
            clips = golden_clips(0, 1, config.num_frames, odd_size)
            resized = compute_reference(original, self.preprocessing, clips)
        self.steps.ended("pytorch")
        if reference.batches != BATCHES:
            self.notes += (
                f"The outputs of {max(BATCHES)} clips would take over 2 GB: they were compared at "
                f"batch {' and '.join(map(str, reference.batches))} only.",
            )
        return reference, resized

    @property
    def _native_size(self) -> tuple[int, int]:
        """The frame size that the preprocessing leaves as it is before it crops."""
        if not self.preprocessing.do_resize:
            return self.checkpoint.config.image_hw
        size = self.preprocessing.size
        return (size, size) if isinstance(size, int) else size

    def _write_graph(self, reference: Reference) -> Path:
        self.steps.announce(f"Tracing to ONNX (opset {self.options.opset})")
        config, outputs = self.checkpoint.config, self.options.graph_outputs
        program = trace(
            self._graph_module(),
            config,
            input_name=self.options.input,
            output_names=outputs.names(config),
            opset=self.options.opset,
        )
        self.steps.ended("trace")
        self.steps.announce("Writing the files")
        values = reference.outputs[self.answer][0]
        entries = metadata(
            config=config,
            preprocessing=self.checkpoint.preprocessing,
            task=self.options.task,
            input_name=self.options.input,
            source=self.checkpoint.source,
            golden=golden_check(reference.frames[0].shape, self.answer, values),
        )
        if self.calibration is not None:
            entries["calibration"] = json.dumps(self.calibration)
        program.model.metadata_props.update(entries)
        path = self.folder / "onnx" / "model.onnx"
        path.parent.mkdir()
        save_graph(program.model, path)
        self.steps.ended("write")
        return path

    def _graph_module(self) -> nn.Module:
        """What is traced: the inference form, or the model itself where its insides are wanted."""
        outputs = self.options.graph_outputs
        frames_input = FramesInput(self.preprocessing) if self.options.input == "frames" else None
        if outputs.only_the_task:
            return InferenceForm(
                self.model,
                outputs.task,
                frames_input,
                attention_operator=self.options.opset >= ATTENTION_OPSET,
            )
        return TracedModel(self.model, outputs, frames_input)

    def _with_variants(self, proof: Proof, graph: Path, reference: GateReference) -> Proof:
        """Writes and measures what was asked for beside float32; removes that if it was not."""
        variants = []
        for dtype in self.options.dtypes:
            if dtype == "fp32":
                continue
            self.steps.announce(f"Making and measuring {dtype}")
            path = _variant_of(graph, dtype)
            target = self.options.int8_target or "vnni"
            clips = reference.inputs(self.options.input, mirrored=True)
            products = write_variant(graph, path, dtype, target, clips)
            self.integer_products = self.integer_products or products
            variants.append(check_variant(path, dtype, self.options.input, self.answer, reference))
            self.steps.ended(dtype)
        if "fp32" not in self.options.dtypes:
            for file in graph.parent.glob("model.onnx*"):
                file.unlink()
        return dataclasses.replace(proof, variants=tuple(variants), gate_clips=reference.kinds)

    def _gate_reference(self) -> GateReference:
        """PyTorch's answers to the gate's clips; calibration videos also prepare the model."""
        channels = ChannelPeaks(self.model)
        reference = gate_reference(
            TracedModel(self.model, GraphOutputs(self.options.task)),
            self.answer,
            self.preprocessing,
            gate_clips(self.checkpoint.config.num_frames, self._native_size, self.videos),
            on_clip=lambda number: self.steps.announce(f"Running PyTorch on gate clip {number}"),
            calibrating=channels.watching,
        )
        if self.videos:
            smooth(self.model, channels)
            self.calibration = {
                "videos": reference.kinds[CALIBRATION],
                "method": "SmoothQuant",
                "strength": STRENGTH,
            }
        self.steps.ended("gate")
        return reference

    def _report(self, proof: Proof) -> dict[str, Any]:
        """The contents of export_report.json."""
        files = {
            f"onnx/{file.name}": {"bytes": file.stat().st_size, "sha256": sha256(file)}
            for file in sorted((self.folder / "onnx").iterdir())
        }
        return {
            "verdict": "passed" if proof.passed else "failed",
            "source": source_dict(self.checkpoint.source),
            "options": {
                key: value
                for key, value in dataclasses.asdict(self.options).items()
                if key not in _NOT_REPORTED
            },
            "notes": list(self.notes),
            "files": files,
            **proof.to_dict(),
            "multiply_adds": dataclasses.asdict(self.work),
            "calibration": self.calibration,
            "integer_products": (
                None if self.integer_products is None else self.integer_products.to_dict()
            ),
            "made_with": made_with(),
            "threads": torch.get_num_threads(),
            "seconds": dict(self.steps.seconds),
        }


def _variant_of(graph: Path, dtype: str) -> Path:
    return graph.with_name(f"model_{dtype}.onnx")
