"""Chooses the runtime's tests that run on the emulated machine."""

from __future__ import annotations

from timesformer_runtime.model.cpu import granted_threads

ALL = ("tests/runtime",)

# Small, and between them all that depends on the processor: the pixels of decoded frames, the
# preprocessing in NumPy, mapped weights, ONNX Runtime's kernels and the golden check.
SHORT = (
    "tests/runtime/input/test_preprocess.py",
    "tests/runtime/model/test_golden.py",
    "tests/runtime/model/test_mapped_weights.py",
    "tests/runtime/video/test_pixels.py",
)

_ISOLATION = "tests/runtime/isolation"
_NO_LIMIT = "qemu-user does not limit a program's memory (RLIMIT_AS)"
# Tests that emulation forbids, each with the reason. A name stands for all that begin with it.
DESELECTED = {
    f"{_ISOLATION}/test_accidents.py::test_an_accident_is_an_error_of_its_video[Bomb": _NO_LIMIT,
    f"{_ISOLATION}/test_accidents.py::test_a_lack_of_memory_is_not_called_damage": _NO_LIMIT,
    f"{_ISOLATION}/test_options.py::test_batch_goes_on_behind_a_video_that_takes_too_much": (
        _NO_LIMIT
    ),
    "tests/runtime/cli/test_commands.py::test_a_features_file_that_does_not_fit": (
        "qemu-user crashes where files may have no bytes (ulimit -f 0)"
    ),
    "tests/runtime/video/test_fuzz.py::test_what_should_not_be_is_found[import os; input(); os.a": (
        "qemu-user adds a line of its own where a program aborts"
    ),
}

_TEST_SECONDS = 1800  # emulation is up to 50 times slower, and tests have 600 seconds
# Tests wait this many times as long as elsewhere before they call something a hang.
VARIABLES = {"TIMESFORMER_TEST_PATIENCE": "3"}


def arguments(*, short: bool) -> list[str]:
    """The arguments of pytest."""
    return [
        *("-q", "-p", "no:cacheprovider"),
        f"--numprocesses={1 if short else granted_threads()}",
        f"--timeout={_TEST_SECONDS}",
        *(f"--deselect={name}" for name in DESELECTED),
        *(SHORT if short else ALL),
    ]
