"""Compares graphs with attention rollout to those without it: seconds, CPU seconds, memory.

python -m tests.benchmarks.explain --attention-type joint_space_time --rounds 5
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnxruntime
import torch
from timesformer_exporter.graph.quantize import write_variant
from timesformer_exporter.graph.trace import GraphOutputs, save_graph, trace
from timesformer_exporter.model.attention_rollout import Rollout
from timesformer_exporter.model.config import ATTENTION_TYPES, TimesformerConfig
from timesformer_exporter.model.inference_form import InferenceForm
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification

from tests.benchmarks.turns import take_turns

_MOST = 1.3  # times the seconds of the graph without rollout
_DTYPES = ("fp32", "int8")


@click.command()
@click.option("--attention-type", type=click.Choice(ATTENTION_TYPES), default=ATTENTION_TYPES[0])
@click.option("--layers", default=12, show_default=True)
@click.option("--num-frames", default=8, show_default=True)
@click.option("--image-size", default=224, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=7, show_default=True)
def main(
    attention_type: str, layers: int, num_frames: int, image_size: int, threads: int, rounds: int
) -> None:
    """Writes a base-size model with random weights in both forms, and times them in turn.

    Exits with 1 where rollout takes more than 1.3 times the seconds, or changes a logit.
    """
    config = TimesformerConfig(
        attention_type=attention_type,
        num_hidden_layers=layers,
        num_frames=num_frames,
        image_size=image_size,
        id2label={number: str(number) for number in range(400)},
    )
    shape = (1, num_frames, 3, image_size, image_size)
    clip = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    missed = False
    with tempfile.TemporaryDirectory() as scratch:
        for name, rollout in (("plain", None), ("explain", Rollout())):
            _write(Path(scratch) / name, config, rollout)
        for dtype in _DTYPES:
            missed |= _compare(Path(scratch), dtype, clip, threads, rounds)
    sys.exit(missed)


def _write(folder: Path, config: TimesformerConfig, rollout: Rollout | None) -> None:
    torch.manual_seed(0)
    model = TimesformerForVideoClassification(config).eval()
    form = InferenceForm(model, "video-classification", attention_operator=True, rollout=rollout)
    names = GraphOutputs(rollout=rollout).names(config)
    folder.mkdir()
    save_graph(trace(form, config, output_names=names).model, folder / "fp32.onnx")
    write_variant(folder / "fp32.onnx", folder / "int8.onnx", "int8")


def _compare(
    folder: Path,
    dtype: str,
    clip: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    threads: int,
    rounds: int,
) -> bool:
    """Prints a line; True where the goal is missed."""
    paths = [folder / name / f"{dtype}.onnx" for name in ("plain", "explain")]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as processes:
        peaks = [processes.apply(_peak, (path, clip, threads)) for path in paths]
    sessions = [_session(path, threads) for path in paths]
    plain, explained = (session.run(None, {"pixel_values": clip}) for session in sessions)
    same = np.array_equal(plain[0], explained[0])
    cpu: list[list[float]] = [[], []]

    def timed(number: int) -> Callable[[], float]:
        def run() -> float:
            sessions[number].run(None, {"pixel_values": clip})  # fills the caches
            before, start = time.process_time(), time.perf_counter()
            sessions[number].run(None, {"pixel_values": clip})
            seconds = time.perf_counter() - start
            cpu[number].append(time.process_time() - before)
            return seconds

        return run

    seconds = take_turns([timed(0), timed(1)], rounds)
    medians = [float(np.median(values)) for values in seconds]
    ratio = float(np.median(np.divide(seconds[1], seconds[0])))
    of_cpu = float(np.median(np.divide(cpu[1], cpu[0])))
    click.echo(
        f"{dtype}: {medians[0]:.3f} s, with rollout {medians[1]:.3f} s: {ratio:.2f} times "
        f"(CPU seconds {of_cpu:.2f} times); peak memory {peaks[0] / 1e6:.0f} MB and "
        f"{peaks[1] / 1e6:.0f} MB; logits {'equal' if same else 'DIFFER'}"
    )
    return not same or min(ratio, of_cpu) > _MOST


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _peak(path: Path, clip: np.ndarray[tuple[int, ...], np.dtype[np.float32]], threads: int) -> int:
    """Runs a graph once in this process, and gives the process's peak memory in bytes."""
    _session(path, threads).run(None, {"pixel_values": clip})
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # ru_maxrss counts the parent
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


if __name__ == "__main__":
    main()
