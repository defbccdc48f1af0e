"""Videos as users name them on the command line."""

from __future__ import annotations

import sys
from typing import BinaryIO

from timesformer_runtime.errors import InvalidVideoError

STDIN = "-"


def source(video: str) -> str | BinaryIO:
    """The path, or standard input for ``-``.

    Raises:
        InvalidVideoError: Standard input is closed.
    """
    if video != STDIN:
        return video
    if sys.stdin is None:  # as after "<&-"
        raise InvalidVideoError("standard input is closed; pipe a video into it, or give a path")
    # Unbuffered: whether something is there can be asked, and the time limit holds while waiting.
    raw: BinaryIO = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    return raw
