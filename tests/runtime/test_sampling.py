"""Which frames a model gets to see."""

import numpy as np
import pytest
from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.sampling import uniform


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 100, 7200, 1_000_003])
@pytest.mark.parametrize("num_frames", [1, 2, 8, 16, 96])
def test_uniform_is_the_documented_rule(count: int, num_frames: int) -> None:
    indices = uniform(count, num_frames)
    assert indices.dtype == np.int64
    expected = [int(i * (count - 1) / max(num_frames - 1, 1)) for i in range(num_frames)]
    # Floats round differently where a position is an integer: never by more than one frame.
    assert np.abs(indices - expected).max() <= 1
    assert indices.tolist() == np.linspace(0, count - 1, num_frames).astype(int).tolist()


def test_uniform_includes_both_ends_and_repeats_in_short_videos() -> None:
    assert uniform(300, 8).tolist() == [0, 42, 85, 128, 170, 213, 256, 299]
    assert uniform(3, 8).tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert uniform(10, 1).tolist() == [0]


@pytest.mark.parametrize(("count", "num_frames", "name"), [(0, 8, "count"), (8, 0, "num_frames")])
def test_uniform_names_the_number_that_is_too_small(count: int, num_frames: int, name: str) -> None:
    with pytest.raises(InvalidOptionError, match=f"{name} is 0"):
        uniform(count, num_frames)
