"""Runs the command ``timesformer`` in a process of its own, as users do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE

COMMAND = [sys.executable, "-m", "timesformer_runtime"]
Result = subprocess.CompletedProcess[str]


def timesformer(folder: Path, *arguments: object, **options: Any) -> Result:
    """Runs the command in a folder; ``options`` are those of ``subprocess.run``."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        **options,
    )


def assert_bad_input(result: Result, message: str) -> None:
    """Exit code 2, and one line on stderr besides what was said about the model."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("timesformer: ")]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1, result.stderr
    assert message in lines[0]
    assert "Traceback" not in result.stderr
