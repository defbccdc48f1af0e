"""Serves the sample clips with gunicorn, whose workers fork after the classifier was loaded.

    python -m tests.end_to_end.check_gunicorn MODEL

gunicorn is installed into an environment of its own, from the package index.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click
import timesformer_runtime

from tests.patience import PATIENCE

_PACKAGE = Path(timesformer_runtime.__file__).parent
_CLIPS = sorted((_PACKAGE / "sample_clips").glob("*.mp4"))
_WORKERS = 2

# The service. The classifier answers once before gunicorn forks, so that its threads have begun.
_SERVICE = """
import io, json, os
from timesformer_runtime import VideoClassifier

model, threads, clip = os.environ["MODEL"], int(os.environ["THREADS"]), os.environ["CLIP"]
classifier = VideoClassifier.from_pretrained(model, device="cpu", threads=threads)
classifier(clip)

def app(environ, start_response):
    video = io.BytesIO(environ["wsgi.input"].read())
    answer = {"worker": os.getpid(), "label": classifier(video, top_k=1)[0]["label"]}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
"""


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
def main(model: Path) -> None:
    """Exits with 1 where an answer is wrong, or the workers do not end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "gunicorn", with_pip=True)
        python = folder / "gunicorn" / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "gunicorn"], check=True)
        (folder / "service.py").write_text(_SERVICE)
        for worker_class in ("sync", "gthread"):
            for threads in (1, 2):
                with _server(folder, python, model.absolute(), worker_class, threads) as server:
                    workers = _check_answers(server)
                click.echo(
                    f"{worker_class} workers, {threads} threads for a clip: all labels are right, "
                    f"from {workers} workers"
                )


class _Server(NamedTuple):
    address: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def _server(
    folder: Path, python: Path, model: Path, worker_class: str, threads: int
) -> Iterator[_Server]:
    """Runs the server while the context lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Where the package is installed for development, only its own environment finds it.
    packages = [str(_PACKAGE.parent), *sys.path, sysconfig.get_paths()["purelib"]]
    variables = {
        "MODEL": str(model),
        "THREADS": str(threads),
        "CLIP": str(_CLIPS[0]),
        "PYTHONPATH": os.pathsep.join(filter(None, packages)),
    }
    options = ["--preload", "--log-level=warning"]
    options += ["--workers", str(_WORKERS), "--worker-class", worker_class]
    command: list[str | Path] = [
        python,
        "-m",
        "gunicorn",
        *options,
        "--bind",
        f"127.0.0.1:{port}",
        "service:app",
    ]
    server = subprocess.Popen(command, cwd=folder, env={**os.environ, **variables})
    try:
        yield _Server(f"http://127.0.0.1:{port}/", server)
        server.terminate()
        if server.wait(PATIENCE) != 0:
            raise click.ClickException(f"gunicorn ended with code {server.returncode}")
    finally:
        server.kill()


def _check_answers(server: _Server) -> int:
    """Sends all clips, several at a time; returns how many workers answered."""
    with ThreadPoolExecutor(2 * _WORKERS) as pool:
        answers = list(pool.map(lambda clip: _answer(server, clip), _CLIPS * 3))
    for clip, answer in zip(_CLIPS * 3, answers, strict=True):
        if answer["label"] != clip.stem:
            raise click.ClickException(f"{clip.name} is named {answer['label']}")
    return len({answer["worker"] for answer in answers})


def _answer(server: _Server, clip: Path) -> dict[str, object]:
    request = urllib.request.Request(server.address, data=clip.read_bytes())
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                answer: dict[str, object] = json.load(response)
                return answer
        except urllib.error.URLError:  # the server has not started yet
            if time.monotonic() > end or server.process.poll() is not None:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    main()
