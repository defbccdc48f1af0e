"""Loads and runs damaged models and checkpoints in a process of its own."""

import gc
import json
import logging
import os
import re
import shutil
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from timesformer_exporter.checkpoints import build_model, load_checkpoint
from timesformer_exporter.graph.metadata import source_dict
from timesformer_runtime import DecodeLimits, TimesformerError, VideoClassifier, Views
from timesformer_runtime.model import session

from tests.fuzz.models.damage import damage_folder
from tests.fuzz.models.guard import SECRET, PythonWatch, SecretFiles, tells_a_secret
from tests.fuzz.models.hostile import SECRET_NAMES
from tests.fuzz.models.lying_hub import REPOSITORY, LyingHub
from tests.fuzz.models.seeds import Seed, seed_of
from tests.fuzz.process import (
    REFUSED,
    answer_all,
    forget_peak,
    limited_memory,
    peak_mib,
    refusal,
)
from tests.tiny_graphs import moving_frames

RAN = "ran"
_ADDRESS_SPACE = 1 << 30  # bytes above what the process has before it uses the damaged files
_MOST_MIB = 400  # for a checkpoint; for a model's graph only the address space is a limit
_LOAD_SECONDS = 4.0
_LIMITS = DecodeLimits(max_seconds=4, max_bytes=1 << 26)
_CLIPS = (moving_frames(6), moving_frames(6), moving_frames(1, 2, 2000), moving_frames(9, 300, 1))
_VIEWS = (None, None, Views(protocol="facebook"), Views(crops=3), Views(resize="fast"))
_READS = ("open", "os.listdir", "os.scandir", "read")
_OURS = ("timesformer_runtime", "timesformer_exporter")


class Worker:
    """Uses one damaged seed after the other.

    Args:
        seeds: Folder with the intact seeds.
        scratch: Folder for the damaged seed, for the Hub's cache and for secret files.
    """

    def __init__(self, seeds: Path, scratch: Path) -> None:
        shutil.rmtree(scratch)  # the worker before may have left files
        scratch.mkdir()
        self._seeds = seeds
        self._number_of_seeds = len(list(seeds.iterdir()))
        self._folder = scratch / "inside" / "model"
        self._outside = scratch / "outside"
        self._home = scratch / "hub"
        self._hub = LyingHub()
        os.environ |= {
            **self._hub.environment(self._home),
            "HF_HUB_ETAG_TIMEOUT": "2",
            "HF_HUB_DOWNLOAD_TIMEOUT": "2",
            "HF_HUB_VERBOSITY": "critical",
            "HOME": str(self._home),
        }
        self._secrets = SecretFiles([self._folder.parent, self._outside], SECRET_NAMES)
        self._python = PythonWatch([self._folder, self._home])
        self._stray = _StrayMessages()

    def __enter__(self) -> "Worker":
        self._hub.__enter__()
        os.chdir(self._outside)  # an unchecked relative path leads here
        for seed in sorted(self._seeds.iterdir()):  # libraries load on first use
            outcome = self.use(seed.name, None)["outcome"]
            expected = REFUSED if seed_of(seed.name).is_refused else RAN
            assert outcome == expected, f"{seed.name} as it is: {outcome}"
        gc.collect()
        gc.freeze()
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.__exit__()

    def use(self, name: str, number: int | None) -> dict[str, Any]:
        """Damages a seed, loads and runs it.

        Args:
            name: The name of the seed.
            number: Decides on the damage; None to leave the seed intact.
        """
        seed = seed_of(name)
        for folder in (self._folder, self._home):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._seeds / name, self._folder)
        self._damage(seed, number)
        model = self._model(seed)
        self._secrets.touched()  # the damage itself touches them
        peak = forget_peak()
        start = time.process_time()  # other processes may be busy
        # The remainder already chose the seed: each seed is used in all ways.
        way = 1 if number is None else number // self._number_of_seeds
        outcome = self._outcome(seed, model, way)
        seconds = time.process_time() - start
        touched = [*self._python.found(), *self._secrets.touched()]
        if seed.names_another:
            touched = [what for what in touched if not what.startswith(_READS)]
        if touched:
            outcome = f"touched what is not the model's: {'; '.join(touched[:3])} ({outcome})"
        elif seed.kind == "checkpoint" and peak_mib() > peak + _MOST_MIB:
            outcome = f"took {peak_mib() - peak} MiB ({outcome})"
        elif stray := self._stray.taken():
            outcome = f"{stray} ({outcome})"
        return {"outcome": outcome, "seconds": seconds}

    def _damage(self, seed: Seed, number: int | None) -> None:
        random = np.random.default_rng(number)
        if number is not None and not (seed.on_hub and random.random() < 0.7):
            damage_folder(self._folder, self._outside, random)
        if seed.on_hub:
            files = {
                path.relative_to(self._folder).as_posix(): path.read_bytes()
                for path in sorted(self._folder.rglob("*"))
                if _is_plain(path)
            }
            self._hub.serve(files, None if number is None else random)

    def _model(self, seed: Seed) -> Path | str | bytes:
        path = self._folder / seed.target
        if seed.on_hub:
            return REPOSITORY
        if seed.kind == "bytes" and _is_plain(path):
            return path.read_bytes()
        return path

    def _outcome(self, seed: Seed, model: Path | str | bytes, way: int) -> str:
        self._python.active = True
        try:
            with _without_pauses(), limited_memory(_ADDRESS_SPACE):
                text = (_load_checkpoint if seed.kind == "checkpoint" else _run)(model, way)
            outcome = RAN
        except TimesformerError as error:
            outcome, text = refusal(error), str(error)
        except BaseException as error:  # the finding
            outcome, text = _described(error), str(error)
        finally:
            self._python.active = False
            _close_connections()
            gc.collect()
        return f"a secret is told: {text}" if tells_a_secret(text) else outcome


def _is_plain(path: Path) -> bool:
    """True for a regular file of a moderate size."""
    return path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 24


def _run(model: Path | str | bytes, way: int) -> str:
    """Runs a model on a clip and its golden check; returns what users see.

    Args:
        model: The model.
        way: Chooses the views, the clip and the outputs.
    """
    classifier = VideoClassifier.from_pretrained(
        model,
        device="cpu",
        threads=1,
        limits=_LIMITS,
        views=_VIEWS[way % len(_VIEWS)],
    )
    outputs = classifier.outputs if way % 6 else ("logits", "features")
    result = classifier.classify(_CLIPS[way % len(_CLIPS)], outputs=outputs)
    if classifier.model.golden is not None:
        classifier.verify()
    for name, values in result.outputs.items():
        assert not _holds_a_secret(values), f"output {name} is a secret file"
    digest = classifier.fingerprint()
    return _as_json([result.to_dict(), classifier.labels, classifier.notes, digest])


def _holds_a_secret(values: npt.NDArray[Any]) -> bool:
    """Searches an output where it is: a graph may give one so large that a copy has no room."""
    return re.search(re.escape(SECRET[:16]), np.ascontiguousarray(values).data) is not None


def _load_checkpoint(model: Any, way: int) -> str:
    """Loads a checkpoint as an export does; returns what the export would write.

    Args:
        model: The checkpoint.
        way: Chooses the task, the number of frames and the size.
    """
    task = "video-classification" if way % 5 else "feature-extraction"
    checkpoint = load_checkpoint(
        model,
        task=task,
        num_frames=None if way % 7 else 5,
        image_size=None if way % 11 else 48,
    )
    build_model(checkpoint, task)
    for note in checkpoint.notes:
        assert refusal(Exception(note)) == REFUSED, refusal(Exception(note))
    config, source = checkpoint.config.to_dict(), source_dict(checkpoint.source)
    return _as_json([config, checkpoint.preprocessing, source, checkpoint.notes])


def _as_json(values: object) -> str:
    text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    text.encode()
    return text


def _described(error: BaseException) -> str:
    """Describes an error, and where our code raised it or let it pass."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if any(name in frame.filename for name in _OURS)] or frames
    return f"{error!r:.300} in {Path(ours[-1].filename).name}, line {ours[-1].lineno}"


@contextmanager
def _without_pauses() -> Iterator[None]:
    """Removes the pauses between attempts to reach the Hub."""
    sleep, time.sleep = time.sleep, lambda _: None
    try:
        yield
    finally:
        time.sleep = sleep


def _close_connections() -> None:
    """Closes the connections that huggingface_hub keeps open for its next request."""
    from huggingface_hub import utils  # noqa: PLC0415  # importing it reads the environment

    close = getattr(utils, "close_session", None) or utils.reset_sessions
    close()


class _StrayMessages(logging.Handler):
    """Collects log messages that are not one plain line, and exceptions that nobody caught."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[str] = []
        for name in _OURS:
            logging.getLogger(name).addHandler(self)
        sys.unraisablehook = lambda raised: self._found.append(f"unraisable {raised.exc_value!r}")
        threading.excepthook = lambda raised: self._found.append(f"in a thread {raised!r}")

    def emit(self, record: logging.LogRecord) -> None:
        problem = refusal(Exception(record.getMessage()))
        if problem != REFUSED:
            self._found.append(f"logged: {problem}")

    def taken(self) -> str:
        """Returns the findings since the last call."""
        found, self._found = self._found, []
        return "; ".join(found[:3])


def main(seeds: Path, scratch: Path) -> None:
    """Reads and answers cases until the input ends."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # huggingface_hub warns of sizes that the lying Hub states
    session._LOAD_SECONDS = _LOAD_SECONDS
    with Worker(seeds, scratch) as worker:
        answer_all(worker.use)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
