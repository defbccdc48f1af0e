"""Tests that thousands of damaged files cause no crash, hang, waste of memory or open file."""

import sys
from pathlib import Path

import pytest

from tests.fuzz.campaign import Report, run, run_worker
from tests.fuzz.mutations import MUTATIONS, mutate
from tests.fuzz.seeds import VIDEOS

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the fuzzer measures processes as Linux does"
)
ANSWER = '{"outcome": "read", "seconds": 0.1, "peak_mib": 100, "left_open": [0, 0, 0]}'


def test_damaged_files_are_read_or_refused() -> None:
    report = run(VIDEOS, 0, cases=5000)
    assert report.findings == []
    assert report.cases == 5000
    assert report.success_share >= 0.5
    assert all(outcomes["read"] + outcomes["marked"] for outcomes in report.by_seed.values())
    assert all(outcomes["refused"] for outcomes in report.by_seed.values())


def test_damage_depends_on_its_number_only() -> None:
    data = bytes(range(256)) * 40
    damaged = [mutate(data, number) for number in range(300)]
    assert damaged == [mutate(data, number) for number in range(300)]
    assert len(set(damaged)) > 290
    assert len({mutation.__name__ for mutation in MUTATIONS}) == 9


@pytest.mark.parametrize(
    ("program", "finding"),
    [
        ("import os; input(); os.abort()", "a 1: the process ended with code -6"),
        (
            "input(); raise MemoryError('no room')",
            "a 1: the process ended with code 1 (MemoryError: no room)",
        ),
        ("import time; input(); time.sleep(60)", "a 1: no end within 1 s"),
        (f"input(); print('{ANSWER.replace('read', 'KeyError()')}')", "a 1: KeyError()"),
        (f"input(); print('{ANSWER.replace('0.1', '99')}')", "a 1: took 99.0 s"),
        (f"input(); print('{ANSWER.replace('[0, 0', '[0, 1')}')", "a 1: left open [0, 1, 0]"),
    ],
)
def test_what_should_not_be_is_found(program: str, finding: str) -> None:
    report = Report(VIDEOS)
    run_worker(["a 1"], report, [sys.executable, "-c", program], patience=1)
    assert report.findings == [finding]


def test_excess_of_memory_is_found() -> None:
    report = Report(VIDEOS)
    greedy = ANSWER.replace("100", "600")
    program = f"input(); print('{ANSWER}', flush=True); input(); print('{greedy}')"
    run_worker(["a 1", "a 2"], report, [sys.executable, "-c", program])
    assert report.findings == ["a 2: took 500 MiB"]
