"""Libraries that only some features need: one clear error where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from timesformer_runtime.errors import MissingDependencyError


@contextmanager
def evaluate_extra() -> Iterator[None]:
    """Surrounds imports of the libraries that the extra ``evaluate`` installs.

    Raises:
        MissingDependencyError: One of them is not installed; the message has the pip command.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'{error.name} is not installed: run `pip install "timesformer-onnx[evaluate]"`'
        ) from error
