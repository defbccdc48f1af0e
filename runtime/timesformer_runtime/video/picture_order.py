"""Collects what packets say about the order in which their pictures are shown."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from timesformer_runtime.video.h264 import DamagedPacketError, HeaderReader, Picture
from timesformer_runtime.video.h264_order import (
    HEAD_BYTES,
    display_order,
    is_one_slice,
    read_heads,
    unit_of,
)

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet

Numbers = npt.NDArray[np.int64]

_HOLE = bytes(8)  # how a lost part of a file usually looks


class PictureOrder(Protocol):
    """Collects what packets say about their pictures."""

    skips_unreferenced: bool

    def add(self, packet: Packet) -> None:
        """Adds the next packet.

        Raises:
            DamagedPacketError: It will hardly give a picture.
            UnusualStreamError: It does not hold exactly one whole frame.
        """

    def finish(self) -> tuple[Numbers, Numbers]:
        """Numbers that ascend as the pictures are shown, and the entries."""


class TimedPictures:
    """Pictures that are shown in the order of their timestamps."""

    skips_unreferenced = False

    def __init__(self) -> None:
        self._times = array("q")
        self._entries = array("q")

    def add(self, packet: Packet) -> None:
        """Adds the next packet.

        Raises:
            DamagedPacketError: It is a hole.
        """
        if bytes(memoryview(packet)[: len(_HOLE)]) == _HOLE or packet.pts is None:
            raise DamagedPacketError("a hole")
        if packet.is_keyframe:
            self._entries.append(len(self._times))
        self._times.append(packet.pts)

    def finish(self) -> tuple[Numbers, Numbers]:
        """Their times, and the keyframes."""
        return numbers(self._times), numbers(self._entries)


class HeadedPictures:
    """Pictures that say in their headers in which order they are shown: those of H.264."""

    skips_unreferenced = True

    def __init__(self, reader: HeaderReader) -> None:
        self._reader = reader
        self._count = 0
        # Those that hold nothing but one slice are read together: that is much faster.
        self._plain: list[tuple[int, bytes, int]] = []
        self._read: list[tuple[int, Picture]] = []

    def add(self, packet: Packet) -> None:
        """Adds a packet.

        Raises:
            UnusualStreamError: It does not hold exactly one whole frame.
        """
        view = memoryview(packet)
        head = bytes(view[:HEAD_BYTES])
        if self._reader.length_size == 4 and is_one_slice(head, len(view)):
            self._plain.append((self._count, head, len(view)))
        else:
            self._read.append((self._count, self._reader.read(bytes(view))))
        self._count += 1

    def finish(self) -> tuple[Numbers, Numbers]:
        """Numbers that ascend as the pictures are shown, and where decoding can start.

        Raises:
            UnusualStreamError: A picture is missing.
        """
        pictures = np.empty((self._count, len(Picture._fields)), dtype=np.int64)
        for number, picture in self._read:
            pictures[number] = picture
        if self._plain:
            numbers, heads, sizes = zip(*self._plain, strict=True)
            found, is_read = read_heads(self._reader, heads, sizes)
            for row in np.flatnonzero(~is_read).tolist():
                found[row] = self._reader.read_slice(unit_of(heads[row]))
            pictures[list(numbers)] = found
        return display_order(pictures), np.flatnonzero(pictures[:, 0])


def numbers(values: array[int]) -> Numbers:
    """As a NumPy array."""
    return np.array(values, dtype=np.int64)
