"""What can go wrong: one base class, whose subclasses are also the matching built-in."""


class ExportError(Exception):
    """Bad input or a missing piece: the message names the value, the limit and the remedy."""


class InvalidConfigError(ExportError, ValueError):
    """A configuration has a value that no TimeSformer can have."""


class CheckpointNotFoundError(ExportError, FileNotFoundError):
    """There is no checkpoint under that path or Hub id."""


class InvalidCheckpointError(ExportError, ValueError):
    """A checkpoint's file is broken, or its tensors are not those of a TimeSformer."""


class InvalidOptionError(ExportError, ValueError):
    """An option has a value that is not allowed here."""


class OutputExistsError(ExportError, FileExistsError):
    """The output is there already and may not be overwritten."""


class UnquantizedWeightError(ExportError, RuntimeError):
    """A graph that should be int8 still computes with a float weight."""
