"""ExportOptions: all options of an export, validated on construction.

This module does not import torch, so that the command refuses a wrong option at once.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from timesformer_runtime.model.hub import is_hub_id
from timesformer_runtime.source_names import shown

from timesformer_exporter.errors import InvalidOptionError

Task = Literal["video-classification", "feature-extraction"]
Input = Literal["pixel_values", "frames"]
Dtype = Literal["fp32", "int8", "fp16", "q4"]
Int8Target = Literal["vnni", "avx2"]
Weights = Literal["raw", "ema"]
Target = Literal["onnxruntime", "portable"]
RolloutHeads = Literal["mean", "max", "min"]

_AVX2_FILE = "int8_avx2"  # beside a file for VNNI

OPSETS = range(18, 24)
DEFAULT_OPSET = OPSETS[-1]  # the first with the Attention operator, the fastest on a CPU
# Other devices than the CPU run Attention in their newest versions only, and with limits.
PORTABLE_OPSETS = OPSETS[:-1]
DEFAULT_PORTABLE_OPSET = 20  # the first with Gelu, and old enough for most providers
# The fastest where a browser runs models: on WebAssembly int8, on a GPU (WebGPU) fp16.
WEB_DTYPES: tuple[Dtype, ...] = ("int8", "fp16")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A variant to write, as one ``.onnx`` file.

    Attributes:
        name: The variant's name in tables and in its file's name.
        dtype: Its precision.
        int8_target: For int8, the processors that the file is for; None for other dtypes.
    """

    name: str
    dtype: Dtype
    int8_target: Int8Target | None = None

    @property
    def file(self) -> str:
        """The name of the file."""
        return "model.onnx" if self.dtype == "fp32" else f"model_{self.name}.onnx"


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
            most once. Left out: ``fp32``; with ``web``, ``int8`` and ``fp16``.
        calibration_videos: Videos, and folders of videos. The export prepares int8 and q4 for them,
            and compares the variants with PyTorch on them.
        int8_target: ``vnni`` (weights of 8 bits) or ``avx2`` (weights of 7 bits, whose products do
            not overflow on any processor); None means ``vnni``. Both in a sequence write two files,
            of which the runtime takes the one for its processor.
        gate: Reject variants in reduced precision that miss their thresholds.
        target: ``onnxruntime`` for the operators that are the fastest on ONNX Runtime's CPU
            provider; ``portable`` for older standard operators, so that other execution providers
            take the whole graph.
        opset: The ONNX operator set, from 18 to 23 (``portable``: to 22); None for 23
            (``portable``: 20).
        output_hidden_states: Add the outputs ``hidden_states.{i}``.
        output_attentions: Add the outputs ``spatial_attentions.{i}`` and
            ``temporal_attentions.{i}`` (divided), ``spatial_attentions.{i}`` (space-only) or
            ``attentions.{i}`` (joint).
        explain: Add the output ``attention_rollout``: how much of each patch reaches the answer.
        rollout_residual: For ``explain``, the weight of the residual connection beside each
            attention, from 0 to below 1; None for 0.5.
        rollout_heads: For ``explain``, what makes one matrix of those of all heads: ``mean``,
            ``max`` or ``min``; None for ``mean``.
        atol: Absolute tolerance of the fidelity check, added to 1e-4 of PyTorch's largest value.
        force: Replace an earlier export.
        push_to_hub: The repository ``owner/name`` on the Hub to which an export that has passed its
            checks is uploaded; None for no upload.
        private: Make the repository of ``push_to_hub`` private if it is new.
        push_revision: The branch of that repository that gets the export; None for ``main``.
        evaluate: Labelled videos, in any form of ``timesformer evaluate``: the export measures the
            accuracy of PyTorch and of every variant on them.
        evaluate_root: The folder of the videos of a list in ``evaluate``.
        max_accuracy_loss: By how many points of accuracy a variant may be worse than PyTorch on
            them; None allows any loss.
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
    int8_target: Int8Target | Sequence[Int8Target] | None = None
    gate: bool = True
    target: Target = "onnxruntime"
    opset: int | None = None
    output_hidden_states: bool = False
    output_attentions: bool = False
    explain: bool = False
    rollout_residual: float | None = None
    rollout_heads: RolloutHeads | None = None
    atol: float = 1e-5
    force: bool = False
    push_to_hub: str | None = None
    private: bool = False
    push_revision: str | None = None
    evaluate: Path | None = None
    evaluate_root: Path | None = None
    max_accuracy_loss: float | None = None
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
        check_choice("task", self.task, get_args(Task))
        check_choice("input", self.input, get_args(Input))
        if self.weights is not None:
            check_choice("weights", self.weights, get_args(Weights))
        if self.web and self.input != "frames":
            raise InvalidOptionError(
                f"`web` needs `input=frames`, not `input={self.input}`: preprocessing is in the "
                "graph there; leave `input` out"
            )
        self._check_dtypes()
        if self.opset is not None and self.opset not in OPSETS:
            raise InvalidOptionError(
                f"`opset` is {self.opset}; it must be from {OPSETS[0]} to {OPSETS[-1]}"
            )
        self._check_target()
        self._check_rollout()
        if not 0 <= self.atol < float("inf"):
            raise InvalidOptionError(f"`atol` is {self.atol}; it must be a number of at least 0")
        self._check_push()
        self._check_evaluation()

    def _fill_in(self) -> None:
        """Sets the fields that were left out, and gives the others their types."""
        for name in ("dtypes", "calibration_videos"):
            if isinstance(given := getattr(self, name), str | Path):
                raise InvalidOptionError(
                    f"`{name}` is {str(given)!r}; give a tuple, such as ({str(given)!r},)"
                )
        for name in ("output", "labels", "evaluate", "evaluate_root"):
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
            check_choice("dtypes", dtype, get_args(Dtype))
        for name, given in (
            ("`gate=False`", not self.gate),
            ("`calibration_videos`", bool(self.calibration_videos)),
        ):
            if given and self.dtypes == ("fp32",):
                raise InvalidOptionError(f"{name} is for int8, fp16 and q4; give one with `dtypes`")
        if self.int8_target is not None and "int8" not in self.dtypes:
            raise InvalidOptionError("`int8_target` is for int8; give it with `dtypes=int8`")
        self._check_int8_targets()
        if not self.dtypes or len(set(self.dtypes)) < len(self.dtypes):
            raise InvalidOptionError(
                f"`dtypes` is {self.dtypes}; give at least one, and each only once"
            )

    def _check_target(self) -> None:
        check_choice("target", self.target, get_args(Target))
        if self.target == "onnxruntime":
            return
        if self.operator_set not in PORTABLE_OPSETS:
            raise InvalidOptionError(
                f"`opset` is {self.opset}; for `target=portable` it must be from "
                f"{PORTABLE_OPSETS[0]} to {PORTABLE_OPSETS[-1]}, without the Attention operator"
            )
        if self.input == "frames":
            remedy = "leave `web` out, and " if self.web else ""
            raise InvalidOptionError(
                "`target=portable` cannot resize frames in the graph, because other execution "
                f"providers leave an antialiased resize to the CPU; {remedy}use "
                "`input=pixel_values`"
            )
        if "q4" in self.dtypes:
            raise InvalidOptionError(
                "`target=portable` has only standard operators, and q4 needs one of ONNX Runtime's "
                "own; leave q4 out of `dtypes`"
            )

    def _check_rollout(self) -> None:
        if not self.explain:
            for name in ("rollout_residual", "rollout_heads"):
                if getattr(self, name) is not None:
                    raise InvalidOptionError(f"`{name}` is for `explain`; give `explain` too")
            return
        for name in ("output_hidden_states", "output_attentions"):
            if getattr(self, name):
                raise InvalidOptionError(
                    f"`explain` cannot go with `{name}`, whose graph is another one; export twice"
                )
        if self.rollout_heads is not None:
            check_choice("rollout_heads", self.rollout_heads, get_args(RolloutHeads))
        residual = self.rollout_residual
        if residual is not None and not (
            isinstance(residual, int | float)
            and not isinstance(residual, bool)
            and 0 <= residual < 1
        ):
            raise InvalidOptionError(
                f"`rollout_residual` is {residual!r}; it must be a number from 0 to below 1"
            )

    def _check_int8_targets(self) -> None:
        if self.int8_target is None or isinstance(self.int8_target, str):
            targets = self.int8_targets
        else:
            targets = tuple(self.int8_target)
            if not targets or len(set(targets)) < len(targets):
                raise InvalidOptionError(
                    f"`int8_target` is {targets}; give at least one, and each only once"
                )
            object.__setattr__(self, "int8_target", targets if len(targets) > 1 else targets[0])
        for target in targets:
            check_choice("int8_target", target, get_args(Int8Target))

    def _check_push(self) -> None:
        if self.push_to_hub is None:
            for name in ("private", "push_revision"):
                if getattr(self, name):
                    raise InvalidOptionError(f"`{name}` is for an upload; give `push_to_hub` too")
        elif not is_hub_id(self.push_to_hub):
            raise InvalidOptionError(
                f"`push_to_hub` is {shown(self.push_to_hub)!r}; it must be a name on the Hub such "
                "as owner/timesformer-onnx: letters, digits, '-', '_' and '.', at most 96 in all"
            )
        elif self.local_files_only:
            raise InvalidOptionError(
                "`push_to_hub` needs the network, which `local_files_only` forbids; leave one out"
            )

    def _check_evaluation(self) -> None:
        if self.evaluate is None:
            for name in ("evaluate_root", "max_accuracy_loss"):
                if getattr(self, name) is not None:
                    raise InvalidOptionError(
                        f"`{name}` is for labelled videos; give them with `evaluate`"
                    )
            return
        if self.task != "video-classification":
            raise InvalidOptionError(
                "`evaluate` needs labels, which a model of `task=feature-extraction` does not give"
            )
        loss = self.max_accuracy_loss
        if loss is not None and not 0 <= loss <= 100:
            raise InvalidOptionError(
                f"`max_accuracy_loss` is {loss}; it must be a number of points from 0 to 100"
            )

    @property
    def operator_set(self) -> int:
        """The ONNX operator set: ``opset``, or the default of the target."""
        if self.opset is not None:
            return self.opset
        return DEFAULT_PORTABLE_OPSET if self.target == "portable" else DEFAULT_OPSET

    @property
    def int8_targets(self) -> tuple[Int8Target, ...]:
        """The processors that int8 files are for."""
        if self.int8_target is None or isinstance(self.int8_target, str):
            return (self.int8_target or "vnni",)
        return tuple(self.int8_target)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The files to write, one for each precision; for int8 one for each target."""
        found = []
        for dtype in self.dtypes:
            if dtype != "int8":
                found.append(Variant(dtype, dtype))
                continue
            for target in self.int8_targets:
                both = len(self.int8_targets) > 1
                name = _AVX2_FILE if both and target == "avx2" else dtype
                found.append(Variant(name, dtype, target))
        return tuple(found)

    @property
    def folder(self) -> Path:
        """The folder of the exported model: ``output``, or ``./<model name>-onnx``."""
        if self.output is not None:
            return self.output
        path = Path(self.model)
        # Not the methods of Path, which raise an error for a name that is too long.
        if os.path.isfile(path):  # noqa: PTH113
            name = path.stem
        else:
            name = path.resolve().name if os.path.isdir(path) else path.name  # noqa: PTH112
        return Path(f"{name}-onnx")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises an InvalidOptionError where an option's value is none of the choices."""
    if value not in choices:
        raise InvalidOptionError(f"`{name}` is {value!r}; it must be one of {', '.join(choices)}")
