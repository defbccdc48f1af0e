"""The server of the browser example refuses wrong arguments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE

SERVER = Path(__file__).parents[2] / "examples" / "browser" / "serve.py"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: folder"),
        (["missing"], "missing has no index.html; make it with: npm run site"),
        ([".", "x"], "invalid int value: 'x'"),
        ([".", "99999"], "port 99999: "),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "index.html").touch()
    done = subprocess.run(
        [sys.executable, SERVER, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
