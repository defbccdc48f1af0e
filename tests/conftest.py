"""What all tests need."""

import signal
from collections.abc import Callable, Iterator

import pytest

# A shell starts what runs in its background with interrupts ignored, and so would be every command
# that a test starts, and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    """Sets how many bytes a file may have, in a test's own process: a disk that is full at will."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
