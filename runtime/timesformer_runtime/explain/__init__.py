"""Shows which parts of a video reached the model's answer. Needs the extra ``evaluate``.

from timesformer_runtime import VideoClassifier
from timesformer_runtime.explain import explain

classifier = VideoClassifier.from_pretrained("my-model")  # exported with --explain
for one in explain(classifier, ["clip.mp4"], "explained"):
    print(one.video, one.folder or one.error)
"""

from timesformer_runtime.explain.explanation import (
    Explanation,
    HeatScale,
    ViewHeat,
    explanation_of,
)
from timesformer_runtime.explain.videos import Explained, explain

__all__ = ["Explained", "Explanation", "HeatScale", "ViewHeat", "explain", "explanation_of"]
