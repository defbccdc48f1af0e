"""The numbers of an evaluation, computed from its lines. Needs the extra ``evaluate``."""

from timesformer_runtime.evaluate.metrics.comparison import compare
from timesformer_runtime.evaluate.metrics.measures import measure

__all__ = ["compare", "measure"]
