"""Curves over time for the motion of camera and objects, and for changes of light."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Curve = Callable[[float], float]
"""A value over time in seconds."""


def still(time: float) -> float:  # noqa: ARG001 (a curve)
    """A curve without change: 0 at any time."""
    return 0.0


def ramp(rng: np.random.Generator, seconds: float, most: float) -> Curve:
    """A change by up to ``most``, spread over some of the time, with or without easing."""
    amount, (first, duration) = rng.uniform(-most, most), interval(rng, seconds)
    eased, begin = rng.random() < 0.5, -amount * rng.uniform(0, 1)

    def curve(time: float) -> float:
        p = min(max((time - first) / duration, 0.0), 1.0)
        return float(begin + amount * (p * p * (3 - 2 * p) if eased else p))

    return curve


def interval(rng: np.random.Generator, seconds: float) -> tuple[float, float]:
    """Draws when a change begins and how long it takes, in seconds: all of the time, or a part."""
    if rng.random() < 0.4:
        return 0.0, seconds
    duration = seconds * rng.uniform(0.35, 1.0)
    return rng.uniform(0, seconds - duration), duration


def fast(rng: np.random.Generator, seconds: float, most: float) -> Curve:
    """Quick motion without a pause: to one side and back, about once in the clip."""
    rate = rng.uniform(0.3, 1.5) / seconds
    amount, phase = most * rng.uniform(0.5, 1.0), rng.uniform(0, 1)
    # A triangle wave: constant speed between its turning points.
    return lambda t: amount * (4 * abs((t * rate + phase) % 1 - 0.5) - 1)


def shake(rng: np.random.Generator, amount: float, fastest: float = 4.0) -> Curve:
    """Three sines of random rates up to ``fastest`` a second, together about ``amount``."""
    rates, phases = rng.uniform(0.3, fastest, 3), rng.uniform(0, 7, 3)
    weights = rng.uniform(0.2, 1.0, 3) * amount
    return lambda t: float((weights * np.sin(2 * math.pi * rates * t + phases)).sum())


def flashes(rng: np.random.Generator, seconds: float) -> Curve:
    """Short pulses of light that come and go; the scene is the same before and after."""
    moments = rng.uniform(0.12, 0.88, int(rng.choice((1, 1, 2)))) * seconds
    widths = rng.uniform(0.03, 0.16, len(moments)) * seconds
    heights = rng.uniform(0.4, 1.0, len(moments))

    def curve(time: float) -> float:
        rise = 1 - np.abs(time - moments) / widths
        return float(np.clip(heights * np.clip(rise * 1.5, 0, 1), 0, 1).max())

    return curve


def light_change(rng: np.random.Generator, seconds: float) -> Curve:
    """A lasting change of light by a factor of up to 2.5, quick or slow, as by clouds and lamps."""
    amount = rng.uniform(0.35, 0.9) * rng.choice((-1, 1))
    share = rng.uniform(0.2, 0.8)  # the part of the change that is below the scene's brightness
    moment, duration = rng.uniform(0.15, 0.85) * seconds, seconds * rng.choice((0.01, 0.2, 0.6))
    back = rng.random() < 0.25

    def curve(time: float) -> float:
        p = min(max((time - moment) / duration + 0.5, 0.0), 1.0)
        if back:
            p = min(2 * p, 2 - 2 * p)
        return float(amount * (p - share))

    return curve
