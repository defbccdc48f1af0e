"""A plugin of pytest: programs that a test starts may take longer than the test allows.

Tests give a program a minute or so, lest a hang last for ever. An emulated one needs more.
"""

from __future__ import annotations

import subprocess
from typing import Any

_TIMES = 10
_wait, _communicate = subprocess.Popen.wait, subprocess.Popen.communicate


def pytest_configure() -> None:
    """Stretches the time limits of ``subprocess``."""
    for name, method in (("wait", _wait_longer), ("communicate", _communicate_longer)):
        setattr(subprocess.Popen, name, method)


def _wait_longer(process: subprocess.Popen[Any], timeout: float | None = None) -> int:
    return _wait(process, _stretched(timeout))


def _communicate_longer(
    process: subprocess.Popen[Any],
    input: Any = None,  # noqa: A002  # the name that callers of subprocess use
    timeout: float | None = None,
) -> tuple[Any, Any]:
    return _communicate(process, input, _stretched(timeout))


def _stretched(timeout: float | None) -> float | None:
    return None if timeout is None else _TIMES * timeout
