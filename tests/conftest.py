"""Fixtures and settings of all tests."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

# A shell starts background processes with SIGINT ignored, and their children inherit that. Then the
# commands that tests start and interrupt would not end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def limit_files() -> Callable[[int], AbstractContextManager[None]]:
    """Limits the size of files that this process writes, as a full disk does, within a block."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:  # before pytest reports, perhaps into a file
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
