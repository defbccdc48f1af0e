"""Traces a PyTorch TimeSformer into an ONNX graph with a dynamic batch axis, with torch.onnx."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx_ir
import torch
from torch import Tensor, nn

from timesformer_exporter.folder import writing
from timesformer_exporter.graph.frames_input import FramesInput
from timesformer_exporter.model.attention_rollout import ROLLOUT, Rollout, roll_out_attentions
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.timesformer import (
    TimesformerForVideoClassification,
    TimesformerOutput,
)
from timesformer_exporter.options import DEFAULT_OPSET

# The first opset with the standard Attention operator, ONNX Runtime's fastest attention on a CPU.
ATTENTION_OPSET = 23

_ATTENTIONS = {
    "divided_space_time": ("spatial_attentions", "temporal_attentions"),
    "joint_space_time": ("attentions",),
    "space_only": ("spatial_attentions",),
}
_LARGEST_SINGLE_FILE = 1_900_000_000  # bytes of weights; protobuf's limit is 2 GiB
_TRACED_BATCH = 2  # torch would take a batch of 1 for a constant


@dataclass(frozen=True)
class GraphOutputs:
    """The choice of a graph's outputs.

    Attributes:
        task: ``video-classification`` (logits) or ``feature-extraction`` (last_hidden_state,
            features).
        hidden_states: Add the hidden states of all layers.
        attentions: Add the attention probabilities of all layers.
        rollout: Add attention rollout, with these choices; None to leave it out.
    """

    task: str = "video-classification"
    hidden_states: bool = False
    attentions: bool = False
    rollout: Rollout | None = None

    @property
    def only_the_task(self) -> bool:
        """True without the hidden states and attentions of all layers."""
        return not (self.hidden_states or self.attentions)

    @property
    def main(self) -> str:
        """The name of the task's main output."""
        return "logits" if self.task == "video-classification" else "features"

    def for_the_gate(self) -> GraphOutputs:
        """The outputs that the gate compares: those of the task, and rollout."""
        return GraphOutputs(self.task, rollout=self.rollout)

    def names(self, config: TimesformerConfig) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        layers = config.num_hidden_layers
        classifies = self.task == "video-classification"
        names = ["logits"] if classifies else ["last_hidden_state", "features"]
        if self.hidden_states:
            names += [f"hidden_states.{i}" for i in range(layers + 1)]
        if self.attentions:
            kinds = _ATTENTIONS[config.attention_type]
            names += [f"{kind}.{i}" for kind in kinds for i in range(layers)]
        if self.rollout is not None:
            names.append(ROLLOUT)
        return tuple(names)


class TracedModel(nn.Module):
    """The model without rewrites, with one input tensor and a flat tuple of named outputs.

    Attributes:
        output_names: The names of the outputs, in order.
    """

    def __init__(
        self,
        model: TimesformerForVideoClassification,
        outputs: GraphOutputs,
        frames_input: FramesInput | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs
        self.frames_input = frames_input
        self.output_names = outputs.names(model.config)
        self.eval()

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in the order of ``output_names``."""
        if self.frames_input is not None:
            clips = self.frames_input(clips)
        rollout = self.outputs.rollout
        output: TimesformerOutput = self.model.timesformer(
            clips, self.outputs.hidden_states, self.outputs.attentions or rollout is not None
        )
        features = output.last_hidden_state[:, 0]
        if self.outputs.task == "video-classification":
            outputs: tuple[Tensor, ...] = (self.model.classifier(features),)
        else:
            outputs = (output.last_hidden_state, features)
        outputs += output.hidden_states
        if self.outputs.attentions:
            outputs += output.spatial_attentions + output.temporal_attentions + output.attentions
        if rollout is not None:
            shares = roll_out_attentions(output, rollout, clips)
            outputs += (torch.unflatten(shares, 2, self.model.config.grid),)
        return outputs


def trace(
    module: nn.Module,
    config: TimesformerConfig,
    *,
    input_name: str = "pixel_values",
    output_names: tuple[str, ...] = ("logits",),
    opset: int = DEFAULT_OPSET,
) -> torch.onnx.ONNXProgram:
    """Traces a module into ONNX; the batch axis is dynamic, the number of frames static.

    Args:
        module: A module that takes one tensor and returns a tuple of tensors.
        config: The model's configuration, for the shape of the input.
        input_name: ``pixel_values`` (float32 [B, T, C, h, w]) or ``frames`` (uint8
            [B, T, H, W, 3]).
        output_names: The names of the outputs, in order.
        opset: The ONNX operator set, 18 to 23.
    """
    example, axes = _example(config, input_name)
    with _quiet(), tempfile.TemporaryDirectory() as artifacts, torch.no_grad():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=(axes,),
            input_names=[input_name],
            output_names=list(output_names),
            opset_version=opset,
            verbose=False,
            artifacts_dir=artifacts,  # for the report of a failed export; else the current folder
        )
    assert program is not None  # noqa: S101 (None is only returned by the legacy exporter)
    _drop_stack_traces(program)
    return program


def fits_into_one_file(size: int) -> bool:
    """True where a graph whose weights take ``size`` bytes can be a single protobuf message."""
    return size <= _LARGEST_SINGLE_FILE


def save_graph(graph: onnx_ir.Model, path: Path) -> None:
    """Writes a graph into one file; weights beyond protobuf's 2 GiB go into a file beside it.

    Raises:
        OutputWriteError: A file cannot be written.
    """
    size = sum(
        value.const_value.nbytes
        for value in graph.graph.initializers.values()
        if value.const_value is not None
    )
    external = None if fits_into_one_file(size) else f"{path.name}.data"
    with writing(path):
        onnx_ir.save(graph, path, external_data=external)


def _drop_stack_traces(program: torch.onnx.ONNXProgram) -> None:
    """Drops the stack traces that torch keeps at every node.

    Stack traces are half of a small file, and they contain paths of this machine.
    """
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    for value in program.model.graph.initializers.values():
        value.metadata_props.clear()


def _example(
    config: TimesformerConfig, input_name: str
) -> tuple[Tensor, dict[int, torch.export.Dim]]:
    height, width = config.image_hw
    axes = {0: torch.export.Dim("batch")}
    if input_name == "pixel_values":
        shape = (_TRACED_BATCH, config.num_frames, config.num_channels, height, width)
        return torch.zeros(shape), axes
    axes |= {2: torch.export.Dim("height", min=1), 3: torch.export.Dim("width", min=1)}
    # Sides that differ from each other and from the model's, so that torch takes none of them for a
    # constant.
    shape = (_TRACED_BATCH, config.num_frames, height + 10, width + 22, 3)
    return torch.zeros(shape, dtype=torch.uint8), axes


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch's notes about itself (no torchvision, deprecations) off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
