"""ExportOptions: what to export, and how; validated when it is made."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from timesformer_exporter.checkpoints import TASKS
from timesformer_exporter.errors import InvalidOptionError
from timesformer_exporter.quantize import DTYPES, INT8_TARGETS
from timesformer_exporter.trace import DEFAULT_OPSET, INPUTS, OPSETS, GraphOutputs


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What to export, and how.

    Attributes:
        model: A Hub id, a local folder or a checkpoint file.
        output: The folder to write; None for ``./<model name>-onnx``.
        revision: The Hub revision.
        local_files_only: Never use the network.
        labels: A file with the labels, one a line or JSON.
        task: ``video-classification`` (logits) or ``feature-extraction`` (last_hidden_state and
            features).
        input: ``pixel_values`` (float32, preprocessed) or ``frames`` (uint8 RGB of any size).
        num_frames: Frames in a clip; None for the checkpoint's own number.
        image_size: Height and width in pixels, or one number for both; None for the
            checkpoint's own.
        attention_heads: For checkpoints without a configuration; None for hidden size / 64.
        dtypes: Which files: ``fp32``, ``int8``, ``fp16``, ``q4``, each at most once.
        calibration_videos: Videos, and folders of videos, for which int8 and q4 are prepared and
            on which the variants are compared with PyTorch.
        int8_target: ``vnni`` (weights of 8 bits) or ``avx2`` (of 7 bits, which give the same
            result on any processor without help from the runtime); None is ``vnni``.
        gate: Whether variants in reduced precision must reach their thresholds.
        opset: The ONNX operator set, 18 to 23.
        output_hidden_states: Add the outputs ``hidden_states.{i}``.
        output_attentions: Add ``spatial_attentions.{i}`` and ``temporal_attentions.{i}``
            (divided), ``spatial_attentions.{i}`` (space-only) or ``attentions.{i}`` (joint).
        atol: Absolute tolerance of the check, on top of 1e-4 of PyTorch's largest value.
        force: Replace an earlier export.

    Raises:
        InvalidOptionError: An option has a value that is not allowed.
    """

    model: str
    output: Path | None = None
    revision: str | None = None
    local_files_only: bool = False
    labels: Path | None = None
    task: str = "video-classification"
    input: str = "pixel_values"
    num_frames: int | None = None
    image_size: int | tuple[int, int] | None = None
    attention_heads: int | None = None
    dtypes: tuple[str, ...] = ("fp32",)
    calibration_videos: tuple[Path, ...] = ()
    int8_target: str | None = None
    gate: bool = True
    opset: int = DEFAULT_OPSET
    output_hidden_states: bool = False
    output_attentions: bool = False
    atol: float = 1e-5
    force: bool = False

    def __post_init__(self) -> None:
        for name in ("output", "labels"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        object.__setattr__(self, "dtypes", tuple(self.dtypes))
        object.__setattr__(
            self, "calibration_videos", tuple(Path(path) for path in self.calibration_videos)
        )
        if not self.model:
            raise InvalidOptionError("model is empty; give a Hub id, a folder or a checkpoint file")
        if self.task not in TASKS:
            raise InvalidOptionError(f"task is {self.task!r}; it must be one of {', '.join(TASKS)}")
        if self.input not in INPUTS:
            raise InvalidOptionError(
                f"input is {self.input!r}; it must be one of {', '.join(INPUTS)}"
            )
        self._check_dtypes()
        if self.opset not in OPSETS:
            raise InvalidOptionError(
                f"opset is {self.opset}; it must be from {OPSETS[0]} to {OPSETS[-1]}"
            )
        if not 0 <= self.atol < float("inf"):
            raise InvalidOptionError(f"atol is {self.atol}; it must be a number of at least 0")

    def _check_dtypes(self) -> None:
        for dtype in self.dtypes:
            if dtype not in DTYPES:
                raise InvalidOptionError(
                    f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}"
                )
        for name, given in (
            ("--no-gate", not self.gate),
            ("--calibration-videos", bool(self.calibration_videos)),
        ):
            if given and self.dtypes == ("fp32",):
                raise InvalidOptionError(f"{name} is for int8, fp16 and q4; give one with --dtype")
        if self.int8_target is not None and "int8" not in self.dtypes:
            raise InvalidOptionError("--int8-target is for int8; give it with --dtype int8")
        if self.int8_target not in (None, *INT8_TARGETS):
            raise InvalidOptionError(
                f"int8_target is {self.int8_target!r}; it must be one of {', '.join(INT8_TARGETS)}"
            )
        if not self.dtypes or len(set(self.dtypes)) < len(self.dtypes):
            raise InvalidOptionError(
                f"dtypes are {self.dtypes}; give at least one, and each only once"
            )

    @property
    def graph_outputs(self) -> GraphOutputs:
        """Which outputs the graph gets."""
        return GraphOutputs(self.task, self.output_hidden_states, self.output_attentions)

    @property
    def folder(self) -> Path:
        """Where the bundle goes."""
        if self.output is not None:
            return self.output
        path = Path(self.model)
        name = path.stem if path.is_file() else path.resolve().name if path.is_dir() else path.name
        return Path(f"{name}-onnx")
