"""The library in a process that cannot import PyAV, click or rich; only files and commands do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from timesformer_runtime import VideoClassifier

from tests.patience import PATIENCE
from tests.tiny_graphs import moving_frames, write_exported_model, write_video

# A package whose entry is None cannot be imported, as if it were not installed.
_HIDE = "import sys; sys.modules.update(dict.fromkeys({packages!r}));"
_PYAV = "PyAV, which reads videos, is not installed: pip install "


def _run(packages: tuple[str, ...], program: str, *arguments: str | Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{_HIDE.format(packages=packages)}\n{program}", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exported_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", moving_frames(9))


def test_arrays_need_neither_pyav_nor_click_nor_rich(model: Path, tmp_path: Path) -> None:
    frames = moving_frames(9)
    np.save(tmp_path / "frames.npy", frames)
    program = (
        "import json, numpy as np\n"
        "from timesformer_runtime import VideoClassifier, Views\n"
        "frames = np.load(sys.argv[2])\n"
        "classifier = VideoClassifier.from_pretrained(sys.argv[1], device='cpu')\n"
        "several = VideoClassifier.from_pretrained(\n"
        "    sys.argv[1], device='cpu', views=Views(crops=3))\n"
        "one, (outcome,) = classifier(frames), classifier.batch([frames])\n"
        "assert list(outcome.result.predictions) == one\n"
        "print(json.dumps([one, several(frames)]))\n"
    )
    code, output, errors = _run(("av", "click", "rich"), program, model, tmp_path / "frames.npy")
    assert code == 0, errors
    one, several = json.loads(output)
    expected = VideoClassifier.from_pretrained(model, device="cpu")(frames)
    assert [p["label"] for p in one] == [p["label"] for p in expected]
    np.testing.assert_allclose([p["score"] for p in one], [p["score"] for p in expected])
    assert len(several) == len(expected)


@pytest.mark.parametrize(
    "use",
    [
        "classifier(video)",
        "classifier(open(video, 'rb'))",
        "list(classifier.stream(video))",
        "list(classifier.timeline(video))",
        "timesformer_runtime.VideoDecoder(video)",
        "from timesformer_runtime.video import VideoDecoder",
        "raise next(classifier.batch([video])).error",
    ],
)
def test_a_file_needs_pyav_and_one_error_says_so(model: Path, video: Path, use: str) -> None:
    program = (
        "import timesformer_runtime\n"
        "video = sys.argv[2]\n"
        "classifier = timesformer_runtime.VideoClassifier.from_pretrained(sys.argv[1])\n"
        "try:\n"
        f"    {use}\n"
        "except timesformer_runtime.MissingDependencyError as error:\n"
        "    print(error)\n"
    )
    code, output, errors = _run(("av",), program, model, video)
    assert code == 0, errors
    (line,) = output.splitlines()
    assert line.startswith(_PYAV)


def test_a_pyav_that_does_not_load_is_reported_with_its_reason(
    model: Path, video: Path, tmp_path: Path
) -> None:
    (tmp_path / "av.py").write_text("raise ImportError('libx.so: cannot open\\nshared object')")
    program = (
        "import timesformer_runtime\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n"
        "    timesformer_runtime.VideoDecoder(sys.argv[1])\n"
        "except timesformer_runtime.MissingDependencyError as error:\n"
        "    print(error)\n"
    )
    code, output, errors = _run((), program, video)
    assert code == 0, errors
    assert "cannot be loaded (libx.so: cannot open shared object): pip install" in output


_COMMAND = "from timesformer_runtime.__main__ import main; sys.argv[0] = 'timesformer'; main()"


def test_the_command_says_that_a_file_needs_pyav(model: Path, video: Path) -> None:
    code, _, errors = _run(("av",), _COMMAND, "classify", model, video)
    assert code == 2
    *_, line = errors.splitlines()  # after the line that names the model
    assert line.startswith(f"timesformer: {video}: {_PYAV}")
    assert "Traceback" not in errors


def test_inspect_needs_neither_pyav_nor_rich(model: Path) -> None:
    code, answer, _ = _run(("av", "rich"), _COMMAND, "inspect", model)
    assert code == 0
    assert answer


@pytest.mark.parametrize("package", ["click", "rich"])
def test_the_command_says_that_it_needs_click_and_rich(
    model: Path, video: Path, package: str
) -> None:
    code, _, errors = _run((package,), _COMMAND, "classify", model, video)
    assert code == 2
    assert errors == (
        f"timesformer: the command needs {package}, which is not installed: "
        "pip install click rich\n"
    )
