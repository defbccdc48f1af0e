"""The parts of the check on ARM that need no emulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests import debian_packages
from tests.arm64 import check, machine, packages, suite


def answers(*logits: list[float], dtype: str = "fp32") -> dict[str, Any]:
    return {"logits": {"divided": {dtype: list(logits)}}}


HERE = ([4.0, 1.0, -2.0], [0.5, 3.0, -1.0])


def test_equal_answers_pass() -> None:
    (row,) = check.compare(answers(*HERE), answers(*HERE))
    assert (row.model, row.dtype, row.problems) == ("divided", "fp32", ())


def test_another_label_is_a_problem_however_near_the_logits_are() -> None:
    near = ([1.0, 1.0001, -2.0], HERE[1])
    (row,) = check.compare(answers([1.0001, 1.0, -2.0], HERE[1]), answers(*near))
    assert "1 of 2 labels differ" in row.problems


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8", "q4"])
def test_other_logits_are_a_problem(dtype: str) -> None:
    far = ([4.0, -6.0, -2.0], HERE[1])  # the labels are equal
    (row,) = check.compare(answers(*HERE, dtype=dtype), answers(*far, dtype=dtype))
    assert any("share of the range" in problem for problem in row.problems)


def test_the_versions_are_those_for_the_machines_python() -> None:
    found = {one.name: one.specifier for one in map(Requirement, packages._constraints().split())}
    wanted = {Requirement(line).name for line in packages._requirements()}
    assert {name.replace("_", "-") for name in wanted} <= {*found}
    for line in packages._LOCKED.read_text().splitlines():
        if line.startswith("numpy==") and "< '3.12'" in line:
            assert found["numpy"] == Requirement(line).specifier


def test_a_missing_tool_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("shutil.which", lambda name: None)
    problem = machine.missing()
    assert problem is not None
    assert problem.startswith("apt-get")
    assert "apt install" in problem
    assert "\n" not in problem


def test_a_failed_command_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(debian_packages.DebianError, match="dpkg-deb") as error:
        debian_packages._run(["dpkg-deb", "--extract", str(tmp_path / "no.deb"), str(tmp_path)])
    assert "\n" not in str(error.value)


def test_the_tests_that_are_left_out_exist() -> None:
    for name in suite.DESELECTED:
        file, _, test = name.partition("::")
        assert f"def {test.partition('[')[0]}(" in (machine.REPOSITORY / file).read_text()
