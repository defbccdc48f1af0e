"""Finds classes of transformers whose names differ between its versions."""

from __future__ import annotations

from typing import Any

import pytest


def pillow_processor(name: str) -> Any:
    """The image processor of this name that uses Pillow; newer versions call it ``...Pil``."""
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
