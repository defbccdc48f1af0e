"""A classifier inside of other programs: asyncio services, and programs that stop half-way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from timesformer_runtime import ClosedError, Timeline, VideoClassifier

from tests.patience import PATIENCE
from tests.tiny_graphs import moving_frames, write_exported_model, write_video

Results = Timeline | Generator[Any, None, None]
# Iterators that read ahead in threads, each much longer than a test takes from it.
LONG: dict[str, Callable[[VideoClassifier, Path], Results]] = {
    "timeline": lambda classifier, video: classifier.timeline(video, 0.2, 0.01),
    "timeline of several": lambda classifier, video: classifier.timeline(
        video, 0.2, 0.01, workers=3
    ),
    "batch": lambda classifier, video: classifier.batch([video] * 500, workers=2),
    "stream": lambda classifier, video: classifier.stream(video, window=0.2, stride=0.01),
    "stream that drops": lambda classifier, video: classifier.stream(
        video, window=0.2, stride=0.01, drop=True
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedding")
    write_exported_model(folder / "shots")
    write_video(folder / "clip.mp4", moving_frames(60))
    return folder


@pytest.fixture(scope="module")
def classifier(folder: Path) -> VideoClassifier:
    return VideoClassifier.from_pretrained(folder / "shots", device="cpu", threads=1)


@pytest.fixture
def leaves_nothing(classifier: VideoClassifier, folder: Path) -> Iterator[None]:
    """Checks that a test leaves no thread and no open file."""
    classifier(folder / "clip.mp4")  # the watchdog's thread stays
    before = resources()
    yield
    assert resources() == before


def resources() -> tuple[set[str], int]:
    gc.collect()
    files = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
    return {thread.name for thread in threading.enumerate()}, files


# --- asyncio -------------------------------------------------------------------------------------


def test_requests_at_the_same_time(folder: Path, classifier: VideoClassifier) -> None:
    expected = classifier(folder / "clip.mp4")

    async def serve() -> list[Any]:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(2) as pool:
            video = folder / "clip.mp4"
            requests = [asyncio.to_thread(classifier, video) for _ in range(10)]
            pooled = [loop.run_in_executor(pool, classifier, video) for _ in range(10)]
            return list(await asyncio.gather(*requests, *pooled))

    assert asyncio.run(serve()) == [expected] * 20


def test_a_request_that_is_cancelled(
    folder: Path, classifier: VideoClassifier, leaves_nothing: None
) -> None:
    """The thread goes on until it is done; others are served meanwhile and afterwards."""
    begun, goes_on = threading.Event(), threading.Event()

    def slow_classify() -> object:
        begun.set()
        goes_on.wait()
        return classifier(folder / "clip.mp4")

    async def serve() -> object:
        request = asyncio.create_task(asyncio.to_thread(slow_classify))
        await asyncio.to_thread(begun.wait)
        request.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await request
        answer = await asyncio.to_thread(classifier, folder / "clip.mp4")
        goes_on.set()
        return answer

    assert asyncio.run(serve()) == classifier(folder / "clip.mp4")


@pytest.mark.parametrize("kind", LONG)
def test_a_client_that_leaves(
    folder: Path, classifier: VideoClassifier, kind: str, leaves_nothing: None
) -> None:
    """The request is cancelled while a thread waits for the next result."""
    results = LONG[kind](classifier, folder / "clip.mp4")

    async def answer(has_begun: asyncio.Event) -> None:
        try:
            while await asyncio.to_thread(next, results, None) is not None:
                has_begun.set()
        finally:
            await asyncio.to_thread(results.close)

    async def serve() -> None:
        has_begun = asyncio.Event()
        request = asyncio.create_task(answer(has_begun))
        await has_begun.wait()
        request.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await request

    asyncio.run(serve())
    assert next(results, None) is None


# --- Threads -------------------------------------------------------------------------------------


def test_threads_that_share_results_get_each_one_once(
    folder: Path, classifier: VideoClassifier, leaves_nothing: None
) -> None:
    expected = [segment.start for segment in classifier.timeline(folder / "clip.mp4", 0.4, 0.2)]
    shared = classifier.timeline(folder / "clip.mp4", 0.4, 0.2)
    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(lambda _: [segment.start for segment in shared], range(3)))
    assert sorted(start for part in parts for start in part) == expected


def test_a_callback_that_closes_what_runs_it(classifier: VideoClassifier, folder: Path) -> None:
    """One error, as Python says it of every generator."""

    def videos() -> Iterator[Path]:
        yield folder / "clip.mp4"
        results.close()

    results = classifier.batch(videos(), workers=1)
    with pytest.raises(ValueError, match="already executing"):
        list(results)


# --- Half-way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("end", ["close", "delete", "break", "throw"])
def test_ending_half_way(
    folder: Path, classifier: VideoClassifier, kind: str, end: str, leaves_nothing: None
) -> None:
    results = LONG[kind](classifier, folder / "clip.mp4")
    assert next(results)
    if end == "close":
        results.close()
        results.close()
    elif end == "delete":
        del results
    elif end == "break":
        for _ in results:
            break
        del results
    elif not isinstance(results, Timeline):
        with pytest.raises(KeyError):
            results.throw(KeyError())
        assert list(results) == []


@pytest.mark.parametrize("kind", LONG)
def test_a_classifier_that_is_closed_half_way(
    folder: Path, kind: str, leaves_nothing: None
) -> None:
    with VideoClassifier.from_pretrained(folder / "shots", device="cpu", threads=2) as closing:
        results = LONG[kind](closing, folder / "clip.mp4")
        assert next(results)
    with pytest.raises(ClosedError):
        list(results)


PROGRAM = """
    import sys, time
    from timesformer_runtime import VideoClassifier, VideoDecoder

    classifier = VideoClassifier.from_pretrained("shots", device="cpu", threads=2)
    options = {"window": 0.2, "stride": 0.01}
    begun = [
        classifier.timeline("clip.mp4", **options),
        classifier.timeline("clip.mp4", **options, workers=3),
        classifier.batch(["clip.mp4"] * 500),
        classifier.stream("clip.mp4", **options),
        classifier.stream("clip.mp4", **options, drop=True),
    ]
    for results in begun:
        assert next(results)
    decoder = VideoDecoder("clip.mp4", threads=2)
    decoder.frames([0, 7])
    print("begun", flush=True)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("classifier.close()", 0),
        ("del classifier", 0),
        ("import os; os._exit(3)", 3),
    ],
)
def test_a_program_that_ends_half_way(folder: Path, end: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM) + end],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "begun\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("number", range(5))
def test_an_interrupt_half_way(folder: Path, number: int) -> None:
    """Ctrl-C while a program takes results, as fast as they come."""
    end = f"""
while True:
    next(begun[{number}], None)
"""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM) + end],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == "begun\n"
            program.send_signal(signal.SIGINT)
            _, errors = program.communicate(timeout=PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
    assert program.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.endswith("KeyboardInterrupt\n")
