"""The search in frames, with a made-up model whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.shots.edit_list import EditList, Transition
from timesformer_runtime.shots.search import Labels, find_transitions, without_overlaps

LABELS = Labels(("none", "cut", "fade_in", "fade_out", "dissolve", "wipe_left"))
VALUES = 300
Scenes = npt.NDArray[np.float32]


def scene(seed: int, count: int) -> Scenes:
    """Frames of a still scene with a little noise."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(0, 255, VALUES) + rng.normal(0, 1, (count, VALUES))).astype(np.float32)


def model(shares: npt.NDArray[np.float64], gradual: str) -> object:
    """Answers as a perfect model does that knows each frame's share of the next scenes."""

    def scores(clips: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
        found = np.full((len(clips), len(LABELS.names)), 0.01)
        for row, clip in enumerate(clips):
            seen = shares[clip]
            between = np.unique(seen[(seen % 1 > 0.03) & (seen % 1 < 0.97)])
            changes = seen[-1] - seen[0] > 0.5
            name = gradual if changes and len(between) > 1 else "cut" if changes else "none"
            found[row, LABELS.names.index(name)] = 0.95
        return found

    return scores


@pytest.mark.parametrize("rate", [12.0, 25.0, 60.0])
def test_cuts_at_each_place_of_a_video(rate: float) -> None:
    for frame in (1, 2, 5, 9, 50, 96, 98, 99):
        pixels = np.concatenate([scene(0, frame), scene(1, 100 - frame)])
        shares = (np.arange(100) >= frame).astype(float)
        found = find_transitions(pixels, rate, 8, LABELS, model(shares, "dissolve"))  # type: ignore[arg-type]
        assert [(one.kind, one.first, one.last) for one in found] == [("cut", frame, frame)]
        assert 0.5 < found[0].score <= 1


@pytest.mark.parametrize("length", [2, 3, 5, 8, 15, 30])
@pytest.mark.parametrize("label", ["dissolve", "wipe_left"])
def test_the_bends_are_the_ends_of_a_gradual_transition(length: int, label: str) -> None:
    shares = np.clip((np.arange(200) - 90 + 1) / (length + 1), 0, 1)
    old, new = scene(2, 200), scene(3, 200)
    pixels = (old * (1 - shares[:, None]) + new * shares[:, None]).astype(np.float32)
    found = find_transitions(pixels, 25.0, 8, LABELS, model(shares, label))  # type: ignore[arg-type]
    assert [one.kind for one in found] == [label]
    assert abs(found[0].first - 90) <= 2
    assert abs(found[0].last - (90 + length - 1)) <= 2


@pytest.mark.parametrize(
    ("kind", "levels"),
    [
        ("fade_in", lambda share: share),
        ("fade_out", lambda share: 1 - share),
        ("fade", lambda share: abs(1 - 2 * share)),
    ],
)
def test_one_flat_colour_makes_a_fade(kind: str, levels: object) -> None:
    shares = np.clip((np.arange(160) - 69) / 25, 0, 1)
    contrast = levels(shares)  # type: ignore[operator]
    pixels = (scene(4, 160) * contrast[:, None]).astype(np.float32)
    found = find_transitions(pixels, 25.0, 8, LABELS, model(shares, "dissolve"))  # type: ignore[arg-type]
    assert [one.kind for one in found] == [kind]


def test_transitions_that_share_a_frame_are_one() -> None:
    cut, later = Transition("cut", 12, 12, 0.9), Transition("cut", 21, 21, 0.8)
    dissolve = Transition("dissolve", 10, 20, 0.7)
    assert without_overlaps([later, cut, dissolve]) == [dissolve, later]


def test_an_edit_list_as_json_types() -> None:
    found = EditList(
        10.0,
        tuple(index / 10 for index in range(30)),
        (Transition("cut", 8, 8, 0.75), Transition("dissolve", 20, 23, 0.5)),
        ("the end is missing",),
    )
    assert found.to_dict() == {
        "rate": 10.0,
        "frames": 30,
        "duration": 3.0,
        "shots": [
            {"first": 0, "last": 7, "start": 0.0, "end": 0.8},
            {"first": 8, "last": 21, "start": 0.8, "end": 2.2},
            {"first": 22, "last": 29, "start": 2.2, "end": 3.0},
        ],
        "transitions": [
            {"kind": "cut", "first": 8, "last": 8, "score": 0.75, "start": 0.8, "end": 0.8},
            {"kind": "dissolve", "first": 20, "last": 23, "score": 0.5, "start": 2.0, "end": 2.4},
        ],
        "problems": ["the end is missing"],
    }
