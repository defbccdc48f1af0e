"""ExportOptions: all options of an export, validated on construction.

This module does not import torch, so that the command refuses a wrong option at once.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, get_args

from timesformer_runtime.model.hub import is_hub_id

from timesformer_exporter.errors import InvalidOptionError

Task = Literal["video-classification", "feature-extraction"]
Input = Literal["pixel_values", "frames"]
Dtype = Literal["fp32", "int8", "fp16", "q4"]
Int8Target = Literal["vnni", "avx2"]
Weights = Literal["raw", "ema"]

OPSETS = range(18, 24)
DEFAULT_OPSET = OPSETS[-1]  # the first with the Attention operator, the fastest on a CPU
# The fastest where a browser runs models: on WebAssembly int8, on a GPU (WebGPU) fp16.
WEB_DTYPES: tuple[Dtype, ...] = ("int8", "fp16")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """The options of an export.

    Attributes:
        model: A Hub id, a local folder or a checkpoint file.
        output: The folder to write; None for ``./<model name>-onnx``.
        revision: The Hub revision.
        local_files_only: Never use the network.
        labels: A file with the labels of the classes, one a line or JSON.
        task: ``video-classification`` (logits) or ``feature-extraction`` (last_hidden_state and
            features).
        input: ``pixel_values`` (float32, preprocessed) or ``frames`` (uint8 RGB of any size). Left
            out: ``pixel_values``; with ``web``, ``frames``.
        num_frames: Frames in a clip; None for the checkpoint's own number.
        image_size: Height and width in pixels, or one number for both; None for the
            checkpoint's own.
        attention_heads: The number of heads, for checkpoints without a configuration; None for
            hidden size / 64, which is assumed for files of the authors' code and of mmaction2, and
            for hidden size 768.
        weights: The weights to take from a checkpoint that holds two sets: ``raw``, or ``ema``,
            their average over training steps; None for the set that the trainer saved as the model.
        dtypes: The precisions of the files to write: ``fp32``, ``int8``, ``fp16``, ``q4``, each at
            most once. Left out: ``fp32``; with ``web``, ``WEB_DTYPES``.
        calibration_videos: Videos, and folders of videos. The export prepares int8 and q4 for them,
            and compares the variants with PyTorch on them.
        int8_target: ``vnni`` (weights of 8 bits) or ``avx2`` (weights of 7 bits, whose products do
            not overflow on any processor); None means ``vnni``.
        gate: Reject variants in reduced precision that miss their thresholds.
        opset: The ONNX operator set, 18 to 23.
        output_hidden_states: Add the outputs ``hidden_states.{i}``.
        output_attentions: Add the outputs ``spatial_attentions.{i}`` and
            ``temporal_attentions.{i}`` (divided), ``spatial_attentions.{i}`` (space-only) or
            ``attentions.{i}`` (joint).
        atol: Absolute tolerance of the fidelity check, added to 1e-4 of PyTorch's largest value.
        force: Replace an earlier export.
        push_to_hub: The repository ``owner/name`` on the Hub to which an export that has passed its
            checks is uploaded; None for no upload.
        private: Make the repository of ``push_to_hub`` private if it is new.
        push_revision: The branch of that repository that gets the export; None for ``main``.
        web: Also write ``web.json``, which tells a JavaScript program what it cannot read from the
            graph: labels, frame sampling, the golden check, and which file is for which device.

    Raises:
        InvalidOptionError: An option has a value that is not allowed.
    """

    model: str | Path
    output: Path | None = None
    revision: str | None = None
    local_files_only: bool = False
    labels: Path | None = None
    task: Task = "video-classification"
    input: Input = None  # type: ignore[assignment]  # __post_init__ sets it
    num_frames: int | None = None
    image_size: int | tuple[int, int] | None = None
    attention_heads: int | None = None
    weights: Weights | None = None
    dtypes: tuple[Dtype, ...] = None  # type: ignore[assignment]  # __post_init__ sets it
    calibration_videos: tuple[Path, ...] = ()
    int8_target: Int8Target | None = None
    gate: bool = True
    opset: int = DEFAULT_OPSET
    output_hidden_states: bool = False
    output_attentions: bool = False
    atol: float = 1e-5
    force: bool = False
    push_to_hub: str | None = None
    private: bool = False
    push_revision: str | None = None
    web: bool = False

    def __post_init__(self) -> None:
        self._fill_in()
        if not isinstance(self.model, str | Path):
            raise InvalidOptionError(
                f"model is a {type(self.model).__name__}; give a Hub id, a folder or a checkpoint "
                "file"
            )
        if not str(self.model):
            raise InvalidOptionError("model is empty; give a Hub id, a folder or a checkpoint file")
        _check_choice("task", self.task, get_args(Task))
        _check_choice("input", self.input, get_args(Input))
        if self.weights is not None:
            _check_choice("weights", self.weights, get_args(Weights))
        if self.web and self.input != "frames":
            raise InvalidOptionError(
                f"`web` needs `input=frames`, not `input={self.input}`: preprocessing is in the "
                "graph there; leave `input` out"
            )
        self._check_dtypes()
        if self.opset not in OPSETS:
            raise InvalidOptionError(
                f"opset is {self.opset}; it must be from {OPSETS[0]} to {OPSETS[-1]}"
            )
        if not 0 <= self.atol < float("inf"):
            raise InvalidOptionError(f"atol is {self.atol}; it must be a number of at least 0")
        self._check_push()

    def _fill_in(self) -> None:
        """Sets the fields that were left out, and gives the others their types."""
        for name in ("output", "labels"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        if self.input is None:
            object.__setattr__(self, "input", "frames" if self.web else "pixel_values")
        if self.dtypes is None:
            object.__setattr__(self, "dtypes", WEB_DTYPES if self.web else ("fp32",))
        object.__setattr__(self, "dtypes", tuple(self.dtypes))
        object.__setattr__(
            self, "calibration_videos", tuple(Path(path) for path in self.calibration_videos)
        )

    def _check_dtypes(self) -> None:
        for dtype in self.dtypes:
            _check_choice("dtype", dtype, get_args(Dtype))
        for name, given in (
            ("`gate=False`", not self.gate),
            ("`calibration_videos`", bool(self.calibration_videos)),
        ):
            if given and self.dtypes == ("fp32",):
                raise InvalidOptionError(f"{name} is for int8, fp16 and q4; give one with `dtypes`")
        if self.int8_target is not None and "int8" not in self.dtypes:
            raise InvalidOptionError("`int8_target` is for int8; give it with `dtypes=int8`")
        if self.int8_target is not None:
            _check_choice("int8_target", self.int8_target, get_args(Int8Target))
        if not self.dtypes or len(set(self.dtypes)) < len(self.dtypes):
            raise InvalidOptionError(
                f"dtypes are {self.dtypes}; give at least one, and each only once"
            )

    def _check_push(self) -> None:
        if self.push_to_hub is None:
            for name in ("private", "push_revision"):
                if getattr(self, name):
                    raise InvalidOptionError(f"`{name}` is for an upload; give `push_to_hub` too")
        elif not is_hub_id(self.push_to_hub):
            raise InvalidOptionError(
                f"push_to_hub is {self.push_to_hub!r}; it must be a name on the Hub such as "
                "owner/timesformer-onnx: letters, digits, '-', '_' and '.', at most 96 in all"
            )
        elif self.local_files_only:
            raise InvalidOptionError(
                "`push_to_hub` needs the network, which `local_files_only` forbids; leave one out"
            )

    @property
    def folder(self) -> Path:
        """The folder of the exported model: ``output``, or ``./<model name>-onnx``."""
        if self.output is not None:
            return self.output
        path = Path(self.model)
        name = path.stem if path.is_file() else path.resolve().name if path.is_dir() else path.name
        return Path(f"{name}-onnx")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidOptionError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
