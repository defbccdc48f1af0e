"""Damages a file in many ways; equal numbers give equal damage."""

from collections.abc import Callable

import numpy as np

Random = np.random.Generator
Mutation = Callable[[bytearray, Random], bytearray]

_LEAST = 64  # bytes; a smaller file cannot be cut into pieces
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF)


def mutate(data: bytes, number: int) -> bytes:
    """Damages a file in a way that only depends on the number."""
    random = np.random.default_rng(number)
    damaged = bytearray(data.ljust(_LEAST, b"\0"))
    for _ in range(1 + int(random.geometric(0.6)) // 2):
        mutation = MUTATIONS[int(random.integers(len(MUTATIONS)))]
        damaged = mutation(damaged, random)
    return bytes(damaged)


def flip_bits(data: bytearray, random: Random) -> bytearray:
    """Flips a few bits anywhere."""
    for offset in random.integers(len(data), size=int(random.integers(1, 9))):
        data[int(offset)] ^= 1 << int(random.integers(8))
    return data


def flip_many_bits(data: bytearray, random: Random) -> bytearray:
    """Changes one byte in a thousand, as a bad connection does."""
    for offset in random.integers(len(data), size=max(1, len(data) // 1000)):
        data[int(offset)] ^= int(random.integers(1, 256))
    return data


def truncate(data: bytearray, random: Random) -> bytearray:
    """Removes the end."""
    return data[: max(_LEAST, int(len(data) * (1 - random.random() ** 2)))]


def behead(data: bytearray, random: Random) -> bytearray:
    """Removes a piece anywhere, as if packets of a stream were lost."""
    start, length = _piece(data, random)
    return data[:start] + data[start + length :]


def blank(data: bytearray, random: Random) -> bytearray:
    """Fills a piece with zeros, as if that piece had never been written."""
    start, length = _piece(data, random)
    data[start : start + length] = bytes(length)
    return data


def scramble(data: bytearray, random: Random) -> bytearray:
    """Fills a piece with noise."""
    start, length = _piece(data, random)
    data[start : start + length] = random.bytes(length)
    return data


def shuffle(data: bytearray, random: Random) -> bytearray:
    """Swaps two pieces."""
    length = int(random.integers(1, max(2, len(data) // 8)))
    first, second = sorted(int(offset) for offset in random.integers(len(data) - length, size=2))
    if first + length <= second:
        swapped = bytes(data[first : first + length])
        data[first : first + length] = data[second : second + length]
        data[second : second + length] = swapped
    return data


def repeat(data: bytearray, random: Random) -> bytearray:
    """Repeats a piece."""
    start, length = _piece(data, random)
    return data[: start + length] + data[start:]


def lie(data: bytearray, random: Random) -> bytearray:
    """Writes an extreme number into the header, or into the index at the end."""
    size = int(random.choice([1, 2, 4]))
    region = min(len(data) - size, 1200)
    offset = int(random.integers(region))
    if random.random() < 0.4:
        offset = len(data) - size - offset
    value = int(random.choice(_INTERESTING)) & ((1 << 8 * size) - 1)
    data[offset : offset + size] = value.to_bytes(
        size, "little" if random.random() < 0.3 else "big"
    )
    return data


def _piece(data: bytearray, random: Random) -> tuple[int, int]:
    length = int(random.integers(1, max(2, len(data) // 6)))
    return int(random.integers(max(1, len(data) - length))), length


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    flip_bits,
    flip_many_bits,
    truncate,
    behead,
    blank,
    scramble,
    shuffle,
    repeat,
    lie,
    lie,
)
