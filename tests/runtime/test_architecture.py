"""Imports go one way, as docs/architecture.md says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import timesformer_runtime

FOLDER = Path(timesformer_runtime.__file__).parent
# The parts of the runtime, from the top down. Those of one line do not import one another.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("bench", "cameras", "evaluate", "explain", "ray", "serve", "shots", "timeline_picture"),
    ("classifier",),
    ("workloads",),
    ("pipeline",),
    ("file_reading",),
    ("reading", "model", "isolation"),
    ("input",),
    ("video",),
    ("resample", "results", "json_object", "child_process", "pictures"),
    ("extras", "lines_file", "video_files", "whole_file"),
    ("locks", "option_checks"),
    ("errors", "forks", "watchdog"),
    ("source_names",),
)
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in parts}
MODULES = sorted(path for path in FOLDER.rglob("*.py") if path != FOLDER / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_module_imports_only_what_is_below_it(path: Path) -> None:
    part = path.relative_to(FOLDER).parts[0].removesuffix(".py")
    for imported in _imported_parts(path):
        assert imported == part or LEVELS[imported] > LEVELS[part], imported


def _imported_parts(path: Path) -> Iterator[str]:
    """Gives the part of the runtime that each import takes something from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, *rest = name.split(".")
            if package == FOLDER.name and rest:
                yield rest[0]
