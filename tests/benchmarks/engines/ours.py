"""This project's session, as ``timesformer classify`` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timesformer_runtime.model.device import choose_device, load_onnxruntime
from timesformer_runtime.model.session import Session
from timesformer_runtime.model.settings import SessionSettings

from tests.benchmarks.worker import Run

load_onnxruntime()


def load(model: Path, threads: int, options: Mapping[str, Any]) -> Run:
    """Loads an ``.onnx`` file; ``options`` are fields of ``SessionSettings``."""
    settings = SessionSettings(device="cpu", threads=threads, **options)
    session = Session(model, choose_device(settings), settings)
    return lambda clips: session.run(["logits"], {"pixel_values": clips})[0]
