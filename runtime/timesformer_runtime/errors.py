"""The errors of this package, and how their messages show values from files.

All errors share one base class; each also derives from the matching built-in exception.
"""

import errno
import reprlib
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from timesformer_runtime.source_names import hide_secrets

# Unicode's categories of control characters and of surrogates.
_CONTROL = frozenset({"Cc", "Cs"})
_QUOTES = reprlib.Repr()
_QUOTES.maxstring = _QUOTES.maxother = 120  # characters
_LONGEST_QUOTE = 300  # characters of a value; _QUOTES limits only each string in it
_LONGEST_LIST = 600
# What helps where an output cannot be written, by the number of the system's error.
_REMEDIES: dict[int | None, str] = {
    errno.ENOSPC: "make room, or ",
    errno.EDQUOT: "make room, or ",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or ",
    errno.EACCES: "change the permissions, or ",
    errno.EPERM: "change the permissions, or ",
    errno.ENOENT: "make its folder, or ",
    errno.ENAMETOOLONG: "give a shorter name, or ",
}


class TimesformerError(Exception):
    """Bad input or a missing piece: the message names the value, the limit and the remedy.

    The message is one line of printable text, even where it has names from a stranger's files. URLs
    in it lose their passwords and other secrets.
    """

    def __str__(self) -> str:
        return printable(hide_secrets(super().__str__()))


def reason_of(error: Exception) -> str:
    """Describes why a video failed, for readers who do not see the traceback."""
    if isinstance(error, MemoryError):
        return str(error) or "there is not enough memory for it"
    if isinstance(error, TimesformerError | OSError):
        return str(error)
    return f"{type(error).__name__}: {error}"  # a message such as KeyError's says too little


def quoted(value: object) -> str:
    """Writes a value from a file into a message: like ``repr``, but cut if it is long."""
    try:
        text = _QUOTES.repr(value)
    except ValueError:  # Python does not write integers of thousands of digits
        return "an integer of thousands of digits"
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."


def named(text: str) -> str:
    """Writes a name from a file into a message; quotes a name that is long or does not print."""
    return text if text.isprintable() and len(text) <= _QUOTES.maxstring else quoted(text)


def listed(texts: Iterable[str], most: int = 10) -> str:
    """Writes names from a file into a message, and ``...`` for those that are too many."""
    shown: list[str] = []
    room = _LONGEST_LIST
    for text in map(named, texts):
        room -= len(text)
        if len(shown) == most or (shown and room < 0):
            shown.append("...")
            break
        shown.append(text)
    return ", ".join(shown)


def harmless(text: str) -> str:
    """Escapes control characters, such as ESC, and surrogates; keeps all other characters."""
    return "".join(printable(c) if unicodedata.category(c) in _CONTROL else c for c in text)


def printable(text: str) -> str:
    """Escapes every character that does not print: more than ``harmless`` does."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


class MissingDependencyError(TimesformerError, ImportError):
    """A needed library is not installed, or cannot be loaded."""


class ModelNotFoundError(TimesformerError, FileNotFoundError):
    """A model does not exist under that path or Hub id."""


class HubError(TimesformerError, OSError):
    """The Hub cannot be reached, refused access or broke off."""


class InvalidModelError(TimesformerError, ValueError):
    """A model's file or configuration is broken, or it is not a video model that can run here."""


class VideoNotFoundError(TimesformerError, FileNotFoundError):
    """A video does not exist under that path."""


class InvalidVideoError(TimesformerError, ValueError):
    """A video cannot be opened or decoded, or an array is not a video."""


def unreadable(name: str, error: OSError | ValueError) -> InvalidVideoError:
    """Makes the error for a video whose file or file object failed to read."""
    return InvalidVideoError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}")


class VideoLimitError(InvalidVideoError):
    """Reading a video would cost more than the limits allow."""


class SourceLostError(TimesformerError, ConnectionError):
    """A live source stopped giving frames and could not be connected again."""


class InvalidOptionError(TimesformerError, ValueError):
    """An option has a value that is not allowed here."""


class OutputError(TimesformerError, OSError):
    """An output cannot be written, or was removed or replaced after it was written."""


def unwritable(name: str, error: Exception, then: str = "write to another folder") -> OutputError:
    """Makes the error for an output that cannot be written, with the remedy for its reason.

    Args:
        name: The file or folder.
        error: An OSError, or another error with ``errno`` and ``strerror``.
        then: What to do in place of the remedy, or after it.
    """
    reason = getattr(error, "strerror", None) or error
    remedy = _REMEDIES.get(getattr(error, "errno", None), "")
    return OutputError(f"{name} cannot be written: {reason}; {remedy}{then}")


class DeviceError(TimesformerError, RuntimeError):
    """A device is not available, or does not take the graph."""


class ClosedError(TimesformerError, ValueError):
    """An object was closed, or belongs to the process from which this one was forked."""


class MissingOutputError(TimesformerError, LookupError):
    """The model does not have the output that was asked for."""


class NotEnoughMemoryError(TimesformerError, MemoryError):
    """A model, a video, a checkpoint or the work of an export does not fit into memory."""


@contextmanager
def explained_memory_errors(need_and_remedy: str) -> Iterator[None]:
    """Turns an out-of-memory error of the block into one that names the need and the remedy.

    Args:
        need_and_remedy: The words of the message after "there is not enough memory for".
    """
    try:
        yield
    except TimesformerError:
        raise
    except MemoryError as error:
        raise NotEnoughMemoryError(f"there is not enough memory for {need_and_remedy}") from error


class InferenceTimeoutError(TimesformerError, TimeoutError):
    """The model took longer for a video than the limits allow."""


class ChildError(TimesformerError, RuntimeError):
    """Another process of this package ended without an answer; the message says how it ended."""
