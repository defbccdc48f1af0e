"""Compiles examples/cpp, and compares its answers to the sample clips with the runtime's.

    python -m tests.end_to_end.check_cpp

The C++ headers of ONNX Runtime are not in its Python package. They come from the folder that the
variable ONNXRUNTIME_INCLUDE names, else from a package of Debian, unpacked below build/cpp. The
library is that of the Python package: so the headers are older than the library, as they may be.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import timesformer_runtime
from timesformer_exporter import ExportOptions, export
from timesformer_runtime import VideoClassifier, VideoDecoder
from timesformer_runtime.model.agreement import Agreement
from timesformer_runtime.model.loaded import PROBLEM_TYPES
from timesformer_runtime.results import Ranking, apply_function

from tests import debian_packages
from tests.patience import PATIENCE

REPOSITORY = Path(__file__).parents[2]
_SAMPLES = Path(timesformer_runtime.__file__).parent / "sample_clips"
_LIBRARY = "libonnxruntime.so.1"
_MIN_COSINE = 0.999
_RELEASE, _PACKAGE = "trixie", "libonnxruntime-dev"
_ODD_LABEL = 'a "quoted" \\ label, é, 😀'


class UnavailableError(Exception):
    """A thing to compile with is not available; the message says why, in one line."""


def headers(folder: Path) -> Path:
    """Finds the folder that has ``onnxruntime_cxx_api.h``; unpacks a package into ``folder``.

    Raises:
        UnavailableError: There are no headers.
    """
    given = os.environ.get("ONNXRUNTIME_INCLUDE")
    try:
        found = Path(given) if given else _debian_headers(folder)
    except debian_packages.DebianError as error:
        raise UnavailableError(
            f"no C++ headers of ONNX Runtime ({error}); unpack an archive of its releases, and set "
            "ONNXRUNTIME_INCLUDE to the folder include"
        ) from error
    for header in found.rglob("onnxruntime_cxx_api.h"):
        return header.parent
    raise UnavailableError(f"{found} has no onnxruntime_cxx_api.h")


def _debian_headers(folder: Path) -> Path:
    root = folder / _PACKAGE
    if not root.exists():
        unfinished = folder / "unfinished"
        debian_packages.unpack(
            [_PACKAGE],
            unfinished,
            folder / "apt",
            suite=_RELEASE,
            architecture=debian_packages.host_architecture(),
            dependencies=False,
        )
        unfinished.rename(root)
    return root


def compile_example(folder: Path) -> Path:
    """Compiles the program into a folder, which also gets the library; returns its path.

    Raises:
        UnavailableError: There is no compiler, or there are no headers.
    """
    if shutil.which("g++") is None:
        raise UnavailableError("g++ is not installed; on Debian: apt install g++")
    folder.mkdir(parents=True, exist_ok=True)
    include = headers(folder)
    libraries = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    library = next(libraries, None)
    if library is None:
        raise UnavailableError("this ONNX Runtime for Python has no library for C; install it anew")
    (folder / _LIBRARY).unlink(missing_ok=True)
    (folder / _LIBRARY).symlink_to(library)
    source, program = REPOSITORY / "examples" / "cpp" / "classify.cpp", folder / "classify"
    command: list[str | Path] = ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror"]
    command += ["-isystem", include, source, folder / _LIBRARY]
    command += [f"-Wl,-rpath,{folder.absolute()}", "-o", program]
    subprocess.run(command, check=True)
    return program


def check(program: Path, model: Path, work: Path) -> float:
    """Compares the program's answers to all sample clips with the runtime's.

    Args:
        program: The compiled program.
        model: An ``.onnx`` file that takes frames.
        work: A folder for the frames.

    Returns:
        The lowest cosine of the logits of a clip.
    """
    cosines = []
    with VideoClassifier.from_pretrained(model, device="cpu") as classifier:
        labels = classifier.labels or ()
        for clip in sorted(_SAMPLES.glob("*.mp4")):
            with VideoDecoder(clip) as decoder:
                frames = decoder.frames(range(len(decoder))).array()
            raw = work / "frames.rgb"
            frames.tofile(raw)
            answer = _answer(program, model, frames, str(raw))
            assert answer == _answer(program, model, frames, "-"), "a pipe gives another answer"
            assert next(iter(answer)) == clip.stem, f"{clip.name} is named {next(iter(answer))}"
            found = np.array([answer[label][1] for label in labels], dtype=np.float32)
            expected = classifier.logits(frames)
            cosines.append(Agreement(expected[None], found[None]).cosine)
    return min(cosines)


def _answer(
    program: Path, model: Path, frames: npt.NDArray[np.uint8], source: str
) -> dict[str, tuple[float, float]]:
    """Runs the program on a file or, for ``-``, on a pipe.

    Returns:
        For each label its score and its logit, best first.
    """
    height, width = frames.shape[1:3]
    piped = frames.tobytes() if source == "-" else b""
    done = subprocess.run(
        [program, model, str(width), str(height), source, "1000"],
        input=piped,
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    return {label: (float(score), float(logit)) for score, logit, label in rows}


def check_labels(program: Path, model: Path, work: Path) -> None:
    """Makes sure that the program reads labels with all kinds of characters."""
    graph = onnx.load(model)
    (entry,) = (entry for entry in graph.metadata_props if entry.key == "config")
    config: dict[str, Any] = json.loads(entry.value)
    config["id2label"]["0"] = _ODD_LABEL
    odd = work / "odd.onnx"
    frames = np.zeros((8, 64, 64, 3), dtype=np.uint8)
    for ascii_only in (True, False):
        entry.value = json.dumps(config, ensure_ascii=ascii_only)
        onnx.save(graph, odd)
        assert _ODD_LABEL in _answer(program, odd, frames, "-")


def check_scores(program: Path, model: Path, work: Path) -> None:
    """Makes sure that the program makes scores of logits as the model's configuration says."""
    graph = onnx.load(model)
    (entry,) = (entry for entry in graph.metadata_props if entry.key == "config")
    config: dict[str, Any] = json.loads(entry.value)
    frames = np.zeros((8, 64, 64, 3), dtype=np.uint8)
    for problem_type in (None, *PROBLEM_TYPES):
        entry.value = json.dumps(config | {"problem_type": problem_type})
        onnx.save(graph, work / "other.onnx")
        answer = _answer(program, work / "other.onnx", frames, "-")
        scores, logits = np.array(list(answer.values())).T
        expected = apply_function(Ranking().function_of(problem_type), logits)
        np.testing.assert_allclose(scores, expected, atol=1e-6, err_msg=str(problem_type))


def _features(model: Path, work: Path) -> Path:
    """Writes a model without logits."""
    graph = onnx.load(model)
    graph.graph.output[0].name = graph.graph.node[-1].output[0] = "features"
    onnx.save(graph, work / "features.onnx")
    return work / "features.onnx"


def check_refusals(program: Path, model: Path, work: Path) -> None:
    """Makes sure that bad input is one line and exit code 2."""
    missing, frame = work / "missing", work / "frame.rgb"
    frame.write_bytes(bytes(8 * 8 * 3))
    wrong: list[list[str | Path]] = [
        [],
        [missing, "8", "8", "-"],
        [model, "no", "8", "-"],
        [model, "8", "8", missing],
        [model, "8", "8", model.parent],
        [model, "7", "13", model],
        [model, "8", "8", "-"],
        [model, "8", "8", frame, "0"],
        [model, "8", "8", frame, "all"],
        [_features(model, work), "8", "8", frame],
    ]
    for arguments in wrong:
        done = subprocess.run([program, *arguments], input=b"", capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (2, b""), (arguments, done)
        assert done.stderr.count(b"\n") == 1, (arguments, done)
    assert b"--task video-classification" in done.stderr, done
    with Path("/dev/full").open("wb") as full:
        frames = bytes(8 * 8 * 3)
        done = subprocess.run(
            [program, model, "8", "8", "-"],
            input=frames,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1), done


def main() -> None:
    """Prints the agreement; exit code 1 where it is too low, 2 where the check cannot run."""
    try:
        program = compile_example(REPOSITORY / "build" / "cpp")
    except UnavailableError as error:
        print(f"check_cpp: {error}", file=sys.stderr)
        sys.exit(2)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        options = ExportOptions(
            str(REPOSITORY / "models" / "shot-transitions-divided"),
            output=work / "model",
            dtypes=("fp32", "int8"),
            input="frames",
        )
        models = sorted((export(options).folder / "onnx").glob("*.onnx"))
        cosines = {model.name: check(program, model, work) for model in models}
        check_labels(program, models[0], work)
        check_scores(program, models[0], work)
        check_refusals(program, models[0], work)
    for name, cosine in cosines.items():
        print(f"{name}: the labels of all sample clips are right, cosine to Python {cosine:.6f}")
    if min(cosines.values()) < _MIN_COSINE:
        sys.exit(f"check_cpp: the cosine must be at least {_MIN_COSINE}")


if __name__ == "__main__":
    main()
