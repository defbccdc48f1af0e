"""Runs int8 models with the runtime alone, and prints their outputs as JSON.

``check_without_vnni`` runs this program natively and under an emulator.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from timesformer_runtime import VideoClassifier
from timesformer_runtime.model.cpu import saturates_int8
from timesformer_runtime.model.device import choose_device
from timesformer_runtime.model.session import Session
from timesformer_runtime.model.settings import SessionSettings


def answers(video: str, products: str, models: list[str], entries: dict[str, str]) -> Any:
    """Collects the runtime's findings about this processor, and the models' outputs.

    Args:
        video: The clip.
        products: A graph that multiplies a uint8 [2, 64] by its weights.
        models: Files of video models.
        entries: ONNX Runtime's session configuration, over what the runtime chooses.
    """
    settings = SessionSettings(device="cpu", threads=1, session_options=entries)
    session = Session(Path(products), choose_device(settings), settings)
    (found,) = session.run(["y"], {"a": np.full((2, 64), 255, dtype=np.uint8)})
    logits, wide = [], []
    for model in models:
        classifier = VideoClassifier.from_pretrained(
            model, device="cpu", threads=1, session_options=entries
        )
        logits.append(classifier.logits(video).tolist())
        wide.append(classifier.wide_products)
    return {
        "saturates": saturates_int8(),
        "products": found.tolist(),
        "logits": logits,
        "wide_products": wide,
    }


if __name__ == "__main__":
    print(json.dumps(answers(**json.loads(sys.argv[1]))))
