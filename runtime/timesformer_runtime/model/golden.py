"""The golden check: compares answers with PyTorch's, for frames that any program can generate.

Generator ``timesformer-golden-v1``, in unsigned 64-bit arithmetic that wraps around:

    mix(z): z ^= z >> 30; z *= 0xBF58476D1CE4E5B9; z ^= z >> 27; z *= 0x94D049BB133111EB;
            return z ^ (z >> 31)
    byte(seed, kind, t, y, x, c) =
        mix(mix(mix(mix(mix(mix(seed) + kind) + t) + y) + x) + c) >> 56
    frame[t, y, x, c] =
        (3 * byte(seed, 0, t / 2, y / 16, x / 16, c) + byte(seed, 1, t, y, x, c)) / 4

with integer divisions: coloured squares of 16 pixels that last two frames, under fine noise.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from timesformer_runtime.model.agreement import Agreement
from timesformer_runtime.results import GoldenCheck

GENERATOR = "timesformer-golden-v1"

# Other machines sum in another order; the values of a wrong graph differ by far more than this.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4
_COSINE = 0.98
_CORRELATION = 0.9


def golden_frames(seed: int, shape: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """Generates frames, uint8 [T, H, W, C], as this module's docstring defines."""
    return np.stack([golden_frame(seed, number, shape[1:]) for number in range(shape[0])])


def golden_frame(seed: int, number: int, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Generates one frame, uint8 [H, W, C]; takes some 40 times the memory of the frame."""
    t = np.array(number)
    y, x, c = np.ogrid[tuple(slice(length) for length in shape)]
    squares = _byte(seed, 0, t // 2, y // 16, x // 16, c)
    noise = _byte(seed, 1, t, y, x, c)
    return ((3 * squares + noise) // 4).astype(np.uint8)


def judge(
    actual: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], output: str, *, exact: bool
) -> GoldenCheck:
    """Compares two answers [n] for the golden frames.

    Args:
        actual: The values that this machine computes.
        expected: The values that PyTorch computed in float32.
        output: Name of the compared output.
        exact: True for a model that computes in float32 like PyTorch: its values must agree to
            0.1 % of the largest. False to compare only the direction, by the cosine.
    """
    if actual.size != expected.size:
        infinite = float("inf")
        limit = f"as many values as PyTorch's {expected.size}, not {actual.size}"
        return GoldenCheck(output, infinite, infinite, 0.0, False, limit, passed=False)
    agreement = Agreement(expected.reshape(1, -1), actual.reshape(1, -1))
    if exact:
        tolerance = _RELATIVE * float(np.abs(expected).max()) + _ABSOLUTE
        limit, passed = f"max-abs at most {tolerance:.3g}", agreement.max_abs <= tolerance
    else:
        limit, passed = f"cosine at least {_COSINE}", agreement.cosine >= _COSINE
    return GoldenCheck(
        output=output,
        max_abs=agreement.max_abs,
        relative=agreement.of_largest,
        cosine=agreement.cosine,
        top1_agrees=agreement.same_labels(1) == 1.0,
        limit=limit,
        passed=passed,
    )


def judge_rollout(
    actual: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], *, exact: bool
) -> GoldenCheck:
    """Compares two attention rollouts [n] for the golden frames; see ``judge``.

    Shares are the smaller, the more patches there are: both are compared as multiples of an even
    share. A model that is not exact must show the same patches as important, so the correlation
    counts: the cosine of any two shares is near 1.
    """
    even = float(expected.mean()) or 1.0
    check = judge(actual / even, expected / even, "attention_rollout", exact=exact)
    if exact or actual.size != expected.size:
        return check
    found = Agreement(expected.reshape(1, -1), actual.reshape(1, -1)).correlation
    limit, passed = f"correlation at least {_CORRELATION}", found >= _CORRELATION
    return dataclasses.replace(check, cosine=found, limit=limit, passed=passed)


def _byte(seed: int, kind: int, *coordinates: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    state = _mix(np.array([seed], dtype=np.uint64))  # an array wraps around silently
    for number in (np.array(kind), *coordinates):
        state = _mix(state + number.astype(np.uint64))
    return state >> np.uint64(56)


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
