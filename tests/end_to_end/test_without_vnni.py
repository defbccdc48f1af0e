"""int8 models on a processor whose 8-bit products overflow, emulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end import check_without_vnni


def test_int8_is_right_on_an_emulated_haswell(tmp_path: Path) -> None:
    problem = check_without_vnni.missing()
    if problem is not None:
        pytest.skip(problem)
    rows = check_without_vnni.check(tmp_path)
    assert len(rows) == 6
    assert all(row.as_wanted for row in rows), rows
