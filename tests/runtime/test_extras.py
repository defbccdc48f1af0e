"""Libraries that only some features need."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from timesformer_runtime.errors import MissingDependencyError
from timesformer_runtime.extras import evaluate_extra

EXTRA = ("PIL", "jinja2", "matplotlib", "opentimelineio", "paho", "scipy", "sklearn")


def test_the_error_names_library_and_remedy() -> None:
    with (
        pytest.raises(MissingDependencyError, match=r"missing_library.*\[evaluate\]"),
        evaluate_extra(),
    ):
        importlib.import_module("missing_library")


def test_the_core_imports_none_of_them() -> None:
    code = (
        "import sys, timesformer_runtime as t\n"
        "for name in t.__all__: getattr(t, name)\n"
        "import timesformer_runtime.__main__, timesformer_runtime.cli.classify\n"
        "import timesformer_runtime.cli.timeline, timesformer_runtime.cli.batch\n"
        "import timesformer_runtime.cli.stream, timesformer_runtime.cli.cameras\n"
        f"print([name for name in {EXTRA} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
