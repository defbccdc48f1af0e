"""The public names of the package."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest
import timesformer_exporter
import timesformer_runtime
from timesformer_exporter import errors
from timesformer_runtime.errors import TimesformerError

from tests.patience import PATIENCE


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_everything_that_is_public_is_there() -> None:
    for name in timesformer_exporter.__all__:
        assert name in dir(timesformer_exporter)
        assert getattr(timesformer_exporter, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        timesformer_exporter.absent  # noqa: B018


def test_export_is_the_function_whatever_is_imported_first() -> None:
    importlib.import_module("timesformer_exporter.export")
    assert inspect.isfunction(timesformer_exporter.export)
    done = _run(
        "import timesformer_exporter.export, timesformer_exporter as package\n"
        "from timesformer_exporter.export import export\n"
        "assert package.export is export"
    )
    assert done.returncode == 0, done.stderr


def test_the_errors_of_both_packages_are_one_tree() -> None:
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, Exception):
            assert issubclass(value, TimesformerError), name
            builtin = [base for base in value.__mro__ if base.__module__ == "builtins"]
            assert value is TimesformerError or builtin[0] is not Exception, name
    assert errors.InvalidOptionError is timesformer_runtime.InvalidOptionError


def test_pytorch_is_loaded_when_it_is_used() -> None:
    done = _run(
        "import sys, timesformer_exporter\n"
        "timesformer_exporter.ExportOptions('model')\n"
        "print('torch' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    assert done.stdout.split() == ["False", "False"], done.stderr


@pytest.mark.parametrize(
    "use", ["timesformer_exporter.ExportResult", "timesformer_exporter.export"]
)
@pytest.mark.parametrize("missing", [("torch",), ("onnx", "safetensors")])
def test_without_pytorch_its_use_names_the_command_that_installs_it(
    missing: tuple[str, ...], use: str
) -> None:
    done = _run(
        f"import sys; sys.modules |= dict.fromkeys({missing})\n"
        "import timesformer_exporter\n"
        "timesformer_exporter.ExportOptions('model')\n"
        f"try: {use}\n"
        "except timesformer_exporter.MissingDependencyError as error: print(error)"
    )
    assert done.stdout.strip() == (
        f"the exporter needs {', '.join(missing)}; install it with: "
        'pip install "timesformer-onnx[export]"'
    ), done.stderr


def test_the_command_without_pytorch_is_one_line() -> None:
    done = _run(
        "import sys; sys.modules['torch'] = None\n"
        "from timesformer_exporter.cli import main\n"
        "sys.argv = ['timesformer-export', '--model', 'x']; main()"
    )
    assert done.returncode == 2
    assert done.stderr == (
        "timesformer-export: the exporter needs torch; install it with: "
        'pip install "timesformer-onnx[export]"\n'
    )
