"""Runs PySceneDetect's detectors, each with its defaults; for a Python that has scenedetect.

    PYTHON scenedetect_peer.py VIDEO...

Prints a JSON object: for each name of detectors, a list with the first frames of the scenes after
the first one, for each video. It imports nothing of this project.
"""

from __future__ import annotations

import json
import sys

from scenedetect import (  # type: ignore[import-not-found]
    AdaptiveDetector,
    ContentDetector,
    HashDetector,
    HistogramDetector,
    SceneManager,
    ThresholdDetector,
    open_video,
)

DETECTORS = {
    "ContentDetector": (ContentDetector,),
    "AdaptiveDetector": (AdaptiveDetector,),
    "ThresholdDetector": (ThresholdDetector,),
    "HistogramDetector": (HistogramDetector,),
    "HashDetector": (HashDetector,),
    "ContentDetector, ThresholdDetector": (ContentDetector, ThresholdDetector),
    "AdaptiveDetector, ThresholdDetector": (AdaptiveDetector, ThresholdDetector),
}


def cuts(path: str, detectors: tuple[type, ...]) -> list[int]:
    manager = SceneManager()
    for detector in detectors:
        manager.add_detector(detector())
    manager.detect_scenes(open_video(path))
    return [scene[0].frame_num for scene in manager.get_scene_list()[1:]]


if __name__ == "__main__":
    found = {
        name: [cuts(path, detectors) for path in sys.argv[1:]]
        for name, detectors in DETECTORS.items()
    }
    print(json.dumps(found))
