"""Tests how times are written on pictures."""

from __future__ import annotations

import pytest
from timesformer_runtime.pictures.drawing import clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.2, "3.20 s"),
        (59.994, "59.99 s"),
        (59.996, "1:00.0"),
        (63.2, "1:03.2"),
        (119.97, "2:00.0"),
        (3599.94, "59:59.9"),
        (3599.96, "1:00:00"),
        (3659.6, "1:01:00"),
        (3723.4, "1:02:03"),
        (7199.7, "2:00:00"),
    ],
)
def test_a_time_never_has_sixty_seconds_or_minutes(seconds: float, text: str) -> None:
    assert clock(seconds) == text
