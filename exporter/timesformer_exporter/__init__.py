"""Exports PyTorch TimeSformers to ONNX and checks the result against PyTorch.

    from timesformer_exporter import ExportOptions, export

    result = export(ExportOptions("facebook/timesformer-base-finetuned-k400"))
    print(result.folder, result.passed)

Importing this package is cheap and works without PyTorch. ``export`` and ``ExportResult`` load
PyTorch on first use, and raise ``MissingDependencyError`` where it is not installed.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from timesformer_runtime.errors import HubError, MissingDependencyError, TimesformerError

from timesformer_exporter.errors import (
    CheckpointNotFoundError,
    InvalidCheckpointError,
    InvalidConfigError,
    InvalidOptionError,
    NotEnoughMemoryError,
    OutputExistsError,
    OutputWriteError,
    UnquantizedWeightError,
)
from timesformer_exporter.options import ExportOptions

if TYPE_CHECKING:
    from timesformer_exporter.export import ExportResult, export

__all__ = [
    "CheckpointNotFoundError",
    "ExportOptions",
    "ExportResult",
    "HubError",
    "InvalidCheckpointError",
    "InvalidConfigError",
    "InvalidOptionError",
    "MissingDependencyError",
    "NotEnoughMemoryError",
    "OutputExistsError",
    "OutputWriteError",
    "TimesformerError",
    "UnquantizedWeightError",
    "export",
]

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors")
_LOADED_ON_FIRST_USE = ("export", "ExportResult")


class _Package(ModuleType):
    """This package, whose attribute ``export`` stays the function.

    Python sets a package's attribute to each submodule that is imported; the module
    ``timesformer_exporter.export`` would replace the function of that name.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name == "export" and isinstance(value, ModuleType):
            value = value.export
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name not in _LOADED_ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    try:
        return getattr(importlib.import_module("timesformer_exporter.export"), name)
    except (ImportError, OSError) as error:  # OSError: a shared library is missing
        problem = f"needs {', '.join(missing)}" if missing else f"cannot be loaded ({error})"
        raise MissingDependencyError(
            f'the exporter {problem}; install it with: pip install "timesformer-onnx[export]"'
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
