"""The errors of an export; ``timesformer_runtime.errors`` has the base of all errors."""

from pathlib import Path

from timesformer_runtime.errors import InvalidOptionError, NotEnoughMemoryError, TimesformerError

__all__ = [
    "CheckpointNotFoundError",
    "ExportError",
    "InvalidCheckpointError",
    "InvalidConfigError",
    "InvalidOptionError",
    "NotEnoughMemoryError",
    "OutputExistsError",
    "OutputWriteError",
    "UnquantizedWeightError",
]

ExportError = TimesformerError  # kept for programs that catch it by its old name


class InvalidConfigError(TimesformerError, ValueError):
    """A configuration has a value that no TimeSformer can have."""


class CheckpointNotFoundError(TimesformerError, FileNotFoundError):
    """There is no checkpoint under that path or Hub id."""


class InvalidCheckpointError(TimesformerError, ValueError):
    """A checkpoint's file is broken, or its tensors are not those of a TimeSformer."""


class OutputExistsError(TimesformerError, FileExistsError):
    """The output exists already and may not be replaced."""


class OutputWriteError(TimesformerError, OSError):
    """A file of the export cannot be written, for example because the disk is full.

    Attributes:
        path: The file that cannot be written.
        reason: The operating system's reason.
        remedy: The words of the message that say what helps.
    """

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path} cannot be written ({reason}); {remedy}")
        self.path, self.reason, self.remedy = path, reason, remedy

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.path, self.reason, self.remedy)  # worker processes pass it on


class UnquantizedWeightError(TimesformerError, RuntimeError):
    """A graph that should be int8 still computes with a float weight."""
