"""Libraries that only some features need: one clear error where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from timesformer_runtime.errors import MissingDependencyError


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Surrounds imports of the libraries that an extra of this package installs.

    Args:
        extra: The name of the extra, such as ``serve``.

    Raises:
        MissingDependencyError: One of them is not installed; the message has the pip command.
    """
    with needs_installed(f'"timesformer-onnx[{extra}]"'):
        yield


@contextmanager
def needs_installed(packages: str) -> Iterator[None]:
    """Surrounds imports of libraries, as ``needs_extra`` does.

    Args:
        packages: What pip has to install, as on its command line.

    Raises:
        MissingDependencyError: One of them is not installed; the message has the pip command.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed: run `pip install {packages}`"
        ) from error


def evaluate_extra() -> AbstractContextManager[None]:
    """Surrounds imports of the libraries that the extra ``evaluate`` installs."""
    return needs_extra("evaluate")
