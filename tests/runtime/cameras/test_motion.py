"""The measure of motion."""

from __future__ import annotations

import numpy as np
import pytest
from timesformer_runtime.cameras.motion import USUAL_LEVEL, motion


def test_equal_frames_do_not_move() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (1, 3, 50, 60), dtype=np.uint8)
    assert motion([frame] * 4) == 0.0


def test_the_measure_is_the_change_of_luma_of_the_cell_that_changes_most() -> None:
    before = np.full((64, 64, 3), 100, np.uint8)
    after = before.copy()
    after[:4, :4, 1] += 50  # one cell of 16x16, green
    after[4:8, :4] += 10
    assert motion([before, after]) == pytest.approx(50 * 0.587, abs=1e-3)
    assert motion([after, before, after]) == pytest.approx(50 * 0.587, abs=1e-3)


def test_a_slow_change_counts_as_a_fast_one() -> None:
    frames = [np.full((1, 3, 20, 20), 100 + number, np.uint8) for number in range(9)]
    assert motion(frames) == pytest.approx(8.0, abs=1e-3)


def test_the_layouts_agree() -> None:
    random = np.random.default_rng(1)
    frames = [random.integers(0, 256, (37, 41, 3), dtype=np.uint8) for _ in range(3)]
    planes = [frame.transpose(2, 0, 1)[None] for frame in frames]
    assert motion(planes) == pytest.approx(motion(frames))


def test_the_noise_of_a_camera_is_not_motion() -> None:
    random = np.random.default_rng(2)
    scene = random.integers(20, 230, (1, 3, 224, 224))
    frames = [
        np.clip(scene + random.normal(0, 8, scene.shape), 0, 255).astype(np.uint8) for _ in range(8)
    ]
    assert motion(frames) < USUAL_LEVEL


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 1, 5, 7), (3, 3, 17, 16)])
def test_small_and_grey_frames(shape: tuple[int, ...]) -> None:
    dark, bright = np.zeros(shape, np.uint8), np.full(shape, 200, np.uint8)
    assert motion([dark, bright]) == pytest.approx(200.0, abs=1e-2)


def test_a_change_of_the_size_is_motion() -> None:
    frames = [np.zeros((10, 10, 3), np.uint8), np.zeros((20, 10, 3), np.uint8)]
    assert motion(frames) == 255.0
