"""Runs every variant of exported models on the sample clips, and prints the outputs as JSON.

    python -m tests.arm64.answers MODEL...

``tests.arm64.check`` runs this program on the host and on the emulated machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

import timesformer_runtime
from timesformer_runtime import VideoClassifier
from timesformer_runtime.model.cpu import instruction_sets

DTYPES: tuple[Literal["fp32", "fp16", "int8", "q4"], ...] = ("fp32", "fp16", "int8", "q4")
_SAMPLES = Path(timesformer_runtime.__file__).parent / "sample_clips"
_CLIPS = [str(clip) for clip in sorted(_SAMPLES.glob("*.mp4"))]


def answers(models: list[Path]) -> dict[str, Any]:
    """Classifies the sample clips with each variant of each model.

    Returns:
        ``instruction_sets``: those of this processor; ``logits``: by model and dtype, nested lists
        [clips, labels].
    """
    logits: dict[str, dict[str, list[list[float]]]] = {}
    for model in models:
        logits[model.name] = {}
        for dtype in DTYPES:
            # One thread: more of them gain nothing in an emulator.
            classifier = VideoClassifier.from_pretrained(model, dtype=dtype, threads=1)
            logits[model.name][dtype] = classifier.logits(_CLIPS).tolist()
    return {"instruction_sets": instruction_sets(), "logits": logits}


if __name__ == "__main__":
    print(json.dumps(answers([Path(name) for name in sys.argv[1:]])))
