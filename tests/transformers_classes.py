"""transformers' classes, by names that hold for each of its versions."""

from __future__ import annotations

from typing import Any

import pytest


def pillow_processor(name: str) -> Any:
    """Its image processor of this name on Pillow, which newer versions call ``...Pil``."""
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
