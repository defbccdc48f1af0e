"""The documents agree with the code, the messages and the results file."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import click
import pytest
import timesformer_exporter
import timesformer_runtime
from timesformer_exporter.cli import command as export_command
from timesformer_runtime.cli import command as runtime_command
from timesformer_runtime.model.gate import THRESHOLDS

from tests.benchmarks import markdown
from tests.docs.snippets import PAGES, ROOT

RESULTS = ROOT / "tests" / "benchmarks" / "results"
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    """Links work where a host shows the Markdown files; ``make docs`` checks the built pages."""
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if path.startswith(("https:", "mailto:")):
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in set(_anchors(target)), link


def _anchors(page: Path) -> Iterator[str]:
    for heading in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_benchmarks_are_those_of_the_results_files(file: Path) -> None:
    table = list(markdown.lines(json.loads(file.read_text(encoding="utf-8"))))
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "\n".join(table[: table.index("")]) in page
    assert f"(../tests/benchmarks/results/{file.with_suffix('.svg').name})" in page
    assert f"(../tests/benchmarks/results/{file.name})" in page.replace("\n", " ")


def test_speeds_in_the_readme_are_those_of_the_results_file() -> None:
    file = RESULTS / "intel-xeon-amx-2-threads.json"
    rows = list(markdown.lines(json.loads(file.read_text(encoding="utf-8"))))
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    said = [line for line in readme if line.startswith("|") and "times as fast" in line]
    assert len(said) >= 3
    for line in said:
        assert any(row.startswith(line) for row in rows), line


def test_messages_in_troubleshooting_are_those_of_the_code() -> None:
    """Each quoted heading is a part of a message, because people search for these words."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    sought = [
        words for line in page.splitlines() if line.startswith("### ")
        for words in re.findall(r'"(.+?)"', line)
    ]  # fmt: skip
    code = "\n".join(_texts(ROOT / "runtime")) + "\n".join(_texts(ROOT / "exporter"))
    assert len(sought) > 20
    assert [words for words in sought if words not in code] == []


def test_the_limits_of_the_gate_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "reference" / "file-formats.md").read_text(encoding="utf-8")
    _, _, table = page.partition("| key | what it measures | limit |")
    head, _, *rows = table.partition("\n\n")[0].splitlines()
    columns = [cell.strip() for cell in head.strip("| ").split("|")]
    said: dict[str, dict[str, float]] = {column: {} for column in columns}
    for row in rows:
        name, *_, limits = row.strip("| ").split("|", 3)
        for column, limit in zip(columns, limits.split("|"), strict=True):
            said[column][name.strip("` ").removeprefix("decided_")] = float(limit)
    assert said == {dtype: dataclasses.asdict(limits) for dtype, limits in THRESHOLDS.items()}


def _texts(folder: Path) -> Iterator[str]:
    """The strings of all modules in a folder; ``x`` stands for each value of an f-string.

    Docstrings are left out: nobody sees them as a message.
    """
    for path in sorted(folder.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if node in docstrings:
                continue
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            if isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else "x" for part in node.values
                )
                yield "".join(map(str, parts))


@pytest.mark.skipif(
    importlib.util.find_spec("sphinx_click") is None, reason='the extra "docs" is not installed'
)
def test_the_pages_build_without_a_warning_and_name_everything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    reference = "".join(path.read_text() for path in tmp_path.glob("reference/*.html"))
    commands = [export_command, *cast("click.Group", runtime_command).commands.values()]
    options = {name for command in commands for option in command.params for name in option.opts}
    public = {*timesformer_runtime.__all__, *timesformer_exporter.__all__} - {"__version__"}
    for name in {name for name in options if name.startswith("--")} | public:
        assert name in reference, name
