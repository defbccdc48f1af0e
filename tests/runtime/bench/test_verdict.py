"""The recommendation, from given measurements."""

from __future__ import annotations

from typing import Any

import numpy as np
from timesformer_runtime.bench.measure import Measured
from timesformer_runtime.bench.verdict import disturbance, verdict
from timesformer_runtime.model.gate import VariantFidelity, measure

LOGITS = np.random.default_rng(0).normal(size=(6, 9))


def agreement(dtype: str, difference: float) -> VariantFidelity:
    noise = np.random.default_rng(1).normal(size=LOGITS.shape)
    return measure(dtype, LOGITS, LOGITS + difference * noise, logits=True)


def case(
    dtype: str,
    threads: int,
    seconds: float | list[float],
    rates: float | list[float] = 1.0,
    difference: float | None = 1e-3,
    **more: Any,
) -> Measured:
    """A measured case; ``difference`` is the noise on its logits, None without a comparison."""
    times = seconds if isinstance(seconds, list) else [seconds] * 6
    found = Measured(
        dtype=dtype,
        threads=threads,
        runs_at_once=1,
        load=0.1,
        memory=1,
        wide_products=False,
        output="logits",
        latencies=[[time] for time in times],
        rates=rates if isinstance(rates, list) else [rates] * len(times),
        **more,
    )
    if dtype != "fp32" and difference is not None:
        found.agreement = agreement(dtype, difference)
    return found


def chosen(*cases: Measured) -> tuple[str, int, str, int]:
    found = verdict(cases)
    assert found.one_clip is not None
    assert found.many_clips is not None
    assert found.sentence.endswith(".")
    assert found.sentence.startswith(f"Use {found.one_clip.dtype} with {found.one_clip.threads} ")
    return (
        *(found.one_clip.dtype, found.one_clip.threads),
        *(found.many_clips.dtype, found.many_clips.threads),
    )


def test_the_fastest_variant_for_one_clip_and_for_many() -> None:
    cases = (
        case("fp32", 1, 2.0, 1.0),
        case("fp32", 2, 1.2, 0.8),
        case("int8", 1, 0.9, 2.2),
        case("int8", 2, 0.5, 2.0),
    )
    assert chosen(*cases) == ("int8", 2, "int8", 1)
    sentence = verdict(cases).sentence
    assert "2.4 times as fast as fp32 with 2 threads" in sentence
    assert "agrees with fp32 on 6 generated clips" in sentence
    assert "2.2 clips a second" in sentence


def test_a_variant_that_disagrees_is_never_chosen() -> None:
    cases = (
        case("fp32", 1, 2.0, 1.0),
        case("int8", 1, 0.5, 4.0, difference=2.0),
        case("fp16", 1, 3.0, 0.5),
    )
    assert not agreement("int8", 2.0).passed
    assert chosen(*cases) == ("fp32", 1, "fp32", 1)
    assert "int8 disagrees with fp32: cosine is" in verdict(cases).sentence


def test_an_output_that_cannot_be_compared_is_never_chosen() -> None:
    reason = "the shape is [6, 8] instead of [6, 9]"
    odd = case("int8", 1, 0.5, 4.0, difference=None, incomparable=reason)
    found = verdict([case("fp32", 1, 2.0), odd])
    assert found.one_clip is not None
    assert found.one_clip.dtype == "fp32"
    assert f"int8 disagrees with fp32: {reason}" in found.sentence


def test_no_recommendation_without_a_variant_that_agrees() -> None:
    found = verdict([case("int8", 1, 0.5, difference=2.0)])
    assert (found.one_clip, found.many_clips) == (None, None)
    assert found.sentence.startswith("No variant can be recommended; int8 disagrees")


def test_differences_within_the_noise_do_not_count() -> None:
    """Of equally fast cases the one nearest to fp32 is taken, with the fewest threads."""
    noisy = [1.0, 1.3, 0.8, 1.1, 0.9, 1.2]
    other = [1.1, 1.0, 1.0, 0.9, 1.1, 1.0]
    cases = (case("fp32", 1, noisy), case("fp32", 2, other), case("int8", 1, other))
    assert chosen(*cases) == ("fp32", 1, "fp32", 1)
    assert "2 threads and int8 are as fast within the noise" in verdict(cases).sentence
    assert "times as fast" not in verdict(cases).sentence


def test_a_small_but_sure_difference_counts() -> None:
    """The rounds are compared one by one: a machine that slows down slows both."""
    drifting = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    faster = [0.9 * time for time in drifting]
    assert chosen(case("fp32", 1, drifting), case("int8", 1, faster))[:2] == ("int8", 1)
    hardly = [0.99 * time for time in drifting]
    assert chosen(case("fp32", 1, drifting), case("int8", 1, hardly))[:2] == ("fp32", 1)


def test_a_large_difference_counts_in_the_choice_also_where_it_is_not_sure() -> None:
    wild = [2.0, 0.3, 2.1, 2.2, 0.4, 2.0]
    cases = (case("fp32", 1, wild), case("int8", 1, 1.0))
    assert chosen(*cases)[:2] == ("int8", 1)
    assert "fp32 is as fast within the noise" in verdict(cases).sentence


def test_a_busy_machine_is_noticed() -> None:
    quiet, busy = case("fp32", 1, 1.0), case("int8", 1, 1.0)
    busy.latencies = [[1.0, 2.0, 2.0]] * 5
    assert disturbance([quiet]) == 1.0
    assert disturbance([busy]) == 2.0


def test_runs_that_others_slowed_down_do_not_decide() -> None:
    """The fastest run of a round counts."""
    slowed = case("int8", 1, 1.0)
    slowed.latencies = [[0.5, 9.0, 9.0]] * 6
    assert chosen(case("fp32", 1, 1.0), slowed)[:2] == ("int8", 1)


def test_without_fp32_the_sentence_says_so() -> None:
    cases = (case("int8", 1, 1.0, difference=None), case("int8", 2, 0.5, difference=None))
    assert chosen(*cases)[:2] == ("int8", 2)
    assert "fp32 was not measured" in verdict(cases).sentence
    assert "2 times as fast as 1 thread" in verdict(cases).sentence
