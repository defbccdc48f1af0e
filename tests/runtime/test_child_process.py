"""Another process answers requests, and its crashes are errors."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from timesformer_runtime.child_process import ChildProcess
from timesformer_runtime.errors import ChildError, InvalidModelError

from tests.patience import PATIENCE


def echoing(request: Any) -> Generator[Any, Any, None]:
    print("a library prints")
    while True:
        request = yield {"got": request, "process": os.getpid()}


def failing(request: Any) -> Generator[Any, Any, None]:
    raise InvalidModelError(f"{request} is not a model")
    yield


def crashing(request: int) -> Generator[Any, Any, None]:
    os.kill(os.getpid(), request)
    yield


def endless(request: Any) -> Generator[Any, Any, None]:
    signal.pause()
    yield


def modules(request: Any) -> Generator[Any, Any, None]:
    yield [request in sys.modules, Path.cwd().as_posix()]


def child(function: str) -> ChildProcess:
    return ChildProcess(f"{__name__}:{function}")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


def test_requests_and_answers() -> None:
    with child("echoing") as process:
        answers = [process.ask(request, PATIENCE) for request in (1, [None, "é"], {"a": 0.1})]
    assert [answer["got"] for answer in answers] == [1, [None, "é"], {"a": 0.1}]
    (number,) = {answer["process"] for answer in answers}
    assert number != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)  # it has ended


def test_an_error_of_this_package_keeps_its_class() -> None:
    with child("failing") as process, pytest.raises(InvalidModelError, match="x is not a model"):
        process.ask("x", PATIENCE)


@pytest.mark.skipif(os.name != "posix", reason="this system has no such signals")
def test_a_crash_is_an_error() -> None:
    for number, message in (
        (signal.SIGSEGV, r"crashed \(SIGSEGV\)"),
        (signal.SIGKILL, r"was killed \(SIGKILL\), as where the memory ends"),
    ):
        with child("crashing") as process, pytest.raises(ChildError, match=message):
            process.ask(int(number), PATIENCE)


@pytest.mark.skipif(os.name != "posix", reason="this system has no such signals")
def test_a_process_that_hangs_is_killed() -> None:
    with child("endless") as process, pytest.raises(ChildError, match=r"not done after 0\.2 sec"):
        process.ask(None, 0.2)


def test_nothing_is_imported_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    with child("modules") as process:
        assert process.ask("json", PATIENCE) == [True, tmp_path.as_posix()]
