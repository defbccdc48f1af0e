"""Runs the commands that make the benchmarks' files, but only where their sources have changed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.benchmarks.processes import ROOT, environment, last_words

_LIBRARIES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")


class MakingError(RuntimeError):
    """A command failed; the message has the last line of its log."""


def made(
    target: Path,
    command: Sequence[str],
    sources: Iterable[Path],
    threads: int,
    announce: Callable[[str], None] = lambda _: None,
) -> Path:
    """Runs a command that makes a file or a folder; returns at once if nothing has changed.

    Args:
        target: The file or folder.
        command: The program and its arguments, in which ``{}`` stands for the path to write to.
        sources: Files whose contents decide on the target; a folder stands for its ``.py`` files.
        threads: CPU threads for the command.
        announce: Called before the command runs, if it runs.

    Returns:
        The target.

    Raises:
        MakingError: The command failed.
    """
    stamp, partial = stamp_of(target), target.with_name(f"{target.stem}.partial{target.suffix}")
    key = _key(command, sources)
    if target.exists() and stamp.exists() and stamp.read_text() == key:
        return target
    announce(f"Making {target.parent.name}/{target.name}")
    for old in (stamp, target, partial):
        remove(old)
    target.parent.mkdir(parents=True, exist_ok=True)
    log = target.with_name(f"{target.name}.log")
    try:
        with log.open("w") as output:
            done = subprocess.run(
                [part.replace("{}", str(partial)) for part in command],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=environment(threads),
                check=False,
            )
        if done.returncode:
            raise MakingError(f"{target.name} cannot be made: {last_words(log)}")
        partial.rename(target)
    finally:
        remove(partial)
    stamp.write_text(key)
    log.unlink()
    return target


def stamp_of(target: Path) -> Path:
    """The file with the digest of a target's command and sources.

    This file is itself a source of the files that are made from the target.
    """
    return target.with_name(f"{target.name}.made")


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _key(command: Sequence[str], sources: Iterable[Path]) -> str:
    digest = hashlib.sha256("\0".join(command).encode())
    digest.update(str([importlib.metadata.version(name) for name in _LIBRARIES]).encode())
    for source in sources:
        files = sorted(source.rglob("*.py")) if source.is_dir() else [source]
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()
