"""The benchmark of shots: how it counts, and films whose transitions are where it says."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import av
import numpy as np
import pytest

from tests.benchmarks.shot_films import PARTS, Film, Known, make_films
from tests.benchmarks.shots import score

CLIPS = Path(os.environ.get("TIMESFORMER_TEST_CLIPS", "missing"))


def test_each_detection_counts_once() -> None:
    film = Film(
        Path("a.mp4"),
        500,
        25,
        (Known("cut", 100, 100), Known("dissolve", 200, 219), Known("cut", 300, 300)),
    )
    found = score([film], [[(98, 98), (101, 101), (190, 236), (220, 223), (303, 303), (400, 400)]])
    assert [(known.first, span) for known, span in found.pairs] == [
        (100, (101, 101)),  # the nearest one
        (200, (190, 236)),  # its middle is nearer to the transition's
    ]
    assert found.missed == (film.transitions[2],)  # three frames off
    assert found.false == 4
    assert found.f1 == pytest.approx(2 * 2 / (2 * 2 + 4 + 1))
    assert (found.found("cut"), found.found("dissolve"), found.found("fade")) == (
        "1/2",
        "1/1",
        "0/0",
    )


def test_the_halves_have_no_video_in_common() -> None:
    names = [{name for name, *_ in PARTS[half]} for half in ("tuning", "test")]
    assert not names[0] & names[1]


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not here")
def test_films_change_at_the_known_frames(tmp_path: Path) -> None:
    (film,) = make_films(CLIPS, tmp_path, "test", films=1, shots=8, seed=7)
    with av.open(str(film.path), "r") as container:
        frames = [
            frame.to_ndarray(format="gray").astype(np.float32)
            for frame in container.decode(video=0)
        ]
    assert len(frames) == film.frames
    changes = np.array([np.abs(b - a).mean() for a, b in itertools.pairwise(frames)])
    assert len(film.transitions) == 7
    for known in film.transitions:
        inside = changes[known.first - 1 : known.last + 1]
        around = np.concatenate(
            [changes[known.first - 15 : known.first - 4], changes[known.last + 4 : known.last + 15]]
        )
        assert inside.sum() > 10  # grey levels, from one scene to the other
        assert inside.max() > np.median(around)
