"""Bench: the folder, threads and rounds of a benchmark, and the files that it measures."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.made_files import made, stamp_of
from tests.benchmarks.processes import ROOT

DIVIDED, JOINT, SPACE = "divided_space_time", "joint_space_time", "space_only"
_HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Bench:
    """The settings of one run of the benchmark, and the files that it needs.

    Attributes:
        work: The folder for models and logs, several gigabytes.
        layers: Layers of the model: 12 for a measurement, fewer to try the benchmark itself.
        rounds: The number of times that each competitor runs.
        starts: The number of times that each competitor is loaded in a fresh process.
        clips: The number of clips whose logits are compared.
        threads: CPU threads of every competitor.
        peers: The Python of the environment that has the other engines; None without that one.
        note: What the results say about the machine, such as an emulator; empty for nothing.
        announce: Called with a short text when a step begins.
    """

    work: Path
    layers: int
    rounds: int
    starts: int
    clips: int
    threads: int
    peers: Path | None = None
    note: str = ""
    announce: Callable[[str], None] = print

    @property
    def logs(self) -> Path:
        """The folder of the workers' output."""
        return self.work / "logs"

    def video(self, height: int = 720) -> Path:
        """Makes a 10-second video, 16:9."""
        arguments = ["video", "{}", f"--height={height}"]
        return self._module(self.work / f"ten-seconds-{height}p.mp4", "clips", *arguments)

    def clip_file(self, num_frames: int = 8, side: int = 224, count: int | None = None) -> Path:
        """Makes a ``.npy`` file, float32 [clips, num_frames, 3, side, side]."""
        number = count or self.clips
        arguments = [f"--count={number}", f"--num-frames={num_frames}", f"--side={side}"]
        target = self.work / f"clips-{number}x{num_frames}x{side}.npy"
        return self._module(target, "clips", "clips", "{}", *arguments)

    def checkpoint(
        self, attention_type: str = DIVIDED, num_frames: int = 8, side: int = 224
    ) -> Path:
        """Makes a checkpoint folder of the base model with random weights."""
        name = f"{attention_type}-{num_frames}x{side}-{self.layers}-layers"
        return self._module(
            self.work / "checkpoints" / name,
            "base_model",
            "{}",
            f"--attention-type={attention_type}",
            f"--num-frames={num_frames}",
            f"--image-size={side}",
            f"--layers={self.layers}",
        )

    def ours(self, checkpoint: Path) -> Path:
        """Makes the exported model of a checkpoint: fp32, and int8 for both kinds of processors."""
        return made(
            self.work / "ours" / checkpoint.name,
            [
                *(sys.executable, "-m", "timesformer_exporter", "--no-gate"),
                *("--dtype", "fp32", "--dtype", "int8"),
                *("--int8-target", "vnni", "--int8-target", "avx2"),
                *("--model", str(checkpoint), "--output", "{}"),
            ],
            [stamp_of(checkpoint), ROOT / "exporter"],
            self.threads,
            self.announce,
        )

    def quick_export(self, checkpoint: Path) -> Path:
        """Makes a folder with our int8 graphs alone, without the checks of the command."""
        return self._module(
            self.work / "quick" / checkpoint.name,
            "quick_export",
            str(checkpoint),
            "{}",
            sources=(ROOT / "exporter",),
        )

    def plain(self, checkpoint: Path) -> Path:
        """Makes a folder with the plain exports of a checkpoint."""
        target = self.work / "plain" / checkpoint.name
        return self._module(target, "plain_exports", str(checkpoint), "{}")

    def transformers_js(self, graph: Path) -> Path:
        """Makes a folder with an ONNX file quantized as transformers.js does."""
        target = self.work / "transformers-js" / graph.parent.name
        return self._module(target, "transformers_js", str(graph), "{}")

    def transformers_exports(self, checkpoint: Path, clips: Path) -> Path:
        """Makes a folder with transformers.exporters' int8 graphs of a checkpoint."""
        target = self.work / "transformers-exporters" / checkpoint.name
        return self._module(target, "transformers_exports", str(checkpoint), str(clips), "{}")

    def openvino(self, graph: Path, clips: Path) -> Path:
        """Makes a folder with OpenVINO's models of an ONNX file; needs ``peers``."""
        target = self.work / "openvino" / graph.parent.name
        return self._module(
            target, "openvino_models", str(graph), str(clips), "{}", python=str(self.peers)
        )

    def _module(
        self,
        target: Path,
        module: str,
        *arguments: str,
        python: str = sys.executable,
        sources: tuple[Path, ...] = (),
    ) -> Path:
        """Runs a module of this folder that makes ``target``; ``{}`` stands for the target's path.

        Paths among the arguments are the inputs: where one of them changed, the module runs again.
        """
        inputs = [stamp for stamp in map(_stamp, arguments) if stamp is not None]
        return made(
            target,
            [python, "-m", f"tests.benchmarks.{module}", *arguments],
            [_HERE / f"{module}.py", *inputs, *sources],
            self.threads,
            self.announce,
        )


def _stamp(argument: str) -> Path | None:
    """The stamp of the made file or folder to which a path belongs; None if there is none."""
    for path in (Path(argument), Path(argument).parent):
        if path.name and stamp_of(path).is_file():
            return stamp_of(path)
    return None
