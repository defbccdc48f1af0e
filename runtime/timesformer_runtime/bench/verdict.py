"""Says which variant to use on this machine, with how many threads, and why."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence

from timesformer_runtime.bench.measure import Measured, counted

# A case is faster than another one if its fastest run was so in at least this share of the rounds,
# and by at least this factor in the median round. Smaller differences count as noise.
_SURE_SHARE, _SURE_FACTOR = 0.75, 1.02
# The recommended case takes at most this many times the time of the fastest one, however large the
# noise is.
_CLOSE = 1.1


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The recommendation.

    Attributes:
        one_clip: The case for one clip at a time; None where no case can be recommended.
        many_clips: The case for as many clips a second as possible.
        sentence: Both cases with their reasons, for people.
    """

    one_clip: Measured | None
    many_clips: Measured | None
    sentence: str


def verdict(measured: Sequence[Measured]) -> Verdict:
    """Chooses among the measured cases.

    A variant that disagrees with fp32 beyond the gate's limits is never chosen. Among cases that
    are nearly as fast as the fastest one, within the noise, the variant that is nearest to fp32 is
    chosen, and of one variant the case with the fewest threads.

    Args:
        measured: The measurements of all cases.
    """
    allowed = [one for one in measured if _agrees(one)]
    if not allowed:
        return Verdict(None, None, f"No variant can be recommended{_rejected(measured)}.")
    one_clip, equal = _best(allowed, lambda one: one.fastest)
    many_clips, _ = _best(allowed, lambda one: [1 / rate for rate in one.rates])
    sentence = (
        f"Use {one_clip.dtype} with {counted(one_clip.threads, 'thread')}: "
        f"{milliseconds(one_clip.median)} a clip{_gain(one_clip, allowed)}"
        f"{_agreement(one_clip, measured)}{_equals(one_clip, equal)}"
        f"{_throughput(one_clip, many_clips)}{_rejected(measured)}."
    )
    return Verdict(one_clip, many_clips, sentence)


def disturbance(measured: Sequence[Measured]) -> float:
    """Divides the time of a typical run by that of the fastest ones; 1 on a quiet machine."""
    return statistics.median(one.median / statistics.median(one.fastest) for one in measured)


def milliseconds(seconds: float) -> str:
    """Writes a time with three digits, such as ``41.3 ms``."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def _agrees(one: Measured) -> bool:
    return one.dtype == "fp32" or (
        not one.incomparable and (one.agreement is None or one.agreement.passed)
    )


def _best(
    cases: Sequence[Measured], times: Callable[[Measured], Sequence[float]]
) -> tuple[Measured, list[Measured]]:
    """Finds the case to take, and the others that are as fast as the fastest one."""
    medians = {id(one): statistics.median(times(one)) for one in cases}
    fastest = min(cases, key=lambda one: medians[id(one)])
    equal = [one for one in cases if not _is_faster(times(fastest), times(one))]
    close = [one for one in equal if medians[id(one)] <= _CLOSE * medians[id(fastest)]]
    best = min(close, key=lambda one: (_distance(one), one.threads))
    return best, [one for one in equal if one is not best]


def _is_faster(times: Sequence[float], others: Sequence[float]) -> bool:
    """True if a case was faster than another one beyond the noise, round by round."""
    factors = [other / time for time, other in zip(times, others, strict=False)]
    sure = sum(factor > 1 for factor in factors) / len(factors)
    return sure >= _SURE_SHARE and statistics.median(factors) >= _SURE_FACTOR


def _distance(one: Measured) -> float:
    """How far a variant's answers are from fp32's."""
    return 0.0 if one.agreement is None else one.agreement.relative


def _gain(chosen: Measured, allowed: Sequence[Measured]) -> str:
    """Compares the chosen case with fp32's best, or with the same variant on one thread."""
    others = [one for one in allowed if one.dtype == "fp32"]
    if chosen.dtype == "fp32" or not others:
        others = [one for one in allowed if one.dtype == chosen.dtype and one.threads == 1]
    other = min(others, key=lambda one: statistics.median(one.fastest), default=chosen)
    if other is chosen or not _is_faster(chosen.fastest, other.fastest):
        return ""
    factor = statistics.median(b / a for a, b in zip(chosen.fastest, other.fastest, strict=False))
    name = other.dtype if other.dtype != chosen.dtype else ""
    rival = " with ".join(filter(None, (name, counted(other.threads, "thread"))))
    return f", {factor:.2g} times as fast as {rival}"


def _agreement(chosen: Measured, measured: Sequence[Measured]) -> str:
    found = chosen.agreement
    if found is None:
        alone = chosen.dtype != "fp32" and all(one.dtype != "fp32" for one in measured)
        return ", without a comparison, as fp32 was not measured" if alone else ""
    labels = "" if found.top1 is None else f", equal first label in {found.top1:.0%}"
    clips = counted(found.clips, "generated clip")
    return f", and it agrees with fp32 on {clips} (cosine {found.cosine:.4f}{labels})"


def _equals(chosen: Measured, equal: Sequence[Measured]) -> str:
    names = [
        one.dtype if one.dtype != chosen.dtype else counted(one.threads, "thread") for one in equal
    ]
    names = list(dict.fromkeys(names))
    if not names:
        return ""
    verb = "is" if len(names) == 1 and not names[0].endswith("threads") else "are"
    return f"; {' and '.join(names)} {verb} as fast within the noise"


def _throughput(one_clip: Measured, many_clips: Measured) -> str:
    rate = f"{many_clips.clips_a_second:.3g} clips a second"
    if many_clips is one_clip:
        return f"; for many clips, too ({rate})"
    threads = counted(many_clips.threads, "thread")
    return f"; for many clips, {many_clips.dtype} with {threads} a clip does {rate}"


def _rejected(measured: Sequence[Measured]) -> str:
    """Names the variants that disagree with fp32, with the limits that they miss."""
    reasons = {
        one.dtype: one.incomparable or "; ".join(one.agreement.missed if one.agreement else ())
        for one in measured
        if not _agrees(one)
    }
    return "".join(f"; {dtype} disagrees with fp32: {why}" for dtype, why in reasons.items())
