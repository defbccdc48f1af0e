"""Pictures of frames, for reports and pages. Needs the extra ``evaluate``."""

from timesformer_runtime.pictures.encoding import data_url, jpeg, png

__all__ = ["data_url", "jpeg", "png"]
