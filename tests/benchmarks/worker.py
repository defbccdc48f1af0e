"""The process of one competitor: loads the model, then runs it at each command.

The argument of the program is a JSON object. The process reads commands from standard input, one
JSON object a line, and answers each with a line on standard output. The output of libraries goes to
standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]
Run: TypeAlias = Callable[[Array], Array]


def main() -> None:
    """Serves commands until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.loads(sys.argv[1])
    clips = np.load(request["clips"])
    engine = importlib.import_module(f"tests.benchmarks.engines.{request['engine']}")
    before = memory()["resident_mb"]
    started = time.perf_counter()
    run = engine.load(Path(request["model"]), request["threads"], request["options"])
    _answer(
        answers,
        {
            "load_seconds": time.perf_counter() - started,
            "load_mb": memory()["peak_mb"] - before,
        },
    )
    for line in sys.stdin:
        _answer(answers, _obey(json.loads(line), run, clips, before))


def memory() -> dict[str, float]:
    """Resident memory of this process now and at its peak, in 10^6 bytes."""
    status = Path("/proc/self/status").read_text()
    sizes = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE))
    return {
        "resident_mb": int(sizes["VmRSS"]) * 1024 / 1e6,
        "peak_mb": int(sizes["VmHWM"]) * 1024 / 1e6,
    }


def _obey(command: dict[str, Any], run: Run, clips: Array, before: float) -> dict[str, Any]:
    if command["do"] == "run":
        batch = clips[np.arange(command["batch"]) % len(clips)]  # repeats clips for large batches
        started = time.perf_counter()
        run(batch)
        return {"seconds": time.perf_counter() - started}
    if command["do"] == "logits":
        return {"logits": [run(clip[None]).tolist() for clip in clips]}
    sizes = memory()
    return {
        "resident_mb": sizes["resident_mb"] - before,
        "peak_mb": sizes["peak_mb"] - before,
        "cpu_seconds": time.process_time(),
    }


def _answer(answers: TextIO, values: dict[str, Any]) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
