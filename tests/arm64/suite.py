"""Chooses the runtime's tests that run on the emulated machine."""

from __future__ import annotations

ALL = ("tests/runtime",)

# Small, and between them all that depends on the processor: the pixels of decoded frames, the
# preprocessing in NumPy, mapped weights, ONNX Runtime's kernels and the golden check.
SHORT = (
    "tests/runtime/input/test_preprocess.py",
    "tests/runtime/model/test_golden.py",
    "tests/runtime/model/test_mapped_weights.py",
    "tests/runtime/video/test_pixels.py",
)

# Tests that emulation forbids, each with the reason.
DESELECTED: dict[str, str] = {}

_TEST_SECONDS = 1200  # emulation is up to 50 times slower, and tests have 600 seconds


def arguments(*, short: bool) -> list[str]:
    """The arguments of pytest."""
    return [
        *("-q", "-p", "no:cacheprovider", "-p", "tests.arm64.patience"),
        f"--timeout={_TEST_SECONDS}",
        *(f"--deselect={name}" for name in DESELECTED),
        *(SHORT if short else ALL),
    ]
