"""Processes that are forked after a model was loaded, as by servers that load before they fork.

Each scenario runs in a process of its own, which must end by itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.tiny_graphs import TinyGraph, moving_frames, own_metadata, write_video

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")

BEGIN = """
    import multiprocessing, os, signal, sys, threading, time
    import numpy as np
    from timesformer_runtime import ClosedError, InvalidModelError, VideoClassifier, VideoDecoder

    model, threads = sys.argv[1], int(sys.argv[2])
    video = os.path.join(os.path.dirname(model), "video.mp4")
    frames = np.arange(8 * 32 * 32 * 3, dtype=np.uint8).reshape(8, 32, 32, 3)

    def load():
        return VideoClassifier.from_pretrained(model, device="cpu", threads=threads)

    def code_of(child):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return TinyGraph(metadata=own_metadata()).save(tmp_path / "model.onnx")


def run(code: str, graph: Path, threads: int, *arguments: str) -> str:
    """Runs code in a process of its own: from a file, as a spawned worker imports it."""
    program = graph.parent / "program.py"
    program.write_text(textwrap.dedent(BEGIN) + textwrap.dedent(code))
    options = ["-W", "ignore::DeprecationWarning"]
    process = subprocess.Popen(
        [sys.executable, *options, program, graph, str(threads), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with its children
        raise
    assert (process.returncode, errors) == (0, "")
    return output.strip()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("end", ["sys.exit(7)", "del classifier; sys.exit(7)", "os._exit(7)"])
def test_a_child_classifies_and_ends(graph: Path, threads: int, end: str) -> None:
    code = f"""
        classifier = load()
        expected = classifier(frames)
        child = os.fork()
        if not child:
            assert classifier(frames) == expected
            grandchild = os.fork()
            if not grandchild:
                assert classifier(frames) == expected
            else:
                assert code_of(grandchild) == 7
            {end}
        assert code_of(child) == 7
        assert classifier(frames) == expected
    """
    run(code, graph, threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_child_that_only_ends(graph: Path, threads: int) -> None:
    code = """
        classifier = load()
        classifier(frames)
        child = os.fork()
        if not child:
            sys.exit(0)
        assert code_of(child) == 0
    """
    run(code, graph, threads)


def test_a_pool_that_forks(graph: Path) -> None:
    code = """
        classifier = load()
        expected = classifier(frames)

        def label(_):
            return classifier(frames) == expected

        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(label, range(6)) == [True] * 6
            pool.close()
            pool.join()
    """
    run(code, graph, 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_server_that_loads_before_it_forks(graph: Path, threads: int) -> None:
    """As gunicorn --preload: its workers end by themselves when they are told to."""
    code = """
        classifier = load()
        workers = []
        ready, tell = os.pipe()
        for _ in range(2):
            worker = os.fork()
            if not worker:
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
                assert classifier(frames)
                os.write(tell, b"x")
                while True:
                    time.sleep(60)
            workers.append(worker)
        count = 0
        while count < len(workers):
            count += len(os.read(ready, len(workers)))
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        assert [code_of(worker) for worker in workers] == [0, 0]
    """
    run(code, graph, threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_that_goes_on_while_it_forks(graph: Path, threads: int) -> None:
    """Its locks are never released in the child."""
    code = """
        classifier = load()
        expected = classifier(frames)
        session = classifier.model.session
        go, stop = threading.Event(), threading.Event()

        class Slow:
            def run(self, *arguments):
                go.set()
                stop.wait()
                return []

            def __getattr__(self, name):
                return getattr(real, name)

        real, session._session = session._session, Slow()
        thread = threading.Thread(target=session.run, args=(["logits"], {}))
        thread.start()
        go.wait()
        child = os.fork()
        if not child:
            assert not isinstance(session._session, Slow)
            assert classifier(frames) == expected
            os._exit(7)
        assert code_of(child) == 7
        session._session = real
        stop.set()
        thread.join()
    """
    run(code, graph, threads)


def test_without_threads_the_weights_stay_shared(graph: Path) -> None:
    code = """
        classifier = load()
        session = classifier.model.session._session
        child = os.fork()
        if not child:
            classifier(frames)
            sys.exit(7 if classifier.model.session._session is session else 1)
        assert code_of(child) == 7
    """
    run(code, graph, 1)


def test_a_child_in_another_folder(graph: Path) -> None:
    code = """
        os.chdir(os.path.dirname(model))
        model = os.path.basename(model)
        classifier = load()
        child = os.fork()
        if not child:
            os.chdir("/")
            classifier(frames)
            sys.exit(7)
        assert code_of(child) == 7
    """
    run(code, graph, 2)


def test_a_model_that_is_replaced_before_the_child_needs_it(graph: Path) -> None:
    """Its labels and its graph could be of two models."""
    code = """
        classifier = load()
        os.rename(model + ".new", model)
        child = os.fork()
        if not child:
            try:
                classifier(frames)
            except InvalidModelError as error:
                print(error, flush=True)
                os._exit(7)
        assert code_of(child) == 7
    """
    TinyGraph(metadata=own_metadata(), scale=2.0).save(graph).rename(f"{graph}.new")
    TinyGraph(metadata=own_metadata()).save(graph)
    assert "it was replaced after it was loaded" in run(code, graph, 2)


def test_onnxruntime_starts_no_thread_that_a_child_would_wait_for(graph: Path) -> None:
    """Some versions report to their makers in a thread, for which the end of a child waits."""
    code = """
        from timesformer_runtime.model.device import load_onnxruntime
        load_onnxruntime()
        child = os.fork()
        if not child:
            sys.exit(7)
        assert code_of(child) == 7
    """
    run(code, graph, 2)


# How a forked process meets what its parent began: it goes on with it, closes it, deletes it, or
# only ends. Each of them would wait for threads that the process does not have.
MEETINGS = {
    "goes on": "print(refusal(lambda: go_on(thing)))",
    "closes": "thing.close(); thing.close()",
    "deletes": "del thing; gc.collect()",
    "ends": "",
}
HALFWAY = {
    "timeline": "classifier.timeline(video, 0.2, 0.1)",
    "timeline of several": "classifier.timeline(video, 0.2, 0.1, workers=2)",
    "batch": "classifier.batch([video] * 20)",
    "stream": "classifier.stream(video, window=0.2, stride=0.1)",
    "stream that drops": "classifier.stream(video, window=0.2, stride=0.1, drop=True)",
    "decoder": "VideoDecoder(video, threads=2)",
}


@pytest.mark.parametrize("meeting", MEETINGS)
@pytest.mark.parametrize("thing", HALFWAY)
def test_what_the_parent_began_is_left_to_it(graph: Path, thing: str, meeting: str) -> None:
    code = f"""
        import gc

        def go_on(thing):
            if isinstance(thing, VideoDecoder):
                return thing.frames([3, 5]).indices
            return next(thing)

        def refusal(use):
            try:
                return use()
            except ClosedError as error:
                return f"refused: {{error}}"

        classifier = load()
        thing = {HALFWAY[thing]}
        go_on(thing)
        sys.stdout.flush()
        child = os.fork()
        if not child:
            {MEETINGS[meeting]}
            assert classifier(video)  # another use in this process works
            sys.exit(7)
        assert code_of(child) == 7
        assert go_on(thing)  # the parent goes on
        thing.close()
        assert [thread.name for thread in threading.enumerate()] == ["MainThread", "watchdog"]
    """
    # So long that a stream that drops is not at its end when its first window is taken.
    write_video(graph.parent / "video.mp4", moving_frames(600))
    output = run(code, graph, 2)
    assert output.startswith("refused: ") == (meeting == "goes on")


def test_a_timeline_that_has_not_begun_belongs_to_each_process(graph: Path) -> None:
    code = """
        classifier = load()
        timeline = classifier.timeline(video, 0.4, 0.2)
        child = os.fork()
        count = len(list(timeline))
        if not child:
            sys.exit(count)
        assert code_of(child) == count > 5
    """
    write_video(graph.parent / "video.mp4", moving_frames(40))
    run(code, graph, 2)


def test_a_closed_classifier_is_closed_in_a_fork(graph: Path) -> None:
    code = """
        classifier = load()
        classifier.close()
        child = os.fork()
        if not child:
            try:
                classifier(frames)
            except ClosedError:
                sys.exit(7)
        assert code_of(child) == 7
    """
    run(code, graph, 2)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_every_start_method(graph: Path, method: str) -> None:
    """Each of them gets a classifier that its parent has used already."""
    code = """
        import concurrent.futures
        from timesformer_runtime import VideoClassifier

        if __name__ == "__main__":
            method, model = sys.argv[3], sys.argv[1]
            classifier = VideoClassifier.from_pretrained(model, device="cpu", threads=2)
            expected = classifier(frames)
            context = multiprocessing.get_context(method)
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
                assert list(pool.map(classifier, [frames] * 4)) == [expected] * 4
            worker = context.Process(target=classifier, args=(frames,))
            worker.start()
            worker.join()
            assert worker.exitcode == 0
    """
    run(code, graph, 2, method)
