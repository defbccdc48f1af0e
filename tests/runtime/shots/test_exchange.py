"""Edit lists as editing programs read them, parsed here with nothing but the formats' rules."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import pytest
from timesformer_runtime import InvalidOptionError
from timesformer_runtime.shots import EditList, Transition

otio = pytest.importorskip("opentimelineio")  # which has no wheel for the newest Python

from timesformer_runtime.shots.exchange import edl, opentimelineio  # noqa: E402

NTSC = 30000 / 1001
EVENT = re.compile(
    r"(\d{3,})  (\S+) +V +C +(\S{11}) (\S{11}) (\S{11}) (\S{11})",
)


def edit_list(rate: float, count: int = 40_000, times: tuple[float, ...] | None = None) -> EditList:
    """Cuts at frames 100 and 18,000, and between them a dissolve over the frames 1790 to 1809."""
    return EditList(
        rate,
        times or tuple(index / rate for index in range(count)),
        (
            Transition("cut", 100, 100, 0.9),
            Transition("dissolve", 1790, 1809, 0.8),
            Transition("cut", 18_000, 18_000, 0.7),
        ),
    )


def frame_of(timecode: str, rate: float) -> int:
    """The number of the frame with a timecode; with ";" two numbers a minute are left out."""
    hours, minutes, seconds, frames = map(int, re.split("[:;]", timecode))
    whole = round(rate)
    count = ((hours * 60 + minutes) * 60 + seconds) * whole + frames
    if ";" not in timecode:
        return count
    all_minutes = hours * 60 + minutes
    return count - whole // 15 * (all_minutes - all_minutes // 10)


@pytest.mark.parametrize(
    ("rate", "is_drop_frame"),
    [
        (24000 / 1001, False),
        (24.0, False),
        (25.0, False),
        (NTSC, True),
        (29.97, True),
        (30.0, False),
        (50.0, False),
        (60000 / 1001, True),
        (60.0, False),
    ],
)
def test_the_events_of_an_edl_have_the_frames_of_the_shots(
    rate: float, is_drop_frame: bool
) -> None:
    found = edit_list(rate)
    text = edl(found, "/films/my film.mp4")
    lines = text.splitlines()
    assert lines[0] == "TITLE: my film.mp4"
    assert lines[1] == f"FCM: {'DROP FRAME' if is_drop_frame else 'NON-DROP FRAME'}"
    events = EVENT.findall(text)
    assert [int(event[0]) for event in events] == [1, 2, 3, 4]
    shots = [(0, 100), (100, 1800), (1800, 18_000), (18_000, 40_000)]
    for event, shot in zip(events, shots, strict=True):
        assert event[1] == "AX"
        source, record = event[2:4], event[4:6]
        assert all((";" in code) == is_drop_frame for code in event[2:])
        assert tuple(frame_of(code, rate) for code in source) == shot
        assert record == source
    assert text.count("* FROM CLIP NAME:  my film.mp4") == 4
    (marker,) = re.findall(r"\* LOC: (\S{11}) RED +(.*)", text)
    assert frame_of(marker[0], rate) == 1790
    assert marker[1] == "DISSOLVE, 20 FRAMES"


def test_the_example_of_drop_frame_timecodes() -> None:
    """Of SMPTE ST 12: after 00:00:59;29 comes 00:01:00;02, and 00:10:00;00 is frame 17,982."""
    found = EditList(
        NTSC,
        tuple(index / NTSC for index in range(20_000)),
        (Transition("cut", 1800, 1800, 1.0), Transition("cut", 17_982, 17_982, 1.0)),
    )
    events = EVENT.findall(edl(found, "a.mp4"))
    assert [event[2] for event in events] == ["00:00:00;00", "00:01:00;02", "00:10:00;00"]


@pytest.mark.parametrize("rate", [10.0, 12.5, 29.5, 100.0])
def test_rates_without_timecodes_are_refused(rate: float) -> None:
    with pytest.raises(InvalidOptionError, match=f"{rate:g} frames a second.*otio"):
        edl(edit_list(rate), "a.mp4")
    assert opentimelineio(edit_list(rate), "a.mp4")


def test_opentimelineio_has_clips_markers_and_the_video(tmp_path: Path) -> None:
    rate = NTSC
    video = tmp_path / "my film.mp4"
    text = opentimelineio(edit_list(rate), str(video))
    track = json.loads(text)["tracks"]["children"][0]
    assert track["kind"] == "Video"
    ranges = []
    for clip in track["children"]:
        (media,) = clip["media_references"].values()
        assert media["target_url"] == video.as_uri()
        assert media["available_range"]["duration"]["value"] == 40_000
        start, duration = (clip["source_range"][key] for key in ("start_time", "duration"))
        assert Fraction(start["rate"]).limit_denominator(1001) == Fraction(30000, 1001)
        ranges.append((start["value"], duration["value"]))
    assert ranges == [(0, 100), (100, 1700), (1800, 16_200), (18_000, 22_000)]
    (marker,) = [marker for clip in track["children"] for marker in clip["markers"]]
    assert marker["marked_range"]["start_time"]["value"] == 1790
    assert marker["marked_range"]["duration"]["value"] == 20
    assert marker["metadata"]["timesformer"] == {"kind": "dissolve", "score": 0.8}
    # As programs with the library read it: the clips follow one another without gaps.
    timeline = otio.adapters.read_from_string(text, "otio_json")
    assert timeline.duration() == otio.opentime.RationalTime(40_000, rate)


def test_a_video_of_variable_rate_counts_by_time() -> None:
    """After frame 99 each frame is shown twice as long."""
    times = tuple((index + max(0, index - 99)) / 25 for index in range(20_000))
    events = EVENT.findall(edl(edit_list(25.0, times=times), "a.mp4"))
    assert [frame_of(event[2], 25) for event in events] == [0, 101, 3501, 35_901]
    assert frame_of(events[-1][3], 25) == 19_999 + 19_900 + 1


def test_frames_that_are_denser_than_the_stated_rate_do_not_push_later_cuts() -> None:
    """A second of 20 frames in 20 s, then 180 frames in 3 s, then one a second again."""
    times = (*range(20), *(20 + index / 60 for index in range(180)), *range(23, 43))
    cuts = tuple(Transition("cut", first, first, 0.9) for first in (20, 110, 200))
    found = EditList(5.2, tuple(map(float, times)), cuts)
    timeline = otio.adapters.read_from_string(opentimelineio(found, "a.mp4"), "otio_json")
    starts = [clip.source_range.start_time.to_seconds() for clip in timeline.find_clips()]
    assert starts == pytest.approx([0, 20, 21.5, 23], abs=0.5 / 5.2)
    assert timeline.duration().to_seconds() == pytest.approx(42 + 1 / 5.2, abs=0.5 / 5.2)
    assert timeline.metadata["timesformer"] == {"frames_count_by": "time"}


def test_shots_within_one_frame_of_the_stated_rate_keep_a_frame_each() -> None:
    """Five shots in 50 ms of a video at 25 frames a second; the cut after them stays in time."""
    times = (0.0, 1.0, *(1 + index / 100 for index in range(1, 6)), 2.0, 3.0)
    cuts = tuple(Transition("cut", first, first, 0.9) for first in (*range(1, 6), 7))
    events = EVENT.findall(edl(EditList(25.0, times, cuts), "a.mp4"))
    starts = [frame_of(event[2], 25) for event in events]
    assert starts == [0, 25, 26, 27, 28, 29, 50]
    assert [frame_of(event[3], 25) for event in events] == [*starts[1:], 76]


def test_a_transition_within_one_frame_keeps_a_frame() -> None:
    times = (0.0, 1.0, 1.001, 1.002, 1.003, 2.0)
    found = EditList(25.0, times, (Transition("dissolve", 2, 3, 0.9),))
    (marker,) = re.findall(r"\* LOC: (\S{11}) RED +(.*)", edl(found, "a.mp4"))
    assert marker == ("00:00:01:00", "DISSOLVE, 1 FRAME")


def test_rounded_times_count_as_a_constant_rate() -> None:
    """Matroska rounds times to milliseconds."""
    rate = NTSC
    times = tuple(round(index / rate, 3) for index in range(40_000))
    events = EVENT.findall(edl(edit_list(rate, times=times), "a.mkv"))
    assert [frame_of(event[2], rate) for event in events] == [0, 100, 1800, 18_000]


def test_a_video_without_a_path_and_names_that_would_add_lines() -> None:
    assert "MissingReference" in opentimelineio(edit_list(25.0), None)
    assert len(EVENT.findall(edl(edit_list(25.0), None))) == 4
    text = edl(edit_list(25.0), "/a\n005  AX       V     C.mp4")
    assert len(EVENT.findall(text)) == 4
    assert all(re.match(r"(TITLE|FCM|\d{3}  AX|\* |$)", line) for line in text.splitlines())
