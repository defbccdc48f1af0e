"""The tables of file-formats.md name the keys of the JSON that bench, inspect and doctor print."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import timesformer
from tests.tiny_graphs import write_exported_model

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "file-formats.md"


def described(command: str) -> list[set[str]]:
    """Reads the first columns of the tables that follow the name of a command."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n`timesformer {command}`:\n")[2]
    tables = re.findall(
        r"^\| key.*\n\|.*\n((?:\|.*\n)+)", re.split(r"\n(?:`|## )", section)[0], re.MULTILINE
    )
    columns = (" ".join(row.split(" | ")[0] for row in table.splitlines()) for table in tables)
    return [{*re.findall(r"`([^`]+)`", column)} for column in columns]


def answer(folder: Path, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(timesformer(folder, *arguments, "--json").stdout)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_exported_model(tmp_path / "shots", ("fp32", "int8"))
    return tmp_path


def test_bench(folder: Path) -> None:
    whole, measurement = described("bench")
    found = answer(folder, "bench", "shots", "--seconds", "0", "--threads", "1")
    assert {*found} == whole
    assert {*found["measurements"][0]} == measurement


def test_inspect(folder: Path) -> None:
    assert [{*answer(folder, "inspect", "shots")}] == described("inspect")


def test_doctor(folder: Path) -> None:
    found = answer(folder, "doctor")
    others = {name.removesuffix("ExecutionProvider").lower() for name in found["providers"]}
    (names,) = described("doctor")
    assert {*found} - others - {"nvidia"} == names - others - {"nvidia"}
