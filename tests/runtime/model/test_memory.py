"""Memory of the machine and limits of control groups, from files as Linux writes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from timesformer_runtime.model.memory import Memory, machine_memory

MEMINFO = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   600 kB\nHugePages_Total:  0\n"


def machine(root: Path, files: dict[str, str]) -> Memory:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return machine_memory(root)


@pytest.mark.parametrize(
    ("files", "memory", "usable"),
    [
        pytest.param({}, Memory(None, None, None, None), None, id="not Linux"),
        pytest.param(
            {"proc/meminfo": MEMINFO}, Memory(1024_000, 614_400, None, None), 614_400, id="no limit"
        ),
        pytest.param(
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/memory.max": "400000\n",
                "sys/fs/cgroup/a/memory.current": "150000\n",
            },
            Memory(1024_000, 614_400, 400_000, 250_000),
            250_000,
            id="v2, the group above",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/m\n3:cpu:/c\n",
                "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "5000\n",
                "sys/fs/cgroup/memory/m/memory.usage_in_bytes": "6000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            Memory(None, None, 5000, 0),
            0,
            id="v1, more used than allowed",
        ),
    ],
)
def test_memory(tmp_path: Path, files: dict[str, str], memory: Memory, usable: int | None) -> None:
    found = machine(tmp_path, files)
    assert found == memory
    assert found.usable == usable


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count otherwise")
def test_the_peak_is_of_this_process_alone() -> None:
    """A small process says so, although its parent is large; and it notices a block of 50 MB."""
    code = """
from timesformer_runtime.model.memory import peak_of_this_process
before = peak_of_this_process()
block = bytes(range(256)) * 200_000
print(before, peak_of_this_process())
"""
    ballast = bytes(range(256)) * 1_200_000
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    before, after = map(int, done.stdout.split())
    assert before < len(ballast)
    assert after >= before + 45_000_000
