"""Without a library of the extra, the error names the pip command."""

from __future__ import annotations

import subprocess
import sys

import pytest

PACKAGE = "timesformer_runtime.evaluate"
SIGMOID = f"from {PACKAGE}.metrics import measure; measure([], 'm', ['a'], 'sigmoid')"


@pytest.mark.parametrize(
    ("library", "code"),
    [
        ("scipy", f"import {PACKAGE}.metrics"),
        ("sklearn", SIGMOID),
        ("jinja2", f"import {PACKAGE}.report"),
        ("PIL", f"import {PACKAGE}.report"),
    ],
)
def test_a_missing_library_names_the_remedy(library: str, code: str) -> None:
    blocked = f"import sys; sys.modules[{library!r}] = None; {code}"
    done = subprocess.run(
        [sys.executable, "-c", blocked], capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "MissingDependencyError" in last
    assert 'run `pip install "timesformer-onnx[evaluate]"`' in last


def test_softmax_metrics_do_not_wait_for_scikit_learn() -> None:
    code = f"import sys, {PACKAGE}.metrics, {PACKAGE}.report; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
