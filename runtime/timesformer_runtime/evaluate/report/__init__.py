"""The page ``report.html`` of an evaluation. Needs the extra ``evaluate``."""

from timesformer_runtime.evaluate.report.frames import frames_seen
from timesformer_runtime.evaluate.report.page import write_report

__all__ = ["frames_seen", "write_report"]
