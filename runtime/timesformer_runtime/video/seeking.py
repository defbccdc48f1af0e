"""Decodes only what the wanted frames of a video need."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import av

from timesformer_runtime.video.container import OpenVideo
from timesformer_runtime.video.decoding import Decoded, Keeper
from timesformer_runtime.video.frame_index import FrameIndex
from timesformer_runtime.video.pixels import Rendering

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet


def decode_selected(
    video: OpenVideo,
    index: FrameIndex,
    wanted: Sequence[int],
    rendering: Rendering | None = None,
) -> Decoded | None:
    """Decodes only what the wanted frames need.

    Args:
        video: The open file; it may stand anywhere.
        index: Which packet gives which frame.
        wanted: Indices of frames, ascending.
        rendering: Makes of a decoded picture what is kept.

    Returns:
        The same frames as ``decode_all``; None where something was not as the index promised.
    """
    keeper = Keeper(video.stream, video.watch, rendering or Rendering())
    decoded = Decoded(count=len(index.times))
    for run in _runs(index, wanted):
        try:
            if not _decode_run(video, index, run, keeper, decoded):
                return None
        except av.FFmpegError:
            return None
    return decoded


@dataclasses.dataclass
class _Run:
    """Packets that are decoded one after the other, for the sake of some frames."""

    start: int
    last: int
    frame_of_time: dict[int, int]  # the wanted frames by presentation timestamp


def _runs(index: FrameIndex, wanted: Sequence[int]) -> list[_Run]:
    runs: list[_Run] = []
    for frame in wanted:
        packet = int(index.packet_of_frame[frame])
        entry = index.entry_for(packet)
        if not runs or entry > runs[-1].last:
            runs.append(_Run(entry, packet, {}))
        runs[-1].last = max(runs[-1].last, packet)
        runs[-1].frame_of_time[int(index.times[packet])] = frame
    return runs


def _decode_run(
    video: OpenVideo, index: FrameIndex, run: _Run, keeper: Keeper, decoded: Decoded
) -> bool:
    """Seeks, decodes a run and keeps its wanted frames; False where it is not as expected."""
    decoder = video.stream.codec_context
    start = int(index.times[0])
    times: list[int] = []
    for packet in _packets_of_run(video, index, run):
        if packet is not None and index.skips_unreferenced:
            decoder.skip_frame = "DEFAULT" if packet.pts in run.frame_of_time else "NONREF"
        for picture in decoder.decode(packet):
            if picture.pts is None or picture.is_corrupt:
                return False
            times.append(picture.pts)
            decoded.sizes.add((picture.height, picture.width))
            number = run.frame_of_time.get(picture.pts)
            if number is not None:
                keeper.keep(decoded, number, picture, start)
    return _is_as_expected(times, index, run)


def _packets_of_run(video: OpenVideo, index: FrameIndex, run: _Run) -> Iterator[Packet | None]:
    """The packets of a run and None; fewer where the file does not give them in that order."""
    for packet, number in _packets_from(video, index, run.start):
        if packet.pts != index.times[number]:
            return
        if number >= run.start:
            yield packet
        if number == run.last:
            yield None
            return


def _packets_from(video: OpenVideo, index: FrameIndex, start: int) -> Iterator[tuple[Packet, int]]:
    """Seeks to a packet or to one before it, and gives the packets from there with their numbers.

    Nothing where the file cannot seek there.
    """
    # Some containers look for a packet by the one time, some by the other.
    for time in (index.times[start], index.decoding_times[start]):
        video.container.seek(int(time), stream=video.stream, backward=True)
        following = video.packets()
        first = next(following, None)
        number = None if first is None else index.number_of(first)
        if first is not None and number is not None and number <= start:
            last = len(index.times)
            yield from zip(itertools.chain([first], following), range(number, last), strict=False)
            return


def _is_as_expected(times: list[int], index: FrameIndex, run: _Run) -> bool:
    if not run.frame_of_time.keys() <= set(times) or times != sorted(set(times)):
        return False
    if index.skips_unreferenced:
        return True
    fed = index.times[run.start : run.last + 1]
    # Frames that are shown before the entry may be missing: they need what comes before it.
    return [time for time in times if time >= fed[0]] == sorted(fed[fed >= fed[0]])
