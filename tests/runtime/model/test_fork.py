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

from tests.tiny_graphs import TinyGraph, own_metadata

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")

BEGIN = """
    import multiprocessing, os, signal, sys, threading, time
    import numpy as np
    from timesformer_runtime import InvalidModelError, VideoClassifier

    model, threads = sys.argv[1], int(sys.argv[2])
    frames = np.arange(8 * 32 * 32 * 3, dtype=np.uint8).reshape(8, 32, 32, 3)

    def load():
        return VideoClassifier.from_pretrained(model, device="cpu", threads=threads)

    def code_of(child):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return TinyGraph(metadata=own_metadata()).save(tmp_path / "model.onnx")


def run(code: str, graph: Path, threads: int) -> str:
    source = textwrap.dedent(BEGIN) + textwrap.dedent(code)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", source, graph, str(threads)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=60)
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
