"""Tests of the exact versions that ``make setup`` installs, and of the output of ``make lock``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from constraints import lock

ROOT = Path(__file__).parents[1]
OLDEST_PYTHON = {"python_version": "3.11", "python_full_version": "3.11.0"}


def _direct() -> Iterator[Requirement]:
    """The requirements that pyproject.toml states, without its own extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for group in (project["dependencies"], *project["optional-dependencies"].values()):
        requirements = map(Requirement, group)
        yield from (wanted for wanted in requirements if wanted.name != project["name"])


def _pins(name: str) -> list[Requirement]:
    lines = (ROOT / "constraints" / name).read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def _pinned(name: str) -> dict[str, Version]:
    """The version of each package on Linux with the oldest Python."""
    system = OLDEST_PYTHON | {"sys_platform": "linux", "platform_machine": "x86_64"}
    return {
        pin.name: Version(str(pin.specifier).removeprefix("=="))
        for pin in _pins(name)
        if pin.marker is None or pin.marker.evaluate(system)
    }


@pytest.mark.parametrize("name", lock.FILES)
def test_the_files_fit_every_build_of_torch_and_every_index(name: str) -> None:
    text = (ROOT / "constraints" / name).read_text()
    for what in ("+", "://", "--", "@", "nvidia", "cuda", "triton"):
        assert what not in text
    assert {str(wanted.specifier)[:2] for wanted in _pins(name)} == {"=="}


def test_every_direct_dependency_is_locked_to_a_version_that_is_allowed() -> None:
    locked = _pinned("locked.txt")
    for wanted in _direct():
        name = wanted.name.replace("_", "-")
        assert wanted.specifier.contains(locked[name]), name


def test_the_oldest_versions_are_the_floors_of_pyproject() -> None:
    """`make test OLDEST=1` then tests the floors, not newer versions that other packages need."""
    oldest = _pinned("oldest.txt")
    floors = {
        wanted.name.replace("_", "-"): Version(bound.version)
        for wanted in _direct()
        for bound in wanted.specifier
        if bound.operator in {">=", "=="}
    }
    assert {name: oldest[name] for name in floors} == floors
    assert floors.keys() == {wanted.name.replace("_", "-") for wanted in _direct()}


def test_changes_are_named_by_package() -> None:
    old = lock.versions(["# a comment", "a==1", "b==2 ; python_full_version < '3.12'", "c==1"])
    new = lock.versions(
        ["a==1", "b==2 ; python_full_version < '3.12'", "b==3 ; python_full_version >= '3.12'"]
    )
    assert lock.changes(old, new) == ["b  2 -> 2 or 3", "c  1 -> none"]
    assert lock.changes(new, new) == []
