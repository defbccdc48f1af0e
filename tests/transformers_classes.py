"""Finds classes of transformers whose names differ between its versions."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest


def pillow_processor(name: str) -> Any:
    """The image processor of this name that uses Pillow; newer versions call it ``...Pil``."""
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


def since_transformers_5() -> pytest.MarkDecorator:
    """Skips a test with transformers 4, which reads some configurations in another way.

    The runtime does what transformers 5 does.
    """
    try:
        major = int(version("transformers").partition(".")[0])
    except PackageNotFoundError:
        major = 5  # the test itself asks for transformers
    return pytest.mark.skipif(major < 5, reason="transformers 4 reads these files in another way")
