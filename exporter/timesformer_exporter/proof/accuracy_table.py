"""The accuracy of an export on labelled videos, in numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

PYTORCH = "pytorch"


@dataclasses.dataclass(frozen=True)
class VariantAccuracy:
    """The accuracy of PyTorch or of a variant.

    Attributes:
        name: The variant, or ``pytorch``.
        top_1: Share of the readable videos whose first label is right; for models that give a video
            several labels, the mean average precision.
        interval: The 95 % interval of ``top_1``; None for the mean average precision.
        top_5: Share of the videos whose label is among the first five.
        loss: By how many points PyTorch's ``top_1`` is higher.
        loss_interval: The 95 % interval of the difference in first labels, in points.
    """

    name: str
    top_1: float
    interval: tuple[float, float] | None
    top_5: float
    loss: float = 0.0
    loss_interval: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The accuracy of an export on labelled videos.

    Attributes:
        videos: Number of videos.
        unreadable: How many of them could not be read.
        measure: ``top-1`` or ``mAP``.
        models: PyTorch first, then the variants.
        limit: The largest loss that is allowed, in points; None for any.
        sentence: The result in one sentence.
    """

    videos: int
    unreadable: int
    measure: str
    models: tuple[VariantAccuracy, ...]
    limit: float | None
    sentence: str

    @property
    def rejected(self) -> tuple[VariantAccuracy, ...]:
        """The variants that lose more than is allowed."""
        if self.limit is None:
            return ()
        return tuple(model for model in self.models if model.loss > self.limit)

    @property
    def passed(self) -> bool:
        """True where no variant loses more than is allowed."""
        return not self.rejected

    def to_dict(self) -> dict[str, Any]:
        """The values for export_report.json."""
        return {**dataclasses.asdict(self), "passed": self.passed}
