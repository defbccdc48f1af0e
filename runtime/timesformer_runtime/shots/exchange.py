"""Edit lists for editing programs: OpenTimelineIO, and EDL (CMX 3600). Needs ``evaluate``.

For Python 3.14 OpenTimelineIO has to be built from its source, so that extra leaves it out there.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import InvalidOptionError, printable
from timesformer_runtime.extras import needs_installed
from timesformer_runtime.shots.edit_list import EditList, Shot, Transition

with needs_installed("opentimelineio otio-cmx3600-adapter"):
    import opentimelineio as otio

    importlib.import_module("otio_cmx3600_adapter")  # opentimelineio loads it by name

MOST_EVENTS = 999  # that CMX 3600 can number

_TIMECODE_RATES = (24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 48.0, 50.0, 60000 / 1001, 60.0)
_DROP_FRAME_RATES = (30000 / 1001, 60000 / 1001)
_ROUNDING = 3e-4  # 29.97 and 30 frames a second are three times as far apart


def check_timecode_rate(rate: float) -> None:
    """Checks that an EDL can have a video's rate.

    Raises:
        InvalidOptionError: There are no timecodes of this rate.
    """
    if _nominal(rate) not in _TIMECODE_RATES:
        rates = ", ".join(f"{known:.5g}" for known in _TIMECODE_RATES)
        raise InvalidOptionError(
            f"the video has {rate:.5g} frames a second, and the timecodes of an EDL count {rates}; "
            "take `form=otio`, or convert the video to one of these rates"
        )


def edl(edit_list: EditList, video: str | None) -> str:
    """Writes an EDL (CMX 3600): one event for each shot, all of them cuts.

    A line ``* LOC`` marks a gradual transition. 29.97 and 59.94 frames a second have drop-frame
    timecodes.

    Args:
        edit_list: The shots.
        video: The path of the video; None where it has none.

    Raises:
        InvalidOptionError: There are no timecodes of the video's rate.
    """
    check_timecode_rate(edit_list.rate)
    timeline = _timeline(edit_list, video, video or "")
    rate = _nominal(edit_list.rate)
    text: str = otio.adapters.write_to_string(timeline, "cmx_3600", rate=rate)
    counting = "DROP FRAME" if rate in _DROP_FRAME_RATES else "NON-DROP FRAME"
    title, events = text.split("\n\n", 1)
    return f"{title}\nFCM: {counting}\n\n{events}"


def opentimelineio(edit_list: EditList, video: str | None) -> str:
    """Writes OpenTimelineIO's JSON: a video track with a clip for each shot.

    A marker has the name and the frames of each gradual transition.

    Args:
        edit_list: The shots.
        video: The path of the video; None where it has none.
    """
    url = Path(video).absolute().as_uri() if video else ""
    text: str = otio.adapters.write_to_string(_timeline(edit_list, video, url), "otio_json")
    return text + "\n"


def counts_by_time(edit_list: EditList) -> bool:
    """Tells if frames are shown more than half a frame off the grid of the stated rate.

    Editing programs play a file at its stated rate. The index of a frame is then not the number
    under which they show it; its time is.
    """
    return any(abs(t * edit_list.rate - index) > 0.5 for index, t in enumerate(edit_list.times))


def _timeline(edit_list: EditList, video: str | None, url: str) -> Any:
    name = printable(Path(video).name) if video else "video"
    rate = _nominal(edit_list.rate)
    by_time = counts_by_time(edit_list)
    frames = _timeline_frames(edit_list, by_time)
    shots = edit_list.shots
    bounds = _bounds(shots, frames)
    whole = _range(0, bounds[-1], rate)
    timeline = otio.schema.Timeline(
        name=name,
        global_start_time=otio.opentime.RationalTime(0, rate),
        metadata={"timesformer": {"frames_count_by": "time" if by_time else "index"}},
    )
    track = otio.schema.Track(name="V1", kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    for number, (start, end) in enumerate(itertools.pairwise(bounds), start=1):
        media = (
            otio.schema.ExternalReference(target_url=url, available_range=whole)
            if url
            else otio.schema.MissingReference(name=name, available_range=whole)
        )
        clip = otio.schema.Clip(name, media, _range(start, end, rate))
        clip.metadata["cmx_3600"] = {"reel": "AX"}
        clip.metadata["timesformer"] = {"shot": number}
        following = shots[number].opening if number < len(shots) else None
        if following is not None and not following.is_cut:
            clip.markers.append(_marker(following, frames, rate))
        track.append(clip)
    return timeline


def _bounds(shots: Sequence[Shot], frames: Sequence[int]) -> list[int]:
    """Gives the start of each shot, and the end of the last one; a shot has at least one frame."""
    bounds = [frames[shots[0].first]]
    for shot in shots:
        bounds.append(max(frames[shot.last + 1], bounds[-1] + 1))
    return bounds


def _marker(transition: Transition, frames: Sequence[int], rate: float) -> Any:
    start = frames[transition.first]
    end = max(frames[transition.last + 1], start + 1)
    length = f"{end - start} frames" if end - start > 1 else "1 frame"
    return otio.schema.Marker(
        name=f"{printable(transition.kind)}, {length}",
        marked_range=_range(start, end, rate),
        color=otio.schema.MarkerColor.RED,
        metadata={"timesformer": {"kind": transition.kind, "score": round(transition.score, 4)}},
    )


def _range(start: int, end: int, rate: float) -> Any:
    return otio.opentime.TimeRange(
        otio.opentime.RationalTime(start, rate), otio.opentime.RationalTime(end - start, rate)
    )


def _nominal(rate: float) -> float:
    """Gives the rate of timecodes that a stated rate means, else the stated rate."""
    return next((r for r in _TIMECODE_RATES if math.isclose(r, rate, rel_tol=_ROUNDING)), rate)


def _timeline_frames(edit_list: EditList, by_time: bool) -> list[int]:
    """Computes the number that editing programs give to each frame, and to the end.

    It is the index in a video of constant rate. Else it is the frame's time in a video of the
    stated rate, as these programs take it; frames that follow one another faster share a number.
    """
    if by_time:
        frames = [round(time * edit_list.rate) for time in edit_list.times]
    else:
        frames = [*range(len(edit_list.times))]
    return [*frames, frames[-1] + 1]
