"""Pillow's antialiased resize, bit for bit, in numpy.

Models were trained and are evaluated with frames that Pillow resized, so its arithmetic is the
definition of a right answer: separable filters widened by the scale, weights of 22 fractional
bits, a horizontal and then a vertical pass, and an image of 8 bits between them. Products of such
weights and pixels fit the 53 bits of a float64, so BLAS computes them without any rounding.
Since Pillow 13 the vertical pass comes first where a frame loses much more height than width. Older
versions differ in a few pixels of such frames (tall frames, or frames squeezed into a square) by
one level of 255.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

NEAREST = 0
LANCZOS = 1
BILINEAR = 2
BICUBIC = 3
BOX = 4
HAMMING = 5

_FRACTION = 1 << 22
_HAMMING = (float(np.float32(0.54)), float(np.float32(0.46)))  # single precision in Pillow too
_OUTPUTS_PER_BLOCK = 8  # more means fewer calls, but more products with zero: 8 measured best
_ROWS_PER_STRIP = 64  # a strip of float64 rows should stay in the processor's cache

Planes = npt.NDArray[np.uint8]


class Rectangle(NamedTuple):
    """A part of the resized image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class _Block(NamedTuple):
    """Neighbouring outputs of one pass, and the inputs that they depend on."""

    outputs: slice  # of the wanted part
    inputs: slice  # of the image
    weights: npt.NDArray[np.float64]  # [inputs, outputs], integers


def resize(
    image: npt.NDArray[np.uint8], size: tuple[int, int], resample: int, part: Rectangle
) -> Planes:
    """Resizes an image, and computes only a part of the result.

    Args:
        image: uint8 [H, W, C].
        size: Height and width of the whole result.
        resample: One of Pillow's filters: the constants of this module.
        part: The wanted part of the result; it lies within ``size``.

    Returns:
        uint8 [C, part.height, part.width], equal to Pillow's ``Image.resize`` and ``crop``.
    """
    rows, columns = _ranges(part)
    if image.shape[:2] == size:
        return _planes(image[rows.start : rows.stop, columns.start : columns.stop])
    if resample == NEAREST:
        nearest_rows = _nearest(image.shape[0], size[0], rows)
        nearest_columns = _nearest(image.shape[1], size[1], columns)
        return _planes(image[nearest_rows[:, None], nearest_columns])
    if _vertical_is_first(image.shape[:2], size):
        turned_part = Rectangle(part.left, part.top, part.width, part.height)
        turned = _filtered(image.transpose(1, 0, 2), (size[1], size[0]), resample, turned_part)
        return np.ascontiguousarray(turned.transpose(0, 2, 1))
    return _filtered(image, size, resample, part)


def resize_parts(
    image: npt.NDArray[np.uint8], size: tuple[int, int], resample: int, parts: Sequence[Rectangle]
) -> list[Planes]:
    """Computes several parts of a result: together, unless they lie far apart.

    Args:
        image: As for ``resize``.
        size: As for ``resize``.
        resample: As for ``resize``.
        parts: At least one part.

    Returns:
        For each part the result of ``resize``.
    """
    top, left = min(p.top for p in parts), min(p.left for p in parts)
    bottom = max(p.top + p.height for p in parts)
    right = max(p.left + p.width for p in parts)
    whole = Rectangle(top, left, bottom - top, right - left)
    if whole.height * whole.width > sum(p.height * p.width for p in parts):
        return [resize(image, size, resample, part) for part in parts]
    planes = resize(image, size, resample, whole)
    return [planes[:, p.top - top :, p.left - left :][:, : p.height, : p.width] for p in parts]


def _ranges(part: Rectangle) -> tuple[range, range]:
    """The rows and the columns of a rectangle."""
    top, left, height, width = part
    return range(top, top + height), range(left, left + width)


def _vertical_is_first(source: tuple[int, ...], target: tuple[int, int]) -> bool:
    """True where Pillow runs the vertical pass first, because that is less work."""
    lost_height, lost_width = source[0] - target[0], source[1] - target[1]
    return lost_height > 0 and lost_height > 2 * lost_width


def _filtered(
    image: npt.NDArray[np.uint8], size: tuple[int, int], resample: int, part: Rectangle
) -> Planes:
    """Resizes by a horizontal and then a vertical pass; arguments and result as in ``resize``."""
    rows, columns = _ranges(part)
    vertical = _blocks(image.shape[0], size[0], rows, resample)
    horizontal = _blocks(image.shape[1], size[1], columns, resample)
    needed = slice(vertical[0].inputs.start, vertical[-1].inputs.stop)
    between = _horizontal_pass(image[needed], horizontal, part.width)
    return _vertical_pass(between, vertical, part.height)


def _planes(image: npt.NDArray[np.uint8]) -> Planes:
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def _nearest(source: int, target: int, wanted: range) -> npt.NDArray[np.intp]:
    # Pillow adds up the steps; their rounding errors decide where a position is nearly an integer.
    steps = np.full(wanted.stop, source / target)
    steps[0] *= 0.5
    return np.add.accumulate(steps)[wanted.start :].astype(np.intp)


def _horizontal_pass(
    rows: npt.NDArray[np.uint8], blocks: tuple[_Block, ...], width: int
) -> npt.NDArray[np.float64]:
    """Resizes uint8 [H, W, C] in width to the integers [C, H, width] between the passes."""
    height, _, channels = rows.shape
    left, right = blocks[0].inputs.start, blocks[-1].inputs.stop
    result = np.empty((channels, height, width))
    for top in range(0, height, _ROWS_PER_STRIP):
        strip = rows[top : top + _ROWS_PER_STRIP, left:right].transpose(2, 0, 1)
        pixels = strip.astype(np.float64, order="C")
        part = result[:, top : top + _ROWS_PER_STRIP]
        for block in blocks:
            needed = slice(block.inputs.start - left, block.inputs.stop - left)
            np.matmul(pixels[:, :, needed], block.weights, out=part[:, :, block.outputs])
        _round_to_pixels(part)
    return result


def _vertical_pass(
    between: npt.NDArray[np.float64], blocks: tuple[_Block, ...], height: int
) -> Planes:
    """Resizes the integers [C, H, W] between the passes in height to uint8 [C, height, W]."""
    channels, _, width = between.shape
    top = blocks[0].inputs.start
    result = np.empty((channels, height, width))
    for block in blocks:
        needed = slice(block.inputs.start - top, block.inputs.stop - top)
        np.matmul(block.weights.T, between[:, needed], out=result[:, block.outputs])
    _round_to_pixels(result)
    return result.astype(np.uint8)


def _round_to_pixels(sums: npt.NDArray[np.float64]) -> None:
    """Rounds weighted sums to 0..255, half up, in place."""
    sums += _FRACTION // 2
    sums *= 1 / _FRACTION  # a power of two: exact
    np.floor(sums, out=sums)
    np.clip(sums, 0, 255, out=sums)


@functools.lru_cache(maxsize=64)
def _blocks(source: int, target: int, wanted: range, resample: int) -> tuple[_Block, ...]:
    """Splits the sparse matrix of a pass into small dense matrices along its diagonal."""
    blocks = []
    for first in range(wanted.start, wanted.stop, _OUTPUTS_PER_BLOCK):
        outputs = range(first, min(first + _OUTPUTS_PER_BLOCK, wanted.stop))
        taps = [_taps(source, target, output, resample) for output in outputs]
        start = min(begin for begin, _ in taps)
        stop = max(begin + len(weights) for begin, weights in taps)
        matrix = np.zeros((stop - start, len(taps)))
        for column, (begin, weights) in enumerate(taps):
            matrix[begin - start : begin - start + len(weights), column] = weights
        in_part = slice(first - wanted.start, first - wanted.start + len(taps))
        blocks.append(_Block(in_part, slice(start, stop), matrix))
    return tuple(blocks)


def _taps(source: int, target: int, output: int, resample: int) -> tuple[int, list[int]]:
    """Computes the first input of one output, and the weights of the inputs from there on."""
    kernel, support = _KERNELS[resample]
    scale = source / target
    stretch = max(scale, 1.0)  # a filter that is widened with the scale does not alias
    centre = (output + 0.5) * scale
    first = max(int(centre - support * stretch + 0.5), 0)
    stop = min(int(centre + support * stretch + 0.5), source)
    weights = [kernel((i - centre + 0.5) * (1.0 / stretch)) for i in range(first, stop)]
    total = 0.0
    for weight in weights:  # one after the other, like Pillow: sum() would be more accurate
        total += weight
    if total != 0.0:
        weights = [weight / total for weight in weights]
    return first, [int(weight * _FRACTION + math.copysign(0.5, weight)) for weight in weights]


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _bilinear(x: float) -> float:
    return max(1.0 - abs(x), 0.0)


def _hamming(x: float) -> float:
    x = abs(x)
    if x >= 1.0:
        return 0.0
    return _sinc(x) * (_HAMMING[0] + _HAMMING[1] * math.cos(x * math.pi))


def _bicubic(x: float) -> float:
    x, sharpness = abs(x), -0.5
    if x < 1.0:
        return ((sharpness + 2.0) * x - (sharpness + 3.0)) * x * x + 1
    if x < 2.0:
        return (((x - 5) * x + 8) * x - 4) * sharpness
    return 0.0


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


def _sinc(x: float) -> float:
    return math.sin(x * math.pi) / (x * math.pi) if x else 1.0


_KERNELS: dict[int, tuple[Callable[[float], float], float]] = {
    LANCZOS: (_lanczos, 3.0),
    BILINEAR: (_bilinear, 1.0),
    BICUBIC: (_bicubic, 2.0),
    BOX: (_box, 0.5),
    HAMMING: (_hamming, 1.0),
}
