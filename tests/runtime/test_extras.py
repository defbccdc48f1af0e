"""Libraries that only some features need."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from timesformer_runtime.errors import MissingDependencyError
from timesformer_runtime.extras import evaluate_extra, needs_extra

EXTRA = (
    *("PIL", "jinja2", "matplotlib", "opentimelineio", "paho", "scipy", "sklearn"),
    *("fastapi", "pydantic", "starlette", "uvicorn", "prometheus_client", "python_multipart"),
    *("ray", "pyarrow", "pandas"),
)


def test_the_error_names_library_and_remedy() -> None:
    with (
        pytest.raises(MissingDependencyError, match=r"missing_library.*\[evaluate\]"),
        evaluate_extra(),
    ):
        importlib.import_module("missing_library")


def test_the_error_names_the_extra() -> None:
    with pytest.raises(MissingDependencyError, match=r"\[serve\]"), needs_extra("serve"):
        importlib.import_module("missing_library")


@pytest.mark.parametrize(
    ("library", "extra", "arguments"),
    [
        ("fastapi", "serve", ["serve", "no-model"]),
        ("uvicorn", "serve", ["serve", "no-model"]),
        ("prometheus_client", "serve", ["serve", "no-model"]),
        (
            "pyarrow",
            "parquet",
            ["batch", "no-model", __file__, "--output", "no-file", "--parquet", "no-table"],
        ),
        ("ray", "ray", ["batch", "no-model", __file__, "--output", "no-file", "--ray"]),
    ],
)
def test_a_command_without_a_library_is_one_line(
    library: str, extra: str, arguments: list[str]
) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from timesformer_runtime.cli import main\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f'pip install "timesformer-onnx[{extra}]"' in done.stderr


def test_the_core_imports_none_of_them() -> None:
    code = (
        "import sys, timesformer_runtime as t\n"
        "for name in t.__all__: getattr(t, name)\n"
        "import timesformer_runtime.__main__, timesformer_runtime.cli.classify\n"
        "import timesformer_runtime.cli.timeline, timesformer_runtime.cli.batch\n"
        "import timesformer_runtime.cli.serve\n"
        "import timesformer_runtime.cli.stream, timesformer_runtime.cli.cameras\n"
        f"print([name for name in {EXTRA} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
