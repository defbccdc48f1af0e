"""ONNX Runtime with its own defaults, except for the number of threads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tests.benchmarks.worker import Run


def load(model: Path, threads: int, options: Mapping[str, Any]) -> Run:
    """Loads an ``.onnx`` file.

    ``options`` are attributes of ``SessionOptions``; names with a dot are configuration entries.
    """
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = threads
    session_options.log_severity_level = 3
    for name, value in options.items():
        if "." in name:
            session_options.add_session_config_entry(name, value)
        else:
            setattr(session_options, name, value)
    session = onnxruntime.InferenceSession(
        model, session_options, providers=["CPUExecutionProvider"]
    )
    return lambda clips: np.asarray(session.run(None, {"pixel_values": clips})[0])
