"""Decodes only what the wanted frames of a video need."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import av

from timesformer_runtime.video.container import OpenVideo
from timesformer_runtime.video.decoding import Decoded, Keeper
from timesformer_runtime.video.index.frame_index import FrameIndex
from timesformer_runtime.video.pixels import Rendering

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet


def decode_selected(
    video: OpenVideo,
    index: FrameIndex,
    wanted: Sequence[int],
    rendering: Rendering | None = None,
    kept: Sequence[Packet] | None = None,
) -> Decoded | None:
    """Decodes only what the wanted frames need.

    Args:
        video: The open file; it may stand anywhere.
        index: Which packet gives which frame.
        wanted: Indices of frames, ascending.
        rendering: Makes of a decoded picture what is kept.
        kept: All packets where they were read already; then no seeking is needed.

    Returns:
        The same frames as ``decode_all``; None where something was not as the index promised.
    """
    decoded = Decoded(count=len(index.times), start=index.start)
    keeper = Keeper(video.stream, video.watch, rendering or Rendering(), decoded)
    for run in _runs(index, wanted):
        try:
            demuxed = _packets_of_run(video, index, run, kept)
            if not _decode_run(video, index, run, demuxed, keeper, decoded):
                return None
        except av.FFmpegError:
            return None
    return decoded


@dataclasses.dataclass
class _Run:
    """Packets that are decoded one after the other, for the sake of some frames."""

    start: int
    last: int
    frame_of_packet: dict[int, int]  # the wanted frames


def _runs(index: FrameIndex, wanted: Sequence[int]) -> list[_Run]:
    runs: list[_Run] = []
    for frame in wanted:
        packet = int(index.packet_of_frame[frame])
        entry = index.entry_for(packet)
        if not runs or entry > runs[-1].last:
            runs.append(_Run(entry, packet, {}))
        runs[-1].last = max(runs[-1].last, packet)
        runs[-1].frame_of_packet[packet] = frame
    return runs


def _decode_run(
    video: OpenVideo,
    index: FrameIndex,
    run: _Run,
    demuxed: Iterator[tuple[Packet | None, int]],
    keeper: Keeper,
    decoded: Decoded,
) -> bool:
    """Decodes a run and keeps its wanted frames; False where it is not as expected."""
    decoder = video.stream.codec_context
    decoder.skip_frame = "DEFAULT"
    is_skipping = False
    frame_of_time: dict[int | None, int] = {}
    fed: list[int] = []
    times: list[int] = []
    for packet, number in demuxed:
        if packet is not None:
            if packet.pts is None:
                return False
            fed.append(packet.pts)
            if number in run.frame_of_packet:
                frame_of_time[packet.pts] = run.frame_of_packet[number]
            if index.skips_unreferenced and is_skipping != (number not in run.frame_of_packet):
                is_skipping = not is_skipping
                decoder.skip_frame = "NONREF" if is_skipping else "DEFAULT"
        for picture in video.decode(packet):
            if picture.pts is None or not _is_usable(picture, index):
                return False
            times.append(picture.pts)
            if picture.pts in frame_of_time:
                video.watch.check_pixels(picture.width, picture.height)
                decoded.sizes.add((picture.height, picture.width))
                keeper.keep(frame_of_time[picture.pts], picture)
    # A wanted packet may lie before the run: its time is then far behind those around it.
    has_all = len(fed) == run.last - run.start + 1 and len(frame_of_time) == len(
        run.frame_of_packet
    )
    if not has_all or not frame_of_time.keys() <= set(times):
        return False
    return _is_as_expected(times, fed, skips=index.skips_unreferenced)


def _is_usable(picture: av.VideoFrame, index: FrameIndex) -> bool:
    # Where pictures are left out, nothing else would show that packets are fields, two a frame.
    may_be_field = index.skips_unreferenced and picture.interlaced_frame
    return not picture.is_corrupt and not may_be_field


def _packets_of_run(
    video: OpenVideo, index: FrameIndex, run: _Run, kept: Sequence[Packet] | None
) -> Iterator[tuple[Packet | None, int]]:
    """The packets of a run with their numbers, and None at its end.

    Fewer where the file does not give them in that order.
    """
    if kept is not None:
        video.stream.codec_context.flush_buffers()
        for number in range(run.start, run.last + 1):
            yield kept[number], number
        yield None, run.last
        return
    first, following = _seek(video, index, run.start)
    times = index.times[first : run.last + 1].tolist()
    for number, (time, packet) in enumerate(zip(times, following, strict=False), first):
        if packet.pts != time:
            return
        if number >= run.start:
            yield packet, number
    yield None, run.last


def _seek(video: OpenVideo, index: FrameIndex, start: int) -> tuple[int, Iterator[Packet]]:
    """Seeks to a packet or to one before it; gives its number and the packets from there.

    There are none where the file cannot seek there.
    """
    for times in (index.times, index.decoding_times):
        video.container.seek(int(times[start]), stream=video.stream, backward=True)
        following = video.packets()
        first = next(following, None)
        number = None if first is None else index.number_of(first)
        if first is not None and number is not None and number <= start:
            return number, itertools.chain([first], following)
    return start, iter(())


def _is_as_expected(times: list[int], fed: list[int], *, skips: bool) -> bool:
    if times != sorted(set(times)):
        return False
    if skips:
        return True
    # Frames that are shown before the entry may be missing: they need what comes before it.
    return [time for time in times if time >= fed[0]] == sorted(
        time for time in fed if time >= fed[0]
    )
