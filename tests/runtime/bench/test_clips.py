"""The generated clips."""

import numpy as np
import pytest
from timesformer_runtime.bench.clips import generated_frame


@pytest.mark.parametrize("size", [(24, 24), (33, 50), (5, 3)])
def test_frames_have_any_size_and_no_two_are_alike(size: tuple[int, int]) -> None:
    frames = [generated_frame(clip, number, size) for clip in range(12) for number in (0, 2)]
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((*size, 3), "uint8")}
    assert len({frame.tobytes() for frame in frames}) == len(frames)
    again = generated_frame(3, 2, size)
    np.testing.assert_array_equal(again, generated_frame(3, 2, size))
