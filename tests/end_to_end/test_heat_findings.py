"""What ``models.shot_transitions.explain`` writes into the cards."""

from __future__ import annotations

from models.shot_transitions.explain import Findings, Interval


def test_a_difference_that_no_picture_shows_does_not_hold() -> None:
    nothing = Interval(0.0, 0.0, 0.0)
    findings = Findings(
        clips=9,
        seed=3,
        correlation=0.5,
        lost_named=nothing,
        lost_random=nothing,
        more_than_random=nothing,
        at_transition={"cut": Interval(1.01, 1.005, 1.02)},
        beyond_position={"cut": Interval(1.4, 1.3, 1.5)},
    )
    report = findings.report()
    lines = report.splitlines()
    assert lines[0] == "### What the heat says, on 9 held-out renders"
    assert lines[2] == "Drawn scenes, seed 3."
    at, beyond = lines[-2:]
    assert at.endswith("the others (above 1.02) | 1.01 (1.00 to 1.02) | **does not hold** |")
    assert beyond.endswith("at the same frames (above 1.02) | 1.40 (1.30 to 1.50) | holds |")
